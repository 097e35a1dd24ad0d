package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"stampede/localstack"
	"stampede/localstack/stacktest"
)

// TestRun runs commands on stacks of "ctl run": what they are told works, what they leave is audited, and how they end
// is how it ends.
func TestRun(t *testing.T) {
	t.Parallel()
	dir := t.TempDir() // of all runs, one after the other, so that the programs are built once
	for _, test := range []struct {
		name, command string
		needs         string // a program
		code          int
		wantOut       []string
	}{
		{
			name: "a command that passes", code: 0,
			// The names are split in two, so that the line that says what is run does not look like what it prints.
			command: `echo "front"=$FRONT
				echo "edge"s=$EDGE; echo "token"s=$(wc -l <"$TOKENS"); echo "mode"=$(ls -l "$TOKENS" | cut -c1-10); echo "merchant"=${MERCHANT:+given}
				"$CTL" product add --name ticket --stock 5 && "$CTL" audit`,
			wantOut: []string{"front=http://127.0.0.1:", "edges=http://127.0.0.1:",
				"tokens=3\n", "mode=-rw-------", "merchant=given",
				"product 1: ticket, 5 units", "audit: ok"},
		},
		{
			name: "a command that fails", code: 7,
			command: `exit 7`,
			wantOut: []string{"audit: ok", "exit status 7"},
		},
		{
			name: "a broken promise", needs: "redis-cli", code: 1,
			command: `"$CTL" product add --name ticket --stock 5 && redis-cli -u "$REDIS_URL" set 'stock:{1}' 4`,
			wantOut: []string{"audit: FAILED", "redis has 4 available"},
		},
		{
			name: "a worker that dies", needs: "pgrep", code: 1,
			command: `kill -9 $(pgrep -P $PPID -x worker)`,
			wantOut: []string{"audit: FAILED", "worker-1 ended by itself"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := exec.LookPath(test.needs); err != nil && test.needs != "" {
				t.Skip(err)
			}
			cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "ctl"), "run", "--workers", "1", "--users", "3",
				"--dir", dir, "--", "sh", "-c", test.command)
			cmd.Dir = ".." // it builds the programs from their sources
			cmd.Env = append(os.Environ(), "CTL="+filepath.Join(bin, "ctl"))
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) || cmd.ProcessState.ExitCode() != test.code {
				t.Errorf("it ended with %v, want %d", err, test.code)
			}
			for _, want := range test.wantOut {
				if !bytes.Contains(out, []byte(want)) {
					t.Errorf("the output lacks %q", want)
				}
			}
			if t.Failed() {
				t.Logf("%s", out)
			}
			// The data and logs of what went wrong are kept.
			left, err := filepath.Glob(filepath.Join(dir, "run-*"))
			if err != nil || (len(left) == 0) != (test.code == 0) {
				t.Errorf("it left %v", left)
			}
			for _, run := range left {
				if err := os.RemoveAll(run); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestRunInterrupted interrupts "ctl run": the command and what it has started are asked to end once, and the stack is
// stopped.
func TestRunInterrupted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := filepath.Join(t.TempDir(), "log")
	// The command starts another process, as a script that runs a load test does, and both take their time to end.
	run, err := localstack.StartProcess(localstack.ProcessOptions{
		Path: filepath.Join(bin, "ctl"), Dir: "..", LogFile: log,
		Args: []string{"run", "--dir", dir, "--users", "1", "--", "sh", "-c",
			`trap 'echo "parent was aske"d; exit 3' TERM
			sh -c 'trap "echo child was aske""d; exit" TERM; echo "child read"y; while :; do sleep 0.1; done' &
			echo "url"=$EDGE=; while :; do sleep 0.1; done`},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { run.Stop(time.Minute) })
	var url string
	stacktest.Eventually(t, time.Minute, func() error {
		content, err := os.ReadFile(log)
		_, after, ok := strings.Cut(string(content), "url=")
		if err == nil && (!ok || !strings.Contains(string(content), "child ready")) {
			err = fmt.Errorf("it has not started: %s", content)
		}
		url, _, _ = strings.Cut(after, "=")
		return err
	})
	if err := expectStatus(url+"/readyz", http.StatusOK); err != nil {
		t.Error(err)
	}
	if err := run.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	select {
	case <-run.Done(): // a second signal, as Stop sends it, would end it at once
	case <-time.After(time.Minute):
	}
	content, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if run.Stop(time.Minute) || run.ExitCode() == 0 || strings.Count(string(content), "parent was asked") != 1 ||
		!strings.Contains(string(content), "child was asked") {
		t.Errorf("after an interruption it ended with %d: %s", run.ExitCode(), content)
	}
	if resp, err := http.Get(url + "/readyz"); err == nil {
		resp.Body.Close()
		t.Errorf("the edge answers %s", resp.Status)
	}
}
