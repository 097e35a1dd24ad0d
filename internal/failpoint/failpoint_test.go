package failpoint_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestNoTrace builds the edge and the worker as they are shipped, and with the points: only there they are.
func TestNoTrace(t *testing.T) {
	t.Parallel()
	for _, tags := range []string{"", "failpoints"} {
		list := exec.CommandContext(t.Context(), "go", "list", "-deps", "-tags", tags, "stampede/edge",
			"stampede/worker", "stampede/ctl")
		deps, err := list.Output()
		if err != nil {
			t.Fatal(err)
		}
		bin := t.TempDir()
		build := exec.CommandContext(t.Context(), "go", "build", "-tags", tags, "-o", bin+string(filepath.Separator),
			"stampede/edge", "stampede/worker")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for _, program := range []string{"edge", "worker"} {
			content, err := os.ReadFile(filepath.Join(bin, program))
			if err != nil {
				t.Fatal(err)
			}
			for _, trace := range []string{"gofail", "GOFAIL_FAILPOINTS", "failpoint.pass", "after-"} {
				if trace == "after-" && tags == "" {
					continue // an ordinary word
				}
				if got := bytes.Contains(content, []byte(trace)); got != (tags != "") {
					t.Errorf("tags %q: %s contains %q: %v", tags, program, trace, got)
				}
			}
		}
		if got := strings.Contains(string(deps), "go.etcd.io/gofail"); got != (tags != "") {
			t.Errorf("tags %q: the programs depend on gofail: %v", tags, got)
		}
	}
}

// TestOn runs the tests of the other build.
func TestOn(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "test", "-tags", "failpoints", "-run", "^Test(Terms|Haste)$",
		"-count=1", ".").CombinedOutput()
	if err != nil || !bytes.HasPrefix(out, []byte("ok")) {
		t.Errorf("%v: %s", err, out)
	}
}
