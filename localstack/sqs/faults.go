package sqs

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Faults makes a server misbehave as a real one may, for tests. The zero value is no fault. Probabilities are from 0
// to 1 and decided by one generator that starts from Seed, so a sequence of requests one at a time meets the same
// faults each time; concurrent requests meet the same number of them.
//
// A client that retries hides faults from its caller: the AWS SDK tries three times, after lost answers and status
// 503 but not after OverLimit.
type Faults struct {
	Actions []string // The actions that faults apply to, such as "SendMessage"; none means all of them.
	Queue   string   // The name of the queue that they apply to; empty means all of them.
	Seed    uint64

	// For each message received: a copy stays behind, is delivered to another receive, and must be deleted apart.
	Duplicate float64
	// For each message received: it comes from a random place among the first 256 instead of from the head.
	Reorder   float64
	FailEntry float64 // For each entry of a batch: it fails with RefuseWith or InternalError, and has no effect.
	Refuse    float64 // For each request: it is refused with RefuseWith and has no effect.
	Lose      float64 // For each request: it has its effect, but the connection is closed instead of an answer.

	RefuseWith string        // "OverLimit" (403), or else ServiceUnavailable (503), which leaves clients in doubt.
	Delay      time.Duration // How long a finished request waits before its answer is sent.
	// Every connection is closed at its next request, which has no effect; so are waiting receives.
	Unavailable bool
}

type injector struct {
	Faults
	mu  sync.Mutex
	rng *rand.Rand
}

// fault names the probability that a roll is about.
type fault func(*Faults) float64

func duplicate(f *Faults) float64 { return f.Duplicate }
func reorder(f *Faults) float64   { return f.Reorder }
func failEntry(f *Faults) float64 { return f.FailEntry }
func refuse(f *Faults) float64    { return f.Refuse }
func lose(f *Faults) float64      { return f.Lose }

// SetFaults replaces all faults, at once and for the requests that come after. Those of LoseNext and RefuseNext stay.
func (s *Server) SetFaults(f Faults) {
	s.faults.Store(&injector{Faults: f, rng: rand.New(rand.NewPCG(f.Seed, f.Seed))})
}

// LoseNext makes the next n requests of an action take effect and then lose their answer, whatever Faults say.
// An n of 0 ends it. It panics if there is no such action.
func (s *Server) LoseNext(action string, n int) {
	s.mustAction(action).loseNext.Store(int64(n))
}

// RefuseNext makes the next n requests of an action fail with OverLimit and without effect, whatever Faults
// say. An n of 0 ends it. It panics if there is no such action.
func (s *Server) RefuseNext(action string, n int) {
	s.mustAction(action).refuseNext.Store(int64(n))
}

func (s *Server) mustAction(name string) *action {
	a := s.actions[name]
	if a == nil {
		panic("sqs: unknown action " + name)
	}
	return a
}

// countDown reports whether a counter was above zero and takes one off.
func countDown(left *atomic.Int64) bool {
	for {
		n := left.Load()
		if n <= 0 {
			return false
		}
		if left.CompareAndSwap(n, n-1) {
			return true
		}
	}
}

// faultsFor returns the faults that apply to a request, or nil.
func (s *Server) faultsFor(c *call) *injector {
	in := s.faults.Load()
	if in == nil ||
		len(in.Actions) > 0 && !slices.Contains(in.Actions, c.action.name) ||
		in.Queue != "" && in.Queue != string(c.target()) {
		return nil
	}
	return in
}

// roll decides whether a fault happens. A nil injector has none.
func (in *injector) roll(which fault) bool {
	if in == nil {
		return false
	}
	p := which(&in.Faults)
	if p <= 0 {
		return false
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.rng.Float64() < p
}

func (in *injector) pick(n int) int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.rng.IntN(n)
}

// failure is what an entry fails with.
func (in *injector) failure() *apiError {
	if in.RefuseWith == errOverLimit.code {
		return errOverLimit
	}
	return errInternal
}

func (in *injector) refusal() *apiError {
	if in.RefuseWith == errOverLimit.code {
		return errOverLimit
	}
	return errUnavailable
}
