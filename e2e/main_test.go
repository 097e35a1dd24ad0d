// Package e2e tests Stampede from outside: the programs as an operator builds them, each a process of
// its own, on real servers, with faults that kill real processes. Package lab launches and awaits them; nothing of
// Stampede's own packages is used to judge the outcome but "ctl audit" as a program, and the public contract for
// every answer over HTTP.
package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"stampede/internal/lab"
	"stampede/localstack"
)

// bin is the directory of the programs, built with the race detector.
var bin string

func TestMain(m *testing.M) {
	// The tests mostly wait, for what a killed worker held to come back above all.
	flag.Parse()
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "stampede-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		bin = dir
		args := []string{"-race", "-o", dir + string(filepath.Separator), "./edge", "./shop", "./worker", "./ctl"}
		if *screenshot != "" { // of a system at its usual speed
			args = args[1:]
		}
		if err := lab.Build(context.Background(), "..", args...); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// system is a whole Stampede of a test's own.
type system struct {
	t       *testing.T
	dir     string
	bin     string // the directory of the programs that are started
	stack   *localstack.Stack
	env     []string
	started int
	url     string // of the edge that was started last
	front   string // URL of the front door to an edge and a shop, once startShop has opened it
}

// newSystem starts the servers and migrates the database. Whatever a test starts in it is stopped when
// the test ends, and its logs are shown if the test failed.
func newSystem(t *testing.T) *system {
	t.Helper()
	return newSystemOf(t, localstack.Options{})
}

// newSystemOf starts servers as the options say.
func newSystemOf(t *testing.T, o localstack.Options) *system {
	t.Helper()
	return newSystemFrom(t, o, bin)
}

// newSystemFrom starts servers and migrates the database with the programs of a directory.
func newSystemFrom(t *testing.T, o localstack.Options, bin string) *system {
	t.Helper()
	s := &system{t: t, dir: t.TempDir(), bin: bin}
	o.Dir = filepath.Join(s.dir, "stack")
	var err error
	if s.stack, err = localstack.Start(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.stack.Close(); err != nil {
			t.Error(err)
		}
	})
	secret := make([]byte, 32)
	rand.Read(secret)
	// The programs get these variables and no others, so that nothing else can lead them anywhere.
	// A program with the race detector otherwise sleeps for a second when it ends.
	s.env = append(s.stack.Env(), "JWT_SECRET="+hex.EncodeToString(secret), "SHUTDOWN_NOTICE=0s",
		"GORACE=halt_on_error=1 atexit_sleep_ms=50")
	s.mustCtl("migrate")
	return s
}

// with gives the programs more variables.
func (s *system) with(env ...string) *system {
	s.env = append(s.env, env...)
	return s
}

// program is an edge, a shop or a worker of a system.
type program struct {
	*localstack.Process
	addr  string // the public address, if it has one
	admin string // URL of the admin address
}

func (s *system) startEdge() *program {
	s.t.Helper()
	return s.start("edge")
}

// startServers starts an edge, a shop, and the front door to both.
func (s *system) startServers() {
	s.t.Helper()
	s.startEdge()
	s.startShop()
}

// startShop starts a shop, and the front door to it and to the edge that was started last.
func (s *system) startShop() *program {
	s.t.Helper()
	shop := s.start("shop")
	door, err := lab.OpenDoor([]string{strings.TrimPrefix(s.url, "http://")}, []string{shop.addr})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := door.Close(); err != nil {
			s.t.Error(err)
		}
	})
	s.front = door.URL
	return shop
}

func (s *system) startWorker() *program {
	s.t.Helper()
	return s.start("worker")
}

func (s *system) start(name string, env ...string) *program {
	s.t.Helper()
	s.started++
	log := filepath.Join(s.dir, fmt.Sprintf("%d-%s.log", s.started, name))
	p, err := lab.NewProgram(name, lab.Program{
		Name: name, Path: filepath.Join(s.bin, name), Dir: s.dir, LogFile: log, Env: s.env,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	if name == "edge" {
		s.url = "http://" + p.Addr
	}

	process, err := p.Launch(s.t.Context(), env...)
	if process == nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		process.Stop(lab.StopWait)
		content, _ := os.ReadFile(log)
		if secret := used.in(content, append(s.env[:len(s.env):len(s.env)], env...)); secret != "" {
			s.t.Errorf("%s has logged the secret %q", name, secret)
		}
		if bytes.Contains(content, []byte("DATA RACE")) || bytes.Contains(content, []byte("panic:")) {
			s.t.Errorf("%s:\n%s", name, content)
		} else if s.t.Failed() {
			s.t.Logf("end of the log of %s %d:\n%s", name, process.Pid(), process.LogTail())
		}
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return &program{process.Process, process.Addr, "http://" + process.Admin}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	addr, err := lab.FreeAddr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

func expectStatus(url string, want int) error {
	resp, err := http.Get(url)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != want {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return nil
}

// ctl runs the operator's command in the system's environment.
func (s *system) ctl(args ...string) (stdout string, err error) {
	return runCtl(s.t.Context(), s.bin, s.dir, s.env, args...)
}

func runCtl(ctx context.Context, bin, dir string, env []string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "ctl"), args...)
	cmd.Dir, cmd.Env = dir, env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("ctl %s: %w: %s%s", strings.Join(args, " "), err, stderr.String(),
			stdout.String())
	}
	return stdout.String(), nil
}

func (s *system) mustCtl(args ...string) string {
	s.t.Helper()
	out, err := s.ctl(args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// audit is what the tests read of "ctl audit --json".
type audit struct {
	OK       bool     `json:"ok"`
	Problems []string `json:"problems"`
	Queue    struct {
		Dead int `json:"dead"`
	} `json:"queue"`
	Products []struct {
		ID             int `json:"product_id"`
		Buckets        int `json:"buckets"`
		Restocked      int `json:"restocked"`
		Stock          int `json:"mysql_stock"`
		CompletedUnits int `json:"completed_units"`
		Completed      int `json:"completed_orders"`
		Failed         int `json:"failed_orders"`
		Available      int `json:"redis_available"`
	} `json:"products"`
}

// audit waits until the system is quiet and audits it, with whatever result.
func (s *system) audit(wait time.Duration) audit {
	s.t.Helper()
	out, err := s.ctl("audit", "--json", "--wait", wait.String())
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 1) {
		s.t.Fatal(err)
	}
	var a audit
	if err := json.Unmarshal([]byte(out), &a); err != nil {
		s.t.Fatalf("%v in %q", err, out)
	}
	if a.OK != (err == nil) {
		s.t.Fatalf("the audit says ok=%v and ends with %v", a.OK, err)
	}
	return a
}

// mustBeClean audits the system and demands that every order that the crowd was promised is decided,
// and that so many units of product 1 were sold.
func (s *system) mustBeClean(c *crowd, wait time.Duration, units int) {
	s.t.Helper()
	a := s.audit(wait)
	if !a.OK {
		s.t.Fatalf("the audit found: %s", strings.Join(a.Problems, "; "))
	}
	p := a.Products[0]
	if p.CompletedUnits != units || p.Completed+p.Failed < len(c.orders) {
		s.t.Errorf("%d units sold, want %d; %d orders decided, at least %d promised", p.CompletedUnits, units,
			p.Completed+p.Failed, len(c.orders))
	}
	for id, userID := range c.orders {
		status, body := request(s.t, "GET", s.url+"/api/orders/"+id, s.token(userID), "")
		if status != http.StatusOK || body["status"] != "completed" && body["status"] != "failed" {
			s.t.Fatalf("order %s was promised and is now: %d %v", id, status, body)
		}
	}
}
