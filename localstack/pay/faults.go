package pay

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"
)

// The kinds of faults.
const (
	// NoticeTwice posts a notice twice at the same time.
	NoticeTwice = "notice_twice"
	// NoticeTwin posts another event of the same change, with an id of its own: PayPal and Stripe.
	NoticeTwin = "notice_twin"
	// NoticeLate posts it only after the delay.
	NoticeLate = "notice_late"
	// NoticeOutOfOrder holds a notice back until another one of the same provider was posted, or for the delay.
	NoticeOutOfOrder = "notice_out_of_order"
	// NoticeForged posts the same notice before, signed by somebody else. See also the forged payment of /admin/forge.
	NoticeForged = "notice_forged"
	// NoticeFirst posts what a call leads to before the call is answered.
	NoticeFirst = "notice_before_answer"
	// NoticeNever posts nothing.
	NoticeNever = "notice_never"

	// AnswerLost does what a call asks for, and cuts the connection in the middle of the answer.
	AnswerLost = "answer_lost"
	// RequestLost does the same without having done anything.
	RequestLost = "request_lost"
	// Trouble answers a call in the provider's own words for "unknown", without having done anything.
	Trouble = "trouble"
	// Refused has a create, capture or refund refused in the provider's own words. A refund that was refused stays so.
	Refused = "refused"
	// PaidWhileClosing has the buyer pay just before a close is handled, or before a query at ECPay, which has no
	// close.
	PaidWhileClosing = "paid_while_closing"

	// IssuedFirst has ECPay give out a number before it is paid.
	IssuedFirst = "issued_before_paid"
	// Simulated has ECPay tell of a payment that is none (SimulatePaid=1).
	Simulated = "simulated"
	// Unsettled leaves a payment by card at ECPay unsettled until /admin/settle, so that it cannot be refunded in part.
	Unsettled = "unsettled"

	// Down cuts the connection of each request, for the delay from when it is set; without one until faults are set
	// anew.
	Down = "down"
	// Slow does what a call asks for only after the delay.
	Slow = "slow"
)

var kinds = []string{
	NoticeTwice, NoticeTwin, NoticeLate, NoticeOutOfOrder, NoticeForged, NoticeFirst, NoticeNever,
	AnswerLost, RequestLost, Trouble, Refused, PaidWhileClosing, IssuedFirst, Simulated, Unsettled, Down, Slow,
}

// The operations of the providers, which a fault may be limited to. At ECPay and Alipay the buyer's browser creates.
const (
	opToken       = "token"
	opCreate      = "create"
	opQuery       = "query"
	opCapture     = "capture"
	opClose       = "close"
	opRefund      = "refund"
	opQueryRefund = "query_refund"
	opVerify      = "verify"
	opPage        = "page"
)

var operations = []string{opToken, opCreate, opQuery, opCapture, opClose, opRefund, opQueryRefund, opVerify, opPage}

const (
	maxFaults    = 100
	maxDelay     = 10 * time.Minute
	defaultDelay = time.Second
)

// Fault is one way to misbehave. The zero value of a field but Kind is the widest or usual one.
type Fault struct {
	Provider    string  `json:"provider,omitempty"` // empty is each
	Kind        string  `json:"kind"`
	Call        string  `json:"call,omitempty"`        // the operation that it is limited to
	Probability float64 `json:"probability,omitempty"` // from 0 to 1; 0 is always
	Count       int     `json:"count,omitempty"`       // how often it happens; 0 is without end
	DelayMS     int64   `json:"delay_ms,omitempty"`    // 0 is a second, but for Down
}

func (f *Fault) delay() time.Duration {
	if f.DelayMS == 0 {
		return defaultDelay
	}
	return time.Duration(f.DelayMS) * time.Millisecond
}

// Faults make a server misbehave as real providers may. Probabilities are decided by one generator that starts from
// Seed.
type Faults struct {
	Seed   uint64  `json:"seed,omitempty"`
	Faults []Fault `json:"faults"`
}

func (f *Fault) check() error {
	switch {
	case !slices.Contains(kinds, f.Kind):
		return fmt.Errorf("pay: there is no fault %q, but %s", f.Kind, strings.Join(kinds, ", "))
	case f.Call != "" && !slices.Contains(operations, f.Call):
		return fmt.Errorf("pay: there is no call %q, but %s", f.Call, strings.Join(operations, ", "))
	case f.Provider != "" && !slices.Contains([]string{ECPay, PayPal, Alipay, Stripe}, f.Provider):
		return fmt.Errorf("pay: there is no provider %q", f.Provider)
	case !(f.Probability >= 0 && f.Probability <= 1) || f.Count < 0:
		return fmt.Errorf("pay: %s: a probability is from 0 to 1, and a count not below 0", f.Kind)
	case f.DelayMS < 0 || f.DelayMS > maxDelay.Milliseconds():
		return fmt.Errorf("pay: %s: a delay is up to %s", f.Kind, maxDelay)
	}
	return nil
}

// SetFaults replaces all faults, at once and for what comes after.
func (s *Server) SetFaults(f Faults) error {
	if len(f.Faults) > maxFaults {
		return fmt.Errorf("pay: more than %d faults", maxFaults)
	}
	for i := range f.Faults {
		if err := f.Faults[i].check(); err != nil {
			return err
		}
	}
	s.faults.set(f)
	return nil
}

// Happened returns how often each fault has happened since the start, by "provider kind call".
func (s *Server) Happened() map[string]int {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	return maps.Clone(s.faults.happened)
}

type injector struct {
	mu       sync.Mutex
	faults   Faults
	since    time.Time
	left     []int // of each fault that has a count
	rng      *rand.Rand
	happened map[string]int
}

func (in *injector) set(f Faults) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.faults = Faults{Seed: f.Seed, Faults: slices.Clone(f.Faults)}
	in.since, in.rng = time.Now(), rand.New(rand.NewPCG(f.Seed, f.Seed))
	in.left = nil
	for _, one := range f.Faults {
		in.left = append(in.left, one.Count)
	}
	if in.happened == nil {
		in.happened = map[string]int{}
	}
}

func (in *injector) get() Faults {
	in.mu.Lock()
	defer in.mu.Unlock()
	return Faults{Seed: in.faults.Seed, Faults: slices.Clone(in.faults.Faults)}
}

// roll decides whether a fault happens now to a call of a provider, and returns its delay.
func (in *injector) roll(kind, provider, operation string) (time.Duration, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for i := range in.faults.Faults {
		f := &in.faults.Faults[i]
		if f.Kind != kind || f.Provider != "" && f.Provider != provider || f.Call != "" && f.Call != operation {
			continue
		}
		switch {
		case f.Count > 0 && in.left[i] == 0,
			kind == Down && f.DelayMS > 0 && time.Since(in.since) > f.delay(),
			f.Probability > 0 && in.rng.Float64() >= f.Probability:
			continue
		}
		if f.Count > 0 {
			in.left[i]--
		}
		in.happened[strings.TrimSpace(provider+" "+kind+" "+operation)]++
		return f.delay(), true
	}
	return 0, false
}

// down reports whether a provider is down for all that it does, which is not counted.
func (in *injector) down(provider string) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.ContainsFunc(in.faults.Faults, func(f Fault) bool {
		return f.Kind == Down && f.Count == 0 && f.Call == "" && (f.Provider == "" || f.Provider == provider) &&
			f.Probability == 0 && (f.DelayMS == 0 || time.Since(in.since) <= f.delay())
	})
}
