package apitest

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// Proxy passes connections on to a server, and can be cut or made to hang.
type Proxy struct {
	target string
	Addr   string
	sniff  bool // the protocol is MySQL's: keep the queries

	mu      sync.Mutex
	ln      net.Listener
	conns   map[net.Conn]struct{}
	hung    chan struct{} // set while nothing is passed on; closed when it is again
	held    int           // connections with something that is not passed on
	queries []string
	work    sync.WaitGroup
}

// NewProxy starts one in front of a server.
func NewProxy(t *testing.T, target string, sniff bool) *Proxy {
	t.Helper()
	p := &Proxy{target: target, Addr: "127.0.0.1:0", sniff: sniff, conns: map[net.Conn]struct{}{}}
	if err := p.listen(); err != nil {
		t.Fatal(err)
	}
	p.Addr = p.ln.Addr().String()
	t.Cleanup(func() {
		p.Cut()
		p.work.Wait()
	})
	return p
}

func (p *Proxy) listen() error {
	ln, err := net.Listen("tcp", p.Addr)
	if err != nil {
		return err
	}
	p.ln = ln
	p.work.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			p.work.Go(func() { p.serve(c) })
		}
	})
	return nil
}

func (p *Proxy) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer server.Close()
	p.mu.Lock()
	if p.ln == nil {
		p.mu.Unlock()
		return
	}
	p.conns[client], p.conns[server] = struct{}{}, struct{}{}
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() {
		defer server.Close()
		if p.sniff {
			p.passQueries(server, client)
		} else {
			p.pass(server, client)
		}
	})
	both.Go(func() {
		defer client.Close()
		p.pass(client, server)
	})
	both.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, client)
	delete(p.conns, server)
}

// pass passes bytes on until either end is closed.
func (p *Proxy) pass(to io.Writer, from io.Reader) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		p.wait()
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// passQueries passes the packets of a MySQL client on: three bytes of length, one of sequence, which is 0
// for a command, whose first byte is 3 for a query.
func (p *Proxy) passQueries(to io.Writer, from io.Reader) {
	reader := bufio.NewReader(from)
	var head [4]byte
	for {
		if _, err := io.ReadFull(reader, head[:]); err != nil {
			return
		}
		length := binary.LittleEndian.Uint32([]byte{head[0], head[1], head[2], 0})
		packet := append(head[:4:4], make([]byte, length)...)
		if _, err := io.ReadFull(reader, packet[4:]); err != nil {
			return
		}
		if head[3] == 0 && length > 0 && packet[4] == 3 {
			p.mu.Lock()
			p.queries = append(p.queries, string(packet[5:]))
			p.mu.Unlock()
		}
		p.wait()
		if _, err := to.Write(packet); err != nil {
			return
		}
	}
}

func (p *Proxy) wait() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if hung := p.hung; hung != nil {
		p.held++
		p.mu.Unlock()
		<-hung
		p.mu.Lock()
		p.held--
	}
}

// Holding is how many messages are held back while the proxy hangs.
func (p *Proxy) Holding() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held
}

// Asked counts the queries that contain a text since the last call of Forget.
func (p *Proxy) Asked(text string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, q := range p.queries {
		if strings.Contains(q, text) {
			n++
		}
	}
	return n
}

// Forget forgets the queries.
func (p *Proxy) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.queries = nil
}

// Hang keeps connections, takes new ones, and passes nothing on.
func (p *Proxy) Hang() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hung == nil {
		p.hung = make(chan struct{})
	}
}

// Cut closes all connections and refuses new ones.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ln != nil {
		_ = p.ln.Close()
		p.ln = nil
	}
	for c := range p.conns {
		_ = c.Close()
	}
	if p.hung != nil {
		close(p.hung)
		p.hung = nil
	}
}

// Heal ends Hang and Cut.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hung != nil {
		close(p.hung)
		p.hung = nil
	}
	for p.ln == nil {
		if err := p.listen(); err != nil {
			time.Sleep(10 * time.Millisecond) // somebody else has the port for a moment
		}
	}
}

// ReadReply reads an answer from a connection, and skips those that say to go on.
func ReadReply(from io.Reader) Reply {
	reader := bufio.NewReader(from)
	for {
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			return Reply{Err: err}
		}
		content, err := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != http.StatusContinue {
			return Reply{Status: response.StatusCode, Header: response.Header, Body: string(bytes.TrimSpace(content)),
				Err: err}
		}
	}
}
