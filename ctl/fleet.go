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

// startFleet builds the programs and starts everything in a new directory below dir, with an empty
// database that is migrated. Whatever it returns, close it.
func startFleet(ctx context.Context, dir, name string, tell func(string)) (*fleet, error) {
	f := &fleet{bin: filepath.Join(dir, "bin")}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return f, err
	}
	tell("building edge and worker")
	build := exec.CommandContext(ctx, "go", "build", "-o", f.bin+string(filepath.Separator), "./edge", "./worker")
	if out, err := build.CombinedOutput(); err != nil {
		return f, fmt.Errorf("build edge and worker (run this in the folder of the repository): %w\n%s", err, out)
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
	f.parts, err = openParts(ctx, os.Getenv("MYSQL_DSN"), os.Getenv("REDIS_URL"), os.Getenv("ORDERS_QUEUE"), os.Getenv("ORDERS_DLQ"))
	if err != nil {
		return f, err
	}
	tell("migrating the database")
	_, err = f.parts.store.Migrate(ctx)
	return f, err
}

// run starts edges and workers and waits until they are ready.
func (f *fleet) run(ctx context.Context, edges, workers int) error {
	for i := range edges + workers {
		name := fmt.Sprintf("edge-%d", i+1)
		path, list := filepath.Join(f.bin, "edge"), &f.edges
		if i >= edges {
			name = fmt.Sprintf("worker-%d", i-edges+1)
			path, list = filepath.Join(f.bin, "worker"), &f.workers
		}
		addr, err := freeAddr()
		if err != nil {
			return err
		}
		admin, err := freeAddr()
		if err != nil {
			return err
		}
		p, err := localstack.StartProcess(localstack.ProcessOptions{
			Name: name, Path: path, LogFile: filepath.Join(f.dir, name+".log"),
			Env: append(f.env[:len(f.env):len(f.env)], "EDGE_ADDR="+addr, "ADMIN_ADDR="+admin),
		})
		if err != nil {
			return err
		}
		*list = append(*list, p)
		f.admins = append(f.admins, admin)
		if i < edges {
			f.urls = append(f.urls, "http://"+addr)
		}
		if err := waitReady(ctx, "http://"+admin+"/readyz", p); err != nil {
			return fmt.Errorf("%s: %w\n%s", name, err, p.LogTail())
		}
	}
	return nil
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
	if f.parts.store != nil {
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
