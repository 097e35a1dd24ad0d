package room

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestCall: places are called in their order, as many as the budget has, those of the absent are passed over, and those
// of which nobody knows are not.
func TestCall(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	ago := func(s int) time.Time { return now.Add(-time.Duration(s) * time.Second) }
	watched := []mark{{below: 100, since: ago(60)}}
	for name, test := range map[string]struct {
		v     view
		want  []int64
		front int64
	}{
		"nobody":              {view{budget: 5}, nil, 0},
		"no budget":           {view{joined: 5}, nil, 0},
		"less than none":      {view{joined: 5, budget: -3}, nil, 0},
		"all that are there":  {view{joined: 3, budget: 5}, []int64{0, 1, 2}, 3},
		"as many as there is": {view{joined: 9, front: 4, budget: 2}, []int64{4, 5}, 6},
		"one is absent": {view{
			joined: 5, budget: 2, marks: watched, seen: map[int64]time.Time{0: ago(1), 1: ago(31), 2: ago(30)},
		}, []int64{0, 2}, 3},
		"all are absent":     {view{joined: 5, budget: 2, marks: watched}, nil, 5},
		"not watched enough": {view{joined: 5, budget: 2, marks: []mark{{100, ago(30)}}}, []int64{0, 1}, 2},
		"beyond what is watched": {view{
			joined: 200, front: 98, budget: 2, marks: watched,
		}, []int64{100, 101}, 102},
	} {
		test.v.now, test.v.grace = now, 30*time.Second
		if got, front := test.v.call(); !slices.Equal(got, test.want) || front != test.front {
			t.Errorf("%s: %v up to %d, want %v up to %d", name, got, front, test.want, test.front)
		}
	}
}

// TestLine is a line of people who come, stay or leave, for some minutes: nobody who is there is passed over or
// overtaken, nobody is called twice, and those who have left are no more than passed over, once they are watched.
func TestLine(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		v := view{
			now: time.Unix(1_800_000_000, 0), grace: 30 * time.Second, seen: map[int64]time.Time{},
			joined: rapid.Int64Range(0, Window+500).Draw(t, "early"),
		}
		leaves := rapid.Float64Range(0, .2).Draw(t, "leaves")
		gone := map[int64]time.Time{}
		for range 150 {
			v.now = v.now.Add(250 * time.Millisecond)
			v.joined += rng.Int64N(3)
			for place := v.front; place < min(v.joined, v.front+Window); place++ {
				if _, left := gone[place]; !left && rng.Float64() < leaves/40 {
					gone[place] = v.now
				}
				if _, left := gone[place]; !left && v.now.Sub(v.seen[place]) >= 5*time.Second {
					v.seen[place] = v.now
				}
			}

			v.budget = rng.Int64N(9)
			before := v.front
			places, front := v.call()
			next := before
			for _, place := range places {
				for ; next < place; next++ {
					if _, left := gone[next]; !left {
						t.Fatalf("place %d is passed over, and somebody is there", next)
					}
				}
				if place < next {
					t.Fatalf("place %d is called after %d", place, next)
				}
				next++
			}
			if front < next || int64(len(places)) > v.budget {
				t.Fatalf("%d places are called up to %d, with a budget of %d", len(places), front, v.budget)
			}
			// With a budget left, somebody is called unless the line is over or nobody was there for long.
			if int64(len(places)) < v.budget && front < min(v.joined, before+Window) {
				t.Fatalf("%d of %d are called up to %d of %d", len(places), v.budget, front, v.joined)
			}
			v.marks, v.front = v.marked(front), front
			if len(v.marks) > markSteps+2 {
				t.Fatalf("there are %d marks", len(v.marks))
			}
		}
	})
}

func TestAllowed(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ available, overbook, want int64 }{
		{0, 1200, 0}, {-3, 1200, 0}, {1, 1200, 1}, {10, 1200, 12}, {500, 1000, 500},
	} {
		if got := Allowed(test.available, test.overbook); got != test.want {
			t.Errorf("%d units, overbooked by %d: %d, want %d", test.available, test.overbook, got, test.want)
		}
	}
}
