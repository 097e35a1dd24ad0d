package pay

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"syscall"
	"time"
)

const (
	// maxPending bounds the notices that are not acknowledged yet, each with a goroutine; more are dropped, and
	// counted.
	maxPending = 2000
	// maxPosts bounds how many are posted at the same time.
	maxPosts = 32
	// maxDeliveries bounds the tries that are kept for /admin/state.
	maxDeliveries = 500
	// maxReply bounds what is read of an acknowledgement, in bytes, and maxReplyKept what is kept of it.
	maxReply, maxReplyKept = 4 << 10, 100
	// downPause is how often a provider that is down looks whether it may tell again.
	downPause = 50 * time.Millisecond

	defaultNoticeTimeout = 10 * time.Second
)

var defaultPauses = []time.Duration{
	200 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second,
	10 * time.Second, 10 * time.Second,
}

// notice is what a provider tells the merchant. The sender's goroutine of it alone changes it.
type notice struct {
	provider, number, kind string
	url                    string
	// sign makes headers and body of one try. A forged one is signed by somebody else.
	sign   func(forged bool) (http.Header, string)
	forged bool
	// twin makes another notice of the same change, with an id of its own; nil where the provider has none.
	twin func() *notice

	due   time.Time
	tries int
	after <-chan struct{} // closed when the notice of the same attempt before it was tried
	pass  chan struct{}   // closed when another one has overtaken it; nil if it need not be
	tried chan struct{}   // closed when it was tried
}

// Delivery is one try of a notice.
type Delivery struct {
	At           time.Time `json:"at"`
	Provider     string    `json:"provider"`
	Number       string    `json:"number"`
	Kind         string    `json:"kind"`
	Try          int       `json:"try"`
	Forged       bool      `json:"forged,omitempty"`
	Status       int       `json:"status,omitempty"`
	Reply        string    `json:"reply,omitempty"`
	Error        string    `json:"error,omitempty"`
	Acknowledged bool      `json:"acknowledged"`
}

// Counts says what has become of all notices since the start. ForgedTaken must stay 0.
type Counts struct {
	Acknowledged int `json:"acknowledged"`
	GivenUp      int `json:"given_up"`
	Dropped      int `json:"dropped"`
	Forged       int `json:"forged"`
	ForgedTaken  int `json:"forged_taken"`
	Pending      int `json:"pending"`
}

// sender posts notices until they are acknowledged.
type sender struct {
	server *Server
	client *http.Client
	pauses []time.Duration
	slots  chan struct{}
	work   sync.WaitGroup

	mu         sync.Mutex
	ctx        context.Context // of this run of the server; nil before the first
	pending    map[*notice]bool
	last       map[string]*notice // the last one of each attempt that has one pending
	held       map[string]*notice // by provider: who waits to be overtaken
	counts     Counts
	deliveries []Delivery
}

func newSender(s *Server, o Options) *sender {
	pauses := o.Pauses
	if pauses == nil {
		pauses = defaultPauses
	}
	return &sender{
		server: s, pauses: pauses, slots: make(chan struct{}, maxPosts),
		client: &http.Client{
			Timeout: cmp.Or(o.NoticeTimeout, defaultNoticeTimeout),
			// Providers follow none: a redirect is no acknowledgement.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport: &http.Transport{
				DialContext:       (&net.Dialer{Control: loopbackOnly}).DialContext,
				DisableKeepAlives: true,
			},
		},
		pending: map[*notice]bool{}, last: map[string]*notice{}, held: map[string]*notice{},
	}
}

var errNotLoopback = errors.New("it is not on loopback")

// loopbackOnly refuses connections to other machines, whatever a name means by now.
func loopbackOnly(_, address string, _ syscall.RawConn) error {
	if to, err := netip.ParseAddrPort(address); err != nil || !to.Addr().Unmap().IsLoopback() {
		return errNotLoopback
	}
	return nil
}

// checkNoticeURL reports what is wrong with an address for notices.
func checkNoticeURL(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("%.200q is no address", address)
	}
	if ip, err := netip.ParseAddr(u.Hostname()); u.Hostname() != "localhost" && (err != nil || !ip.IsLoopback()) {
		return fmt.Errorf("%.200q: %w", address, errNotLoopback)
	}
	return nil
}

// start sends on what is pending.
func (c *sender) start(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ctx = ctx
	for n := range c.pending {
		c.goRun(n)
	}
}

// wait returns when nothing is posted any more, after the context of start has ended.
func (c *sender) wait() { c.work.Wait() }

// send posts notices, with the faults that apply to each, and returns at once.
func (c *sender) send(notices []*notice) {
	for _, n := range notices {
		c.add(n, true)
	}
}

// sendNow is send, but returns when each notice was tried once.
func (c *sender) sendNow(ctx context.Context, notices []*notice) {
	for _, n := range notices {
		c.add(n, false)
		select {
		case <-n.tried:
		case <-ctx.Done():
		}
	}
}

