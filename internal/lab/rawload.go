package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// rawBufferBytes takes the head of any answer; a body may be longer.
	rawBufferBytes = 4 << 10
	// rawPatience is how long a connection waits for answers after a run should have ended.
	rawPatience = 30 * time.Second
	// maxDialsAtOnce keeps below the backlog of a listening socket.
	maxDialsAtOnce = 64
	// lastStatus is the highest status code of HTTP.
	lastStatus = 599
)

// rawLoad sends requests that were made in advance over connections of its own, and reads no more of an answer than
// its status and its length: on the machine that also runs what is measured, the generator must cost little.
type rawLoad struct {
	addr     string
	conns    int
	requests [][]byte // taken in turn, each connection beginning at another
}

// statuses counts answers by their status.
type statuses [lastStatus + 1]int64

func (s *statuses) all() (n int64) {
	for _, count := range s {
		n += count
	}
	return n
}

func (s *statuses) add(other *statuses) {
	for i, n := range other {
		s[i] += n
	}
}

// only returns an error that names the answers of other statuses than this one, and nil if there is none.
func (s *statuses) only(status int) error {
	var errs []error
	for i, n := range s {
		if n > 0 && i != status {
			errs = append(errs, fmt.Errorf("%d answers of status %d", n, i))
		}
	}
	return errors.Join(errs...)
}

// rawConn is one keep-alive connection with one request under way at a time.
type rawConn struct {
	net.Conn
	buf [rawBufferBytes]byte
}

// exchange sends a request and reads its answer to the end.
func (c *rawConn) exchange(request []byte) (status int, err error) {
	if _, err := c.Write(request); err != nil {
		return 0, err
	}

	n, head := 0, -1
	for head < 0 {
		if n == len(c.buf) {
			return 0, fmt.Errorf("the head of an answer is longer than %d bytes", n)
		}
		read, err := c.Read(c.buf[n:])
		if err != nil {
			return 0, err
		}
		n += read
		head = bytes.Index(c.buf[:n], []byte("\r\n\r\n"))
	}

	status, length, err := parseHead(c.buf[:head+2])
	if err != nil {
		return 0, err
	}

	rest := head + 4 + length - n
	if rest < 0 {
		return 0, errors.New("an answer is longer than its Content-Length")
	}
	for rest > 0 {
		read, err := c.Read(c.buf[:min(rest, len(c.buf))])
		if err != nil {
			return 0, err
		}
		rest -= read
	}
	return status, nil
}

// parseHead reads status and Content-Length of the head of an answer, whose lines all end in CRLF.
func parseHead(head []byte) (status, length int, err error) {
	const version, field = "HTTP/1.1 ", "\r\nContent-Length: "
	if len(head) < len(version)+3 || string(head[:len(version)]) != version {
		return 0, 0, fmt.Errorf("this is no answer of HTTP/1.1: %.40q", head)
	}
	status, err = strconv.Atoi(string(head[len(version) : len(version)+3]))
	if err != nil || status < 100 || status > lastStatus {
		return 0, 0, fmt.Errorf("this is no status of HTTP: %.40q", head)
	}
	_, after, found := bytes.Cut(head, []byte(field))
	digits, _, _ := bytes.Cut(after, []byte("\r\n"))
	length, err = strconv.Atoi(string(digits))
	if !found || err != nil || length < 0 {
		return 0, 0, errors.New("an answer has no Content-Length")
	}
	return status, length, nil
}

// dial opens the connections, to last for a time. The caller closes them, also after an error.
func (l *rawLoad) dial(ctx context.Context, lasting time.Duration) ([]*rawConn, error) {
	conns := make([]*rawConn, l.conns)
	errs := make([]error, l.conns)
	var dials sync.WaitGroup
	room := make(chan struct{}, maxDialsAtOnce)
	for i := range conns {
		room <- struct{}{}
		dials.Go(func() {
			defer func() { <-room }()
			raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", l.addr)
			if err == nil {
				conns[i] = &rawConn{Conn: raw}
				err = raw.SetDeadline(time.Now().Add(lasting + rawPatience))
			}
			errs[i] = err
		})
	}
	dials.Wait()
	return slices.DeleteFunc(conns, func(c *rawConn) bool { return c == nil }), errors.Join(errs...)
}

func closeAll(conns []*rawConn) {
	for _, c := range conns {
		_ = c.Close()
	}
}

