// Package sqs is a server in this process that speaks the protocol of Amazon SQS: the queue of the local stack, and of
// tests, which can make it misbehave. It has standard queues only and keeps them in memory.
//
// It does not check signatures: whoever can reach it may do everything, which is why it listens on loopback only.
// Permissions, tags and encryption do not exist. Where SQS leaves something to chance, it does what is harder on its
// clients: see Faults for what a real queue may do on a bad day.
package sqs

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"

	"stampede/internal/framing"
)

const (
	contentType     = "application/x-amz-json-1.0"
	requestIDHeader = "x-amzn-RequestId"
	accountID       = "000000000000"

	// A message of 1 MiB is six times as long if its sender escapes every character of it as \u00XX, which JSON
	// allows and some encoders do to some characters. The rest is for names and attributes.
	maxRequestBytes = 6*maxMessageBytes + 64<<10

	// readBufferBytes takes the headers of a signed request, which are about 1 KiB, and a usual batch in one read.
	readBufferBytes = 16 << 10

	maxConnections = 4096            // Bounds goroutines; a few hundred is what a busy local stack opens.
	maxQueues      = 10_000          // Bounds the cost of creating one, since that copies the table of queues.
	closeTimeout   = 5 * time.Second // For clients that do not read their answers.
)

// Options says how to start a Server. The zero value is ready to use.
type Options struct {
	Addr   string  // Loopback address to listen on; empty means 127.0.0.1 and any free port.
	Region string  // Part of queue ARNs; empty means us-east-1.
	Faults *Faults // Faults from the start; nil means none.
}

// Server is a running SQS-compatible server. All its methods may be called at any time and from any goroutine.
type Server struct {
	region   string
	url      string
	listener net.Listener
	http     *fasthttp.Server
	queues   atomic.Pointer[map[string]*queue] // By name. Copied on change, so that lookups need no lock.
	faults   atomic.Pointer[injector]
	actions  map[string]*action

	sentRaw, sent atomic.Int64 // Bytes of the bodies of messages: see SentBytes.

	mu     sync.Mutex // Guards changes of queues, and what follows.
	conns  map[net.Conn]struct{}
	closed bool
	tasks  int // Move tasks started so far; names them.

	done chan struct{}  // Closed when the server closes.
	work sync.WaitGroup // The goroutines of the listener, of connections, and of move tasks.
}

// Start begins to listen and serve. The caller must Close the server.
func Start(opts Options) (*Server, error) {
	addr, err := netip.ParseAddrPort(cmp.Or(opts.Addr, "127.0.0.1:0"))
	if err != nil {
		return nil, fmt.Errorf("sqs: address %q must be an IP address and a port: %w", opts.Addr, err)
	}
	if !addr.Addr().IsLoopback() {
		return nil, fmt.Errorf("sqs: address %q is not on loopback, and this server does not check who calls it",
			opts.Addr)
	}
	listener, err := net.Listen("tcp", addr.String())
	if err != nil {
		return nil, fmt.Errorf("sqs: %w", err)
	}
	s := &Server{
		region:   cmp.Or(opts.Region, "us-east-1"),
		url:      "http://" + listener.Addr().String(),
		listener: listener,
		actions:  newActions(),
		conns:    map[net.Conn]struct{}{},
		done:     make(chan struct{}),
	}
	s.queues.Store(&map[string]*queue{})
	if opts.Faults != nil {
		s.SetFaults(*opts.Faults)
	}
	s.http = &fasthttp.Server{
		Handler:                      s.serve,
		ErrorHandler:                 refuseUnread,
		Logger:                       silent{},
		Concurrency:                  maxConnections,
		MaxRequestBodySize:           maxRequestBytes,
		ReadBufferSize:               readBufferBytes,
		NoDefaultServerHeader:        true,
		NoDefaultDate:                true, // Its clock would be a goroutine that outlives the server.
		DisablePreParseMultipartForm: true,
	}
	s.work.Go(s.accept)
	return s, nil
}

// URL returns the value for AWS_ENDPOINT_URL_SQS, without a slash at its end.
func (s *Server) URL() string { return s.url }

// Requests returns how many requests of each action have been answered since the start, refused ones and those whose
// answer was lost included, as SQS would bill them. A batch is one request, and so is a receive that finds nothing.
func (s *Server) Requests() map[string]int64 {
	counted := map[string]int64{}
	for name, a := range s.actions {
		if n := a.answered.Load(); n > 0 {
			counted[name] = n
		}
	}
	return counted
}

// SentBytes returns how many bytes the bodies of the messages had that were sent since the start: as they stood in the
// requests, as strings of JSON without their quotes, and as the receivers see them, which is what SQS bills.
func (s *Server) SentBytes() (inRequests, billed int64) { return s.sentRaw.Load(), s.sent.Load() }