// add takes one notice up. One that is not to be posted now may be late.
func (c *sender) add(n *notice, mayWait bool) {
	n.tried = make(chan struct{})
	roll := func(kind string) (time.Duration, bool) { return c.server.faults.roll(kind, n.provider, "") }
	if n.url == "" {
		close(n.tried)
		return
	}
	if _, forged := roll(NoticeForged); forged {
		c.launch(&notice{provider: n.provider, number: n.number, kind: n.kind, url: n.url, sign: n.sign, forged: true})
	}
	if _, twin := roll(NoticeTwin); twin && n.twin != nil {
		c.launch(n.twin())
	}
	if !mayWait {
		c.launch(n)
		return
	}
	if _, never := roll(NoticeNever); never {
		close(n.tried)
		return
	}
	if delay, late := roll(NoticeLate); late {
		n.due = time.Now().Add(delay)
	}
	if delay, behind := roll(NoticeOutOfOrder); behind {
		n.pass, n.due = make(chan struct{}), time.Now().Add(delay)
	}
	if _, twice := roll(NoticeTwice); twice {
		c.launch(&notice{provider: n.provider, number: n.number, kind: n.kind, url: n.url, sign: n.sign, due: n.due})
	}
	c.launch(n)
}

// launch has a notice posted, after those of the same attempt that are before it and not late.
func (c *sender) launch(n *notice) {
	if n.tried == nil {
		n.tried = make(chan struct{})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.pending) >= maxPending {
		c.counts.Dropped++
		close(n.tried)
		return
	}
	attempt := key(n.provider, n.number)
	if before := c.last[attempt]; before != nil {
		n.after = before.tried
	}
	switch {
	case n.pass != nil && c.held[n.provider] == nil:
		c.held[n.provider] = n
	case n.pass != nil: // it overtakes the one that waits
		n.pass, n.due = nil, time.Time{}
	}
	if n.due.IsZero() && !n.forged {
		c.last[attempt] = n
	}
	c.pending[n] = true
	c.goRun(n)
}

// goRun needs mu.
func (c *sender) goRun(n *notice) {
	if ctx := c.ctx; ctx != nil && ctx.Err() == nil {
		c.work.Go(func() { c.run(ctx, n) })
	}
}

// run posts a notice until it is acknowledged, or was posted often enough. If ctx ends it stays pending.
func (c *sender) run(ctx context.Context, n *notice) {
	if n.after != nil {
		select {
		case <-n.after:
		case <-ctx.Done():
			return
		}
	}
	for {
		if !c.untilDue(ctx, n) {
			return
		}
		if c.server.faults.down(n.provider) {
			n.due, n.pass = time.Now().Add(downPause), nil
			continue
		}
		taken := c.post(ctx, n)
		if ctx.Err() != nil && !taken {
			return
		}
		n.tries++
		if n.tries == 1 {
			close(n.tried)
			c.overtake(n)
		}
		if taken || n.forged || n.tries > len(c.pauses) {
			c.end(n, taken)
			return
		}
		n.due, n.pass = time.Now().Add(c.pauses[n.tries-1]), nil
	}
}

// untilDue waits until a notice is due or overtaken, and reports false if ctx ends before.
func (c *sender) untilDue(ctx context.Context, n *notice) bool {
	timer := time.NewTimer(time.Until(n.due))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-n.pass:
	case <-ctx.Done():
	}
	return ctx.Err() == nil
}

// overtake lets the notice go that waits for n to be posted before it.
func (c *sender) overtake(n *notice) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch waits := c.held[n.provider]; {
	case waits == n:
		delete(c.held, n.provider)
	case waits != nil && !n.forged:
		delete(c.held, n.provider)
		close(waits.pass)
	}
}

// end notes what has become of a notice.
func (c *sender) end(n *notice, taken bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pending, n)
	if attempt := key(n.provider, n.number); c.last[attempt] == n {
		delete(c.last, attempt)
	}
	switch {
	case n.forged:
		c.counts.Forged++
		if taken {
			c.counts.ForgedTaken++
		}
	case taken:
		c.counts.Acknowledged++
	default:
		c.counts.GivenUp++
	}
}

// post posts a notice once, and reports whether it was acknowledged.
func (c *sender) post(ctx context.Context, n *notice) bool {
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	defer func() { <-c.slots }()

	header, body := n.sign(n.forged)
	d := Delivery{
		At: time.Now(), Provider: n.provider, Number: n.number, Kind: n.kind, Try: n.tries + 1, Forged: n.forged,
	}
	status, reply, err := c.exchange(ctx, n.url, header, body)
	d.Status, d.Reply = status, reply[:min(len(reply), maxReplyKept)]
	if err != nil {
		d.Error = err.Error()
	}
	d.Acknowledged = err == nil && c.server.protocols[n.provider].acknowledged(status, reply)

	c.mu.Lock()
	defer c.mu.Unlock()
	c.deliveries = append(c.deliveries, d)
	c.deliveries = c.deliveries[max(0, len(c.deliveries)-maxDeliveries):]
	return d.Acknowledged
}

func (c *sender) exchange(ctx context.Context, address string, header http.Header, body string) (int, string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader([]byte(body)))
	if err != nil {
		return 0, "", err
	}
	request.Header = header
	response, err := c.client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	reply, err := io.ReadAll(io.LimitReader(response.Body, maxReply))
	return response.StatusCode, string(reply), err
}

// Deliveries returns the last tries of notices, and Counts what has become of all.
func (s *Server) Deliveries() []Delivery {
	s.notices.mu.Lock()
	defer s.notices.mu.Unlock()
	return append([]Delivery{}, s.notices.deliveries...)
}

// Counts returns what has become of all notices.
func (s *Server) Counts() Counts {
	s.notices.mu.Lock()
	defer s.notices.mu.Unlock()
	counts := s.notices.counts
	counts.Pending = len(s.notices.pending)
	return counts
}

// formHeader is the header of a form.
func formHeader() http.Header {
	return http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
}