// each lets every connection make one exchange after the other for as long as more returns true, and tells took of
// each answer. It returns the first error, after which nothing more is sent.
func (l *rawLoad) each(ctx context.Context, conns []*rawConn, more func() bool, took func(conn, status int)) error {
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	for i, c := range conns {
		all.Go(func() {
			for n := i; ctx.Err() == nil && failed.Load() == nil && more(); n += len(conns) {
				status, err := c.exchange(l.requests[n%len(l.requests)])
				if err != nil {
					failed.CompareAndSwap(nil, &err)
					return
				}
				took(i, status)
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		return fmt.Errorf("load on %s: %w", l.addr, *err)
	}
	return ctx.Err()
}

// count sends n requests, as fast as the connections get answers, and counts these.
func (l *rawLoad) count(ctx context.Context, n int64) (statuses, error) {
	conns, err := l.dial(ctx, rawPatience)
	defer closeAll(conns)
	if err != nil {
		return statuses{}, err
	}
	var sent atomic.Int64
	counts := make([]statuses, len(conns))
	err = l.each(ctx, conns, func() bool { return sent.Add(1) <= n }, func(conn, status int) { counts[conn][status]++ })
	return sum(counts), err
}

// rawResult is what a run in the closed model saw. Warming up is part of all, but not of the rate.
type rawResult struct {
	all       statuses
	perSecond float64
}

// closed runs a closed model: each connection sends its next request when it has the answer to the one before. It
// measures after a time to warm up, and calls mark at the begin and at the end of that.
func (l *rawLoad) closed(ctx context.Context, warm, measured time.Duration, mark func()) (rawResult, error) {
	conns, err := l.dial(ctx, warm+measured)
	defer closeAll(conns)
	if err != nil {
		return rawResult{}, err
	}

	var measuring, ended atomic.Bool
	answered := make(chan struct{})
	first := sync.OnceFunc(func() { close(answered) })
	counted, others := make([]statuses, len(conns)), make([]statuses, len(conns))

	ctx, cancel := context.WithCancel(ctx)
	finished := make(chan error, 1)
	go func() {
		defer cancel() // if a connection breaks there is nothing to wait for
		finished <- l.each(ctx, conns, func() bool { return !ended.Load() }, func(conn, status int) {
			if measuring.Load() {
				counted[conn][status]++
			} else {
				others[conn][status]++
				first()
			}
		})
	}()

	wait(ctx, warm)
	select {
	case <-answered: // what needs longer than that for its first answer is not warm
	case <-ctx.Done():
	}

	mark()
	begin := time.Now()
	measuring.Store(true)
	wait(ctx, measured)
	measuring.Store(false)
	took := time.Since(begin)
	mark()
	ended.Store(true)

	err = <-finished
	r := rawResult{all: sum(counted)}
	r.perSecond = float64(r.all.all()) / took.Seconds()
	rest := sum(others)
	r.all.add(&rest)
	return r, err
}

// open runs an open model: requests come at a rate, whether or not the ones before were answered, and one that finds
// no connection free waits for it. Latencies count from the appointed time, so that a stall counts for everybody who
// came meanwhile. What comes in the time to warm up is sent and not measured. Latencies are sorted.
func (l *rawLoad) open(ctx context.Context, rate float64, warm, measured time.Duration, mark func()) (
	statuses, []time.Duration, error,
) {
	conns, err := l.dial(ctx, warm+measured)
	defer closeAll(conns)
	if err != nil {
		return statuses{}, nil, err
	}
	first := int(rate * warm.Seconds())
	n := first + int(rate*measured.Seconds())
	latencies := make([]time.Duration, n)
	counts := make([]statuses, len(conns))
	due := func(i int) time.Duration { return time.Duration(float64(i) / rate * float64(time.Second)) }
	turns := make(chan int, n)
	start := time.Now()
	go func() { // one clock for all, since a timer of each connection would cost the more the more there are
		defer close(turns)
		for i := range n {
			if early := due(i) - time.Since(start); early > 0 {
				wait(ctx, early)
			}
			if ctx.Err() != nil {
				return
			}
			if i == first {
				mark()
			}
			turns <- i
		}
	}()
	err = l.visits(ctx, conns, turns, func(conn, turn, status int) {
		counts[conn][status]++
		latencies[turn] = time.Since(start) - due(turn)
	})
	mark()
	latencies = latencies[first:]
	slices.Sort(latencies)
	return sum(counts), latencies, err
}

// visits lets connections take turns. An exchange that fails is taken as one of status 0, and its connection is opened
// anew.
func (l *rawLoad) visits(
	ctx context.Context, conns []*rawConn, turns <-chan int, took func(conn, turn, status int),
) error {
	var all sync.WaitGroup
	for i, c := range conns {
		all.Go(func() {
			for turn := range turns {
				status, err := c.exchange(l.requests[turn%len(l.requests)])
				if err != nil {
					status = 0
					_ = c.Close()
					if raw, err := (&net.Dialer{Timeout: rawPatience}).DialContext(ctx, "tcp", l.addr); err == nil {
						c.Conn = raw
					}
				}
				took(i, turn, status)
			}
		})
	}
	all.Wait()
	return ctx.Err()
}

// alone sends one request after the other on one connection, with a pause before each in which the system falls
// idle, and returns the sorted latencies from sending to answer.
func (l *rawLoad) alone(ctx context.Context, pause, measured time.Duration) (statuses, []time.Duration, error) {
	one := rawLoad{addr: l.addr, conns: 1, requests: l.requests}
	conns, err := one.dial(ctx, measured)
	defer closeAll(conns)
	if err != nil {
		return statuses{}, nil, err
	}
	var counts statuses
	var latencies []time.Duration
	begin, sent := time.Now(), time.Time{}
	err = one.each(ctx, conns, func() bool {
		wait(ctx, pause)
		sent = time.Now()
		return len(latencies) == 0 || time.Since(begin) < measured
	}, func(_, status int) {
		latencies = append(latencies, time.Since(sent))
		counts[status]++
	})
	slices.Sort(latencies)
	return counts, latencies, err
}

func sum(counts []statuses) (all statuses) {
	for i := range counts {
		all.add(&counts[i])
	}
	return all
}

// wait waits for d or until ctx ends.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
