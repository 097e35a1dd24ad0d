package lab

import (
	"context"
	"errors"
	"net"
	"time"

	"stampede/internal/front/proxy"
)

// doorStopWait is for how long a front door may finish what is under way.
const doorStopWait = 5 * time.Second

// Door is a front door to edges and shops, in this process.
type Door struct {
	URL    string
	proxy  *proxy.Proxy
	served chan error
}

// OpenDoor opens one on a free address of this machine.
func OpenDoor(edges, shops []string) (*Door, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return openDoor(ln, edges, shops), nil
}

func openDoor(ln net.Listener, edges, shops []string) *Door {
	d := &Door{"http://" + ln.Addr().String(), proxy.New(edges, shops), make(chan error, 1)}
	go func() { d.served <- d.proxy.Serve(ln) }()
	return d
}

// Close lets the requests under way finish, for a while, and takes no more.
func (d *Door) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), doorStopWait)
	defer cancel()
	return errors.Join(d.proxy.Stop(ctx), <-d.served)
}
