package room

import (
	"slices"
	"time"
)

const (
	// Window is how many of the next places edges say whether anybody asks for them.
	Window = 4096
	// maxCalled bounds the places that are called at a time.
	maxCalled = 1000
	// markSteps is how finely it is noted since when a place is in the window, in parts of the grace.
	markSteps = 16
)

// mark says that all places below one are in the window since a time.
type mark struct {
	below int64
	since time.Time
}

// view is what the places are called by.
type view struct {
	now           time.Time
	front, joined int64
	// seen is when anybody asked for places of the window last.
	seen  map[int64]time.Time
	grace time.Duration
	marks []mark
	// budget is how many may be called now: what the stock reaches for and the rate allows, less who is in.
	budget int64
}

// call decides which places are called, the first ones, and up to which place all have had their turn then. A place is
// passed over if nobody has asked for it for as long as the grace, though it was in the window all that time. One of
// which that is not known is called, so that nobody who is there is overtaken, and nobody who has left is waited for.
func (v *view) call() (places []int64, front int64) {
	end := min(v.joined, v.front+Window)
	for front = v.front; front < end && int64(len(places)) < min(v.budget, maxCalled); front++ {
		if !v.absent(front) {
			places = append(places, front)
		}
	}
	return places, front
}

// absent reports whether it is known that nobody is at a place.
func (v *view) absent(place int64) bool {
	if seen, ok := v.seen[place]; ok && v.now.Sub(seen) <= v.grace {
		return false
	}
	return slices.ContainsFunc(v.marks, func(m mark) bool {
		return place < m.below && v.now.Sub(m.since) > v.grace
	})
}

// marked are the marks for the next call, from a front on: as few as say the same.
func (v *view) marked(front int64) []mark {
	var kept []mark
	old := mark{}
	for _, m := range v.marks {
		switch {
		case m.below <= front: // all of it has had its turn
		case v.now.Sub(m.since) > v.grace:
			if m.below > old.below {
				old = m
			}
		default:
			kept = append(kept, m)
		}
	}
	if old.below > 0 {
		kept = slices.Insert(kept, 0, old)
	}
	newest := mark{}
	if len(kept) > 0 {
		newest = kept[len(kept)-1]
	}
	if front+Window > newest.below && v.now.Sub(newest.since) >= v.grace/markSteps {
		kept = append(kept, mark{front + Window, v.now})
	}
	return kept
}

// Allowed is how many may have a turn or a pass at a time: as many as the units that are available reach for, with more
// than one turn for each as the overbooking says, in thousandths, since not all who are let in buy.
func Allowed(available, overbook int64) int64 { return max(available, 0) * overbook / 1000 }
