package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"stampede/internal/lab"
)

// moduleRoot is the folder of go.mod.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	path := strings.TrimSpace(string(out))
	if err != nil || filepath.Base(path) != "go.mod" {
		return "", fmt.Errorf("this is not a folder of the repository: %q %w", path, err)
	}
	return filepath.Dir(path), nil
}

// build builds the programs with failpoints into dir, and an edge whose clock can be wrong if that is wanted.
func build(ctx context.Context, root, dir string, skewed bool) (programs, error) {
	run := func(args ...string) error {
		return lab.Build(ctx, root, append([]string{"-tags", "failpoints"}, args...)...)
	}
	p := programs{
		edge: filepath.Join(dir, "edge"), worker: filepath.Join(dir, "worker"),
		shop: filepath.Join(dir, "shop"), ctl: filepath.Join(dir, "ctl"),
		skewedEdge: filepath.Join(dir, "edge-skewed"),
	}
	err := run("-o", dir+string(filepath.Separator), "./edge", "./worker", "./shop", "./ctl")
	if err != nil || !skewed {
		return p, err
	}
	// A place that stays the same lets the Go command keep what it has built.
	place := filepath.Join(root, ".local", "skewed-time")
	if err := os.MkdirAll(place, 0o755); err != nil {
		return p, err
	}
	overlay, err := skewedTime(ctx, place)
	if err != nil {
		return p, err
	}
	return p, run("-overlay", overlay, "-o", p.skewedEdge, "./edge")
}

// skewVariable is by how many seconds the clock of the skewed edge is wrong.
const skewVariable = "FAULTS_CLOCK_SKEW"

// skewedTime writes a package time whose clock is wrong, as an overlay for the Go command. libfaketime cannot do it: Go
// programs ask the kernel for the time and not the C library. With the overlay all of the edge has the wrong time.
func skewedTime(ctx context.Context, dir string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", err
	}
	original := filepath.Join(strings.TrimSpace(string(out)), "src", "time", "time.go")
	content, err := os.ReadFile(original)
	if err != nil {
		return "", err
	}
	const reading = "	sec, nsec, mono := runtimeNow()\n"
	if bytes.Count(content, []byte(reading)) != 1 {
		return "", errors.New("the package time of Go does not read the clock as this program expects")
	}
	content = bytes.Replace(content, []byte(reading), []byte(reading+"	sec += skewSeconds\n"), 1)
	patched, overlay := filepath.Join(dir, "time.go"), filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(patched, content, 0o600); err != nil {
		return "", err
	}
	added := filepath.Join(dir, "skew.go")
	err = os.WriteFile(added, []byte(`package time

import "syscall"

var skewSeconds = func() (n int64) {
	text, _ := syscall.Getenv("`+skewVariable+`")
	sign := int64(1)
	for _, c := range []byte(text) {
		if c == '-' {
			sign = -1
		} else {
			n = 10*n + int64(c-'0')
		}
	}
	return sign * n
}()
`), 0o600)
	if err != nil {
		return "", err
	}
	replace := map[string]map[string]string{"Replace": {
		original: patched, filepath.Join(filepath.Dir(original), "skew.go"): added,
	}}
	raw, err := json.Marshal(replace)
	if err != nil {
		return "", err
	}
	return overlay, os.WriteFile(overlay, raw, 0o600)
}
