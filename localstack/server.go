package localstack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// startTimeout bounds one start until the server answers. Both servers take well under a second on an idle machine
	// (a Redis Cluster node two); recovery after a kill and a machine full of other tests need the rest.
	startTimeout = 60 * time.Second
	// stopTimeout is what a server gets to end by itself; then it is killed, which costs it no committed data.
	stopTimeout = 10 * time.Second
	// startAttempts bounds how often a start is repeated because somebody else had taken the port.
	startAttempts = 5
	// pollInterval is how often a starting server is asked whether it is ready.
	pollInterval = 10 * time.Millisecond
)

// server is what Redis and MariaDB have in common: one child process at a time, on a port that stays the same once it
// has worked.
type server struct {
	name string
	// options returns what to run on this port.
	options func(port int) (ProcessOptions, error)
	// ready returns nil when the process with this id answers on the port. It must not be content with an answer of
	// somebody else who was quicker to take the port.
	ready func(ctx context.Context, port, pid int) error

	mu      sync.Mutex
	port    int
	process *Process
	closed  bool
}

// Addr returns host and port. They stay the same across Kill and Start.
func (s *server) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return addr(s.port)
}

func addr(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// Pid returns the id of the running process, or of the last one that ran.
func (s *server) Pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return 0
	}
	return s.process.Pid()
}

// Signal sends a signal to the running process: SIGSTOP and SIGCONT make a server that hangs.
func (s *server) Signal(sig os.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return os.ErrProcessDone
	}
	return s.process.Signal(sig)
}

// Kill ends the server with SIGKILL and waits until it is gone. Killing a server that is down is no error.
func (s *server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return nil
	}
	return s.process.Kill()
}

// Start runs the server again after Kill, with the same port and directory, and returns when it answers. It does
// nothing if the server runs.
func (s *server) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("starting %s: it was closed", s.name)
	}
	if s.process != nil {
		select {
		case <-s.process.Done():
		default:
			return nil
		}
	}

	var err error
	for attempt := range startAttempts {
		port := s.port
		if port == 0 {
			if port, err = FreePort(); err != nil {
				return err
			}
		} else if attempt > 0 {
			// Clients know this port, so all that helps is to wait until it is free again.
			time.Sleep(100 * time.Millisecond)
		}
		if err = s.startOnce(ctx, port); err == nil {
			s.port = port
			return nil
		}
		if !errors.Is(err, errPortTaken) {
			return err
		}
	}
	return err
}

var errPortTaken = errors.New("the port is taken")

func (s *server) startOnce(ctx context.Context, port int) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	o, err := s.options(port)
	if err != nil {
		return err
	}
	p, err := StartProcess(o)
	if err != nil {
		return err
	}
	s.process = p

	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		readyErr := listens(ctx, port)
		if readyErr == nil {
			readyErr = s.ready(ctx, port, p.Pid())
		}
		if readyErr == nil {
			return nil
		}
		select {
		case <-p.Done():
			tail := p.LogTail()
			if strings.Contains(strings.ToLower(tail), "address already in use") {
				return fmt.Errorf("starting %s on %s: %w", s.name, addr(port), errPortTaken)
			}
			return fmt.Errorf("starting %s: it ended at once (%v); the end of %s:\n%s", s.name, p.Wait(), o.LogFile,
				tail)
		case <-ctx.Done():
			_ = p.Kill()
			return fmt.Errorf("starting %s: %w; last seen: %v; the end of %s:\n%s",
				s.name, ctx.Err(), readyErr, o.LogFile, p.LogTail())
		case <-ticker.C:
		}
	}
}

// listens returns nil when somebody accepts connections. It spares the clients that ask whether the server is ready the
// refused connections, which they would log.
func listens(ctx context.Context, port int) error {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", addr(port))
	if err != nil {
		return err
	}
	return conn.Close()
}

// Close ends the server and waits until it is gone. Its files stay. Closing again does nothing; a closed server cannot
// be started.
func (s *server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.process == nil {
		return nil
	}
	// A process that was stopped by a signal would not see SIGTERM; one that has ended refuses this, which is as good.
	_ = s.process.Signal(resume)
	s.process.Stop(stopTimeout)
	return nil
}

// findBinary looks for a program on PATH and where package managers put servers that are not on everybody's PATH.
func findBinary(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return filepath.Abs(path)
	}
	for _, dir := range []string{
		"/usr/sbin", "/usr/local/sbin", // Debian puts mariadbd there
		"/opt/homebrew/bin", "/usr/local/bin", "/home/linuxbrew/.linuxbrew/bin", // Homebrew's prefixes
		"/opt/homebrew/opt/mariadb/bin", "/usr/local/opt/mariadb/bin", // not linked if MySQL is installed as well
	} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed: run scripts/install-deps, or use docker compose up", name)
}
