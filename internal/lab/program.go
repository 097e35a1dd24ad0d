package lab

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"time"

	"stampede/localstack"
)

const (
	// StartWait bounds the start of one program until it is ready. On a busy machine it may take several attempts of
	// ten seconds each.
	StartWait = time.Minute
	// StopWait is a little more than the 25 s that a graceful stop may take.
	StopWait = 28 * time.Second
	// pollStart is how often a program that was started is asked whether it is ready.
	pollStart = 20 * time.Millisecond
)

// role is a program of Stampede that keeps running.
type role struct {
	name         string
	addrVariable string // takes its public address; empty if it has none
}

// roles are all of them, in the order in which a fleet starts and stops them.
var roles = []role{
	{name: "edge", addrVariable: "EDGE_ADDR"},
	{name: "shop", addrVariable: "SHOP_ADDR"},
	{name: "worker"},
}

// Build runs "go build" with these arguments in the folder of the repository: root or, if that is empty, the one where
// this process runs. Without the race detector the programs are built without cgo, as in the images.
func Build(ctx context.Context, root string, arguments ...string) error {
	build := exec.CommandContext(ctx, "go", append([]string{"build"}, arguments...)...)
	build.Dir = root
	if !slices.Contains(arguments, "-race") {
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
	}
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the programs (it takes the folder of the repository): %w\n%s", err, out)
	}
	return nil
}

// Program is one edge, shop or worker, with addresses of its own that stay the same when it is started again.
type Program struct {
	Name    string // such as edge-1
	Path    string
	Dir     string // where it runs; empty for the folder of this process
	LogFile string
	Env     []string // beside the addresses

	Addr  string // the public address, if it has one
	Admin string // the admin address
}

// NewProgram gives a program of a role, such as edge, free addresses on this machine, and the variables that name them.
func NewProgram(roleName string, p Program) (*Program, error) {
	var err error
	if p.Admin, err = FreeAddr(); err != nil {
		return nil, err
	}
	p.Env = append(p.Env[:len(p.Env):len(p.Env)], "ADMIN_ADDR="+p.Admin)

	for _, r := range roles {
		if r.name != roleName || r.addrVariable == "" {
			continue
		}
		if p.Addr, err = FreeAddr(); err != nil {
			return nil, err
		}
		p.Env = append(p.Env, r.addrVariable+"="+p.Addr)
	}
	return &p, nil
}

// FreeAddr is an address of this machine where nobody listens.
func FreeAddr() (string, error) {
	port, err := localstack.FreePort()
	return fmt.Sprintf("127.0.0.1:%d", port), err
}

// Start starts the program, with more variables than its own, and does not wait until it is ready.
func (p *Program) Start(more ...string) (*localstack.Process, error) {
	return localstack.StartProcess(localstack.ProcessOptions{
		Name: p.Name, Path: p.Path, Dir: p.Dir, LogFile: p.LogFile,
		Env: append(p.Env[:len(p.Env):len(p.Env)], more...),
	})
}

// Ready asks the program once whether it is ready, and returns nil if it is.
func (p *Program) Ready(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Admin+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// Await asks the program until it is ready, at most for StartWait. If ended is closed first, which is nil if nobody
// knows when the program ends, it is not waited for any longer.
func (p *Program) Await(ctx context.Context, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, StartWait)
	defer cancel()
	for {
		err := p.Ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready after %s: %w", p.Name, StartWait, err)
		case <-ended:
			return fmt.Errorf("%s ended at its start", p.Name)
		case <-time.After(pollStart):
		}
	}
}

// Process is a program that was started.
type Process struct {
	*Program
	*localstack.Process
}

// Launch starts a program and waits until it is ready. If the process is not nil it runs, and the caller stops it, also
// after an error.
func (p *Program) Launch(ctx context.Context, more ...string) (*Process, error) {
	process, err := p.Start(more...)
	if err != nil {
		return nil, err
	}
	if err := p.Await(ctx, process.Done()); err != nil {
		return &Process{p, process}, fmt.Errorf("%w; the end of its log:\n%s", err, process.LogTail())
	}
	return &Process{p, process}, nil
}
