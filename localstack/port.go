package localstack

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// Ports are taken from below the range that Linux (from 32768) and macOS (from 49152) use for outgoing connections.
// Otherwise, while a server is down and its clients keep dialling, one of their own connections could be given the
// server's port, and the server could not come back on it.
const (
	firstPort = 20000
	lastPort  = 31999
)

var (
	portsMu    sync.Mutex
	portsGiven = map[int]bool{}
)

// FreePort returns a TCP port of 127.0.0.1 on which nobody listens. It never returns the same one twice in a process.
// Another process may take it before it is used, so a server that is given it must be able to try another.
func FreePort() (int, error) {
	portsMu.Lock()
	defer portsMu.Unlock()
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		if portsGiven[port] {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			return 0, err
		}
		portsGiven[port] = true
		return port, nil
	}
	return 0, errors.New("found no free TCP port on 127.0.0.1")
}
