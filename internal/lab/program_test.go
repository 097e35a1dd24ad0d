package lab

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// script is a program of a test's own, as a fleet would start it.
func script(t *testing.T, roleName, text string) *Program {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	p, err := NewProgram(roleName, Program{Name: "program-1", Path: path, LogFile: filepath.Join(dir, "log")})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestLaunch: a program is launched when it answers that it is ready, and not before, with the addresses that it was
// given.
func TestLaunch(t *testing.T) {
	t.Parallel()
	p := script(t, "edge", `echo "$EDGE_ADDR $ADMIN_ADDR $MORE"; exec sleep 600`)
	asked := 0
	mux := http.NewServeMux()
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if asked++; asked < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	ln, err := net.Listen("tcp", p.Admin)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: mux}
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()

	process, err := p.Launch(t.Context(), "MORE=yes")
	if process == nil {
		t.Fatal(err)
	}
	if err != nil || asked != 3 {
		t.Errorf("it was launched after %d questions: %v", asked, err)
	}
	if want := p.Addr + " " + p.Admin + " yes\n"; p.Addr == "" || process.LogTail() != want {
		t.Errorf("it was told %q, want %q", process.LogTail(), want)
	}

	if process.Stop(StopWait) {
		t.Error("it had to be killed")
	}
	http.DefaultClient.CloseIdleConnections()
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	<-served
}

// TestLaunchEnds: a program that ends is not waited for, and its log says why.
func TestLaunchEnds(t *testing.T) {
	t.Parallel()
	p := script(t, "worker", `echo "REDIS_URL is not set"; exit 2`)

	process, err := p.Launch(t.Context())

	if process == nil || process.ExitCode() != 2 || err == nil ||
		!strings.Contains(err.Error(), "program-1 ended at its start") ||
		!strings.Contains(err.Error(), "REDIS_URL is not set") {
		t.Errorf("%v, %v", process, err)
	}
	if p.Addr != "" {
		t.Errorf("a worker has the public address %s", p.Addr)
	}
}
