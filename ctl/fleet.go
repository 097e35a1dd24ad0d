package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"stampede/internal/config"
	"stampede/internal/token"
	"stampede/localstack"
)

const (
	// localDir is where everything that ctl starts keeps its files, unless --dir names another place.
	localDir = ".local"
	// startWait bounds the start of one process.
	startWait = 20 * time.Second
	// stopWait is a little more than a graceful stop may take.
	stopWait = 28 * time.Second
)

// fleet is a stack of servers with edges and workers of its own, each a process.
type fleet struct {
	dir     string // of this fleet's data and logs
	bin     string // of the programs
	stack   *localstack.Stack
	parts   parts
	tokens  *token.Keeper
	env     []string
	edges   []*localstack.Process
	workers []*localstack.Process
	urls    []string // of the edges
	admins  []string // admin addresses of the edges, then of the workers
}

// startFleet builds edge, worker and what other programs are named, and starts the servers in a new directory
// below dir, with an empty database that is migrated. Whatever it returns, close it.
func startFleet(ctx context.Context, dir, name string, tell func(string), programs ...string) (*fleet, error) {
	f := &fleet{bin: filepath.Join(dir, "bin")}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return f, err
	}
	tell("building the programs")
	args := append([]string{"build", "-o", f.bin + string(filepath.Separator), "./edge", "./worker"}, programs...)
	build := exec.CommandContext(ctx, "go", args...)
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as in the images
	if out, err := build.CombinedOutput(); err != nil {
		return f, fmt.Errorf("build the programs (run this in the folder of the repository): %w\n%s", err, out)
	}
	var err error
	if f.dir, err = os.MkdirTemp(dir, name+"-"); err != nil {
		return f, err
	}
	tell("starting Redis, MariaDB and the queue")
	if f.stack, err = localstack.Start(ctx, localstack.Options{Dir: f.dir}); err != nil {
		return f, err
	}
	// The AWS SDK and the parts below read the environment.
	for _, variable := range f.stack.Env() {
		name, value, _ := strings.Cut(variable, "=")
		if err := os.Setenv(name, value); err != nil {
			return f, err
		}
	}
	raw := make([]byte, token.MinSecretBytes)
	rand.Read(raw)
	secret := hex.EncodeToString(raw)
	f.tokens = token.NewKeeper(secret)
	f.env = append(os.Environ(), "JWT_SECRET="+secret, "SHUTDOWN_NOTICE=0s", "LOG_LEVEL=info")
	var servers needsAll
	vars := config.New("ctl")
	servers.declare(vars)
	if err := vars.Parse(); err != nil {
		return f, err
	}
	if f.parts, err = servers.open(ctx); err != nil {
		return f, err
	}
	tell("migrating the database")
	_, err = f.parts.db.Migrate(ctx)
	return f, err
}

// run starts edges and workers and waits until they are ready.
func (f *fleet) run(ctx context.Context, edges, workers int) error {
	for i := range edges + workers {
		program, number, list := "edge", i+1, &f.edges
		if i >= edges {
			program, number, list = "worker", i-edges+1, &f.workers
		}
		p, addr, admin, err := f.launch(ctx, program, fmt.Sprintf("%s-%d", program, number))
		if p != nil {
			*list = append(*list, p)
		}
		if err != nil {
			return err
		}
		f.admins = append(f.admins, admin)
		if i < edges {
			f.urls = append(f.urls, "http://"+addr)
		}
	}
	return nil
}

// board is the address of the board, which shows all processes, on the first edge.
func (f *fleet) board() string { return "http://" + f.admins[0] + "/board" }

// launch starts an edge or a worker under a name of its own and waits until it is ready. If the process is not
// nil it runs, and the caller stops it, also after an error.
func (f *fleet) launch(ctx context.Context, program,
	name string) (p *localstack.Process, addr, admin string, err error) {
	if addr, err = freeAddr(); err != nil {
		return nil, "", "", err
	}
	if admin, err = freeAddr(); err != nil {
		return nil, "", "", err
	}
	p, err = localstack.StartProcess(localstack.ProcessOptions{
		Name: name, Path: filepath.Join(f.bin, program), LogFile: filepath.Join(f.dir, name+".log"),
		Env: append(f.env[:len(f.env):len(f.env)], "EDGE_ADDR="+addr, "ADMIN_ADDR="+admin),
	})
	if err != nil {
		return nil, "", "", err
	}
	if err = waitReady(ctx, "http://"+admin+"/readyz", p); err != nil {
		err = fmt.Errorf("%s: %w\n%s", name, err, p.LogTail())
	}
	return p, addr, admin, err
}

func freeAddr() (string, error) {
	port, err := localstack.FreePort()
	return fmt.Sprintf("127.0.0.1:%d", port), err
}

// waitReady waits until a process that was just started answers that it is ready.
func waitReady(ctx context.Context, url string, p *localstack.Process) error {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not ready after %s: %w", startWait, ctx.Err())
		case <-p.Done():
			return errors.New("ended at its start")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// close stops everything in order: edges, workers, servers. It keeps the directory if keep is true.
func (f *fleet) close(keep bool) error {
	var errs []error
	for _, list := range [][]*localstack.Process{f.edges, f.workers} {
		killed := make([]bool, len(list))
		var stops sync.WaitGroup
		for i, p := range list {
			stops.Go(func() { killed[i] = p.Stop(stopWait) })
		}
		stops.Wait()
		for i, p := range list {
			if killed[i] {
				errs = append(errs, fmt.Errorf("process %d did not stop in time and was killed", p.Pid()))
			}
		}
	}
	if f.parts.db != nil {
		f.parts.close()
	}
	if f.stack != nil {
		errs = append(errs, f.stack.Close())
	}
	if f.dir != "" && !keep {
		errs = append(errs, os.RemoveAll(f.dir))
	}
	return errors.Join(errs...)
}
