package main

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxDrainedBytes bounds what is read and thrown away of a request that was answered before its end,
	// so that the client gets to see why; maxDrainTime bounds the time.
	maxDrainedBytes = 4 << 20
	maxDrainTime    = 2 * time.Second
	// deadlineSlack is by how much a deadline of a connection may be early, so that not each request sets it anew.
	deadlineSlack = time.Second
)

// listener hands out clients' connections. When it is closed it closes those on which nothing was ever
// sent, as browsers and load balancers keep them ready: fasthttp would wait until their first request is
// overdue.
type listener struct {
	net.Listener

	mu     sync.Mutex
	silent map[*conn]struct{}
	closed bool
}

func newListener(ln net.Listener) *listener {
	return &listener{Listener: ln, silent: make(map[*conn]struct{})}
}

func (l *listener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: accepted, listener: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = accepted.Close()
		return nil, net.ErrClosed
	}
	l.silent[c] = struct{}{}
	return c, nil
}

func (l *listener) Close() error {
	err := l.Listener.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for c := range l.silent {
		_ = c.Conn.Close()
	}
	return err
}

func (l *listener) forget(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.silent, c)
}

// conn is a client's connection.
type conn struct {
	net.Conn
	listener *listener
	heard    bool // used by Read only
	// readBy is the deadline that was asked for, readSet and writeSet those that were set. One goroutine reads and
	// writes.
	readBy, readSet, writeSet time.Time
	// unread is set if the last request was answered though not all of it was read.
	unread atomic.Bool
}

// SetReadDeadline is for the next Read. fasthttp sets one for a request to arrive in, which mostly is all there by
// then.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.readBy = t
	return nil
}

// SetWriteDeadline leaves a deadline that is early by less than deadlineSlack.
func (c *conn) SetWriteDeadline(t time.Time) error {
	if good(c.writeSet, t) {
		return nil
	}
	c.writeSet = t
	return c.Conn.SetWriteDeadline(t)
}

// good reports whether a deadline that is set does for one that is asked for.
func good(set, asked time.Time) bool {
	early := asked.Sub(set)
	return early >= 0 && early < deadlineSlack
}

func (c *conn) Read(b []byte) (int, error) {
	if !good(c.readSet, c.readBy) {
		c.readSet = c.readBy
		if err := c.Conn.SetReadDeadline(c.readBy); err != nil {
			return 0, err
		}
	}
	n, err := c.Conn.Read(b)
	if !c.heard {
		c.heard = true
		c.listener.forget(c)
	}
	return n, err
}

// Close closes the connection. If there may be input that nobody has read, it first says that the
// answer is complete and throws away what still comes: a connection that is closed with unread input
// is reset, and the client may lose the answer with it (RFC 9112, section 9.6).
func (c *conn) Close() error {
	c.listener.forget(c)
	if half, ok := c.Conn.(*net.TCPConn); ok && c.unread.Swap(false) && half.CloseWrite() == nil {
		_ = half.SetReadDeadline(time.Now().Add(maxDrainTime))
		_, _ = io.CopyN(io.Discard, half, maxDrainedBytes)
	}
	return c.Conn.Close()
}
