package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
)

// errAway is the error of a request that no server has seen.
var errAway = errors.New("no server can be reached")

// clientError is the error of a request whose body could not be read.
type clientError struct{ error }

func (e clientError) Unwrap() error { return e.error }

// servers are those of one process, of which each request gets the next.
type servers struct {
	addrs []string
	turn  atomic.Uint64
}

// balancer sends a request to one of the servers of the process that its URL names.
type balancer struct {
	next    http.RoundTripper
	servers map[string]*servers
}

// RoundTrip tries the servers in turn until one can be reached. A request of which a server may have seen anything is
// not sent again: it may be an order. It leaves the body open, since ReverseProxy closes it when it has passed the
// answer on.
func (b *balancer) RoundTrip(r *http.Request) (*http.Response, error) {
	to := b.servers[r.URL.Host]
	body := &clientBody{}
	if r.Body != nil && r.Body != http.NoBody {
		body.Reader = r.Body
	}

	first := to.turn.Add(1)
	for i := range to.addrs {
		try := r.Clone(r.Context())
		try.URL.Host = to.addrs[(first+uint64(i))%uint64(len(to.addrs))]
		if body.Reader != nil {
			try.Body = body
		}
		answer, err := b.next.RoundTrip(try)
		if err == nil {
			return answer, nil
		}
		if broken, ok := errors.AsType[*net.OpError](err); ok && broken.Op == "dial" {
			continue
		}
		if read := body.failed.Load(); read != nil {
			return nil, clientError{*read}
		}
		return nil, fmt.Errorf("%s: %w", try.URL.Host, err)
	}
	return nil, errAway
}

// clientBody is the body of a request. It remembers that it could not be read, which the transport reports like any
// other failure, and is not closed by a transport that has reached no server.
type clientBody struct {
	io.Reader
	failed atomic.Pointer[error]
}

func (b *clientBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err != nil && err != io.EOF {
		b.failed.CompareAndSwap(nil, &err)
	}
	return n, err
}

func (*clientBody) Close() error { return nil }
