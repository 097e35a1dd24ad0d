package localstack

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// shell runs a shell script as a Process, and returns when the script has printed "ready".
func shell(t *testing.T, script string) *Process {
	t.Helper()
	p, err := StartProcess(ProcessOptions{
		Name:    "script",
		Path:    "/bin/sh",
		Args:    []string{"-c", script},
		LogFile: filepath.Join(t.TempDir(), "log"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Kill() })
	for deadline := time.Now().Add(10 * time.Second); !strings.Contains(p.LogTail(), "ready"); {
		if time.Now().After(deadline) {
			t.Fatalf("the script is not ready; it printed %q", p.LogTail())
		}
		time.Sleep(time.Millisecond)
	}
	return p
}

func TestProcessEndsByItself(t *testing.T) {
	p := shell(t, "echo ready; exit 3")
	var exit *exec.ExitError
	if err := p.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("Wait returns %v", err)
	}
	<-p.Done()
	if p.ExitCode() != 3 {
		t.Errorf("exit code %d", p.ExitCode())
	}
	if err := p.Signal(syscall.SIGHUP); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("a signal to a process that has ended gives %v", err)
	}
	if err := p.Kill(); err != nil {
		t.Errorf("Kill after the end: %v", err)
	}
	if p.Stop(time.Minute) {
		t.Error("Stop after the end says that it killed")
	}
	if p.ExitCode() != 3 {
		t.Errorf("exit code %d after Kill and Stop", p.ExitCode())
	}
}

func TestProcessStop(t *testing.T) {
	polite := shell(t, "trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done")
	if polite.Stop(time.Minute) {
		t.Error("a process that obeys SIGTERM was killed")
	}
	if err := polite.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}

	stubborn := shell(t, "trap '' TERM; echo ready; while :; do sleep 0.01; done")
	if !stubborn.Stop(50 * time.Millisecond) {
		t.Error("a process that ignores SIGTERM was not killed")
	}
	if stubborn.ExitCode() != -1 {
		t.Errorf("exit code %d of a process that was killed", stubborn.ExitCode())
	}
}

func TestProcessFromManyGoroutines(t *testing.T) {
	p := shell(t, "echo ready; exec sleep 60")
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() { p.Stop(time.Second) })
		wg.Go(func() {
			if err := p.Kill(); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() { _ = p.Wait() })
		wg.Go(func() { p.ExitCode(); p.LogTail(); _ = p.Signal(syscall.SIGCONT) })
	}
	wg.Wait()
	if runs(t, strconv.Itoa(p.Pid())) {
		t.Error("it still runs")
	}
}

func TestProcessOptions(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	if err := os.WriteFile(log, []byte("of an earlier run\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := StartProcess(ProcessOptions{
		Path: "/bin/sh", Args: []string{"-c", `echo "$GREETING"; pwd >&2`},
		Env: []string{"GREETING=hello"}, Dir: dir, LogFile: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	want := "hello\n" + dir + "\n"
	if got := p.LogTail(); got != want {
		t.Errorf("the log's tail is %q, want %q", got, want)
	}
	if whole, err := os.ReadFile(log); err != nil || string(whole) != "of an earlier run\n"+want {
		t.Errorf("the log is %q, error %v", whole, err)
	}
}

func TestProcessLogTailIsBounded(t *testing.T) {
	p := shell(t, `i=0; while [ $i -lt 1000 ]; do echo "line $i"; i=$((i+1)); done; echo ready`)
	_ = p.Wait()
	if tail := p.LogTail(); len(tail) != logTailBytes || !strings.HasSuffix(tail, "line 999\nready\n") {
		t.Errorf("%d bytes, the end is %q", len(tail), tail[max(0, len(tail)-30):])
	}
}

func TestProcessHasItsOwnGroup(t *testing.T) {
	p := shell(t, "echo ready; exec sleep 60")
	group, err := syscall.Getpgid(p.Pid())
	if err != nil {
		t.Fatal(err)
	}
	if group != p.Pid() {
		t.Errorf("process %d is in group %d: Ctrl-C would reach it", p.Pid(), group)
	}
}

func TestStartProcessFails(t *testing.T) {
	_, err := StartProcess(ProcessOptions{Name: "edge", Path: "/no/such/program"})
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "edge") {
		t.Errorf("starting a program that does not exist gives %v", err)
	}
}

func TestFreePort(t *testing.T) {
	seen := map[int]bool{}
	for range 200 {
		port, err := FreePort()
		if err != nil {
			t.Fatal(err)
		}
		if seen[port] {
			t.Fatalf("port %d was given twice", port)
		}
		seen[port] = true
	}
}