// MostReceived returns how often the message of a queue was received that was received most often, deleted ones
// included: 1 says that no message has come back. It returns 0 for a queue that does not exist.
func (s *Server) MostReceived(name string) int {
	q := (*s.queues.Load())[name]
	if q == nil {
		return 0
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return int(q.most)
}

// Messages returns how many messages a queue holds, waiting, delayed or in flight; 0 for a queue that does not exist.
func (s *Server) Messages(name string) int {
	q := (*s.queues.Load())[name]
	if q == nil {
		return 0
	}
	n := q.counts(clock())
	return n.ready + n.inFlight + n.delayed
}

// Close ends waiting receives with an empty answer, closes all connections when the requests on them are answered,
// and returns when nothing of the server is left. All queues are gone. Closing again does nothing and returns nil.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		s.work.Wait()
		return nil
	}
	s.closed = true
	close(s.done)
	err := s.listener.Close()
	for conn := range s.conns {
		// A connection that reads the end of its input is done after the answer it is about to write.
		_ = conn.(*net.TCPConn).CloseRead()
	}
	s.mu.Unlock()

	slow := time.AfterFunc(closeTimeout, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for conn := range s.conns {
			_ = conn.Close()
		}
	})
	s.work.Wait()
	slow.Stop()
	for _, q := range *s.queues.Load() {
		q.close()
	}
	return err
}

// accept serves each connection in a goroutine of its own. fasthttp's own loop would leave a goroutine behind for
// ten seconds after the end.
func (s *Server) accept() {
	for {
		conn, err := s.listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			select {
			case <-time.After(10 * time.Millisecond): // Out of file descriptors, most likely.
			case <-s.done:
			}
			continue
		}
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			_ = conn.Close()
			return
		}
		s.conns[conn] = struct{}{}
		s.work.Go(func() {
			// The error says that the client went away or sent no HTTP, and it has had its answer to that.
			_ = s.http.ServeConn(conn)
			s.mu.Lock()
			delete(s.conns, conn)
			s.mu.Unlock()
		})
		s.mu.Unlock()
	}
}

// silent drops what fasthttp would log: broken connections, which are what the faults make.
type silent struct{}

func (silent) Printf(string, ...any) {}

func refuseUnread(ctx *fasthttp.RequestCtx, err error) {
	if errors.Is(err, fasthttp.ErrBodyTooLarge) {
		writeError(ctx, errTooLarge)
	} else {
		writeError(ctx, errUnreadable)
	}
}

func (s *Server) serve(ctx *fasthttp.RequestCtx) {
	id := newID()
	ctx.Response.Header.SetBytesV(requestIDHeader, appendID(make([]byte, 0, 36), &id))
	if framing.Ambiguous(ctx.Request.Header.RawHeaders()) {
		writeError(ctx, errUnreadable)
		ctx.SetConnectionClose()
		return
	}
	target := ctx.Request.Header.Peek("X-Amz-Target")
	if len(target) == 0 && speaksQuery(ctx) {
		writeQueryError(ctx, errQueryProtocol)
		return
	}
	if !ctx.IsPost() {
		writeError(ctx, errMethod)
		return
	}
	const service = "AmazonSQS."
	if len(target) <= len(service) || string(target[:len(service)]) != service {
		writeError(ctx, errUnknownAction)
		return
	}
	action := s.actions[string(target[len(service):])]
	if action == nil {
		writeError(ctx, errUnknownAction)
		return
	}
	c := calls.Get().(*call)
	defer c.release()
	c.action, c.conn = action, ctx.Conn()
	err := s.answer(ctx, c)
	if err == errDropped {
		_ = ctx.Conn().Close()
		return
	}
	if err != nil {
		writeError(ctx, err)
		return
	}
	if len(c.out) == 0 {
		c.out = append(c.out, "{}"...)
	}
	ctx.SetContentType(contentType)
	ctx.SetBody(c.out)
}

// speaksQuery reports whether a request is one of the protocol that came before JSON: an action with its parameters as
// a form, or in the address.
func speaksQuery(ctx *fasthttp.RequestCtx) bool {
	return ctx.QueryArgs().Has("Action") || ctx.PostArgs().Has("Action")
}

// answer does what a request asks and leaves the answer in c.out, with the faults that apply around it.
func (s *Server) answer(ctx *fasthttp.RequestCtx, c *call) *apiError {
	wellFormed := c.decode(ctx.PostBody())
	c.injector = s.faultsFor(c)
	if c.injector != nil && c.injector.Unavailable {
		return errDropped
	}
	var err *apiError
	switch {
	case countDown(&c.action.refuseNext):
		err = errOverLimit
	case c.injector.roll(refuse):
		err = c.injector.refusal()
	case !wellFormed:
		err = errMalformed
	default:
		err = c.action.run(s, c)
	}
	if err == errDropped {
		return err
	}
	c.action.answered.Add(1)
	if c.injector != nil && c.injector.Delay > 0 {
		select {
		case <-time.After(c.injector.Delay):
		case <-s.done:
		}
	}
	if countDown(&c.action.loseNext) || c.injector.roll(lose) {
		return errDropped
	}
	return err
}

// gone reports whether the other end of a connection has been closed, by looking for the end of input without reading.
// A receive that has waited asks before it takes messages, which would otherwise stay in flight with nobody.
func gone(conn net.Conn) bool {
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return true
	}
	ended := false
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		ended = n == 0 && err == nil || err != nil && err != syscall.EAGAIN && err != syscall.EINTR
	})
	return ended || err != nil
}
