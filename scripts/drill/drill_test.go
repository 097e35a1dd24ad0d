package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const root = "../.."

// TestChanges keeps the drill possible while the code changes: what a break replaces is there, and so is its test.
func TestChanges(t *testing.T) {
	t.Parallel()
	promises := map[string]int{}
	for _, b := range changes {
		promises[b.promise]++
		content, err := os.ReadFile(filepath.Join(root, b.file))
		if n := bytes.Count(content, []byte(b.old)); err != nil || n != 1 || b.old == b.new {
			t.Errorf("%q: %s has the text to replace %d times, error %v:\n%s", b.what, b.file, n, err, b.old)
		}
		function, _, _ := strings.Cut(b.test, "/")
		if !hasTest(t, b.pkg, function) || b.says == "" {
			t.Errorf("%q: ./%s has no %s, or it is not known what it says", b.what, b.pkg, function)
		}
	}
	for _, p := range []string{"P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8"} {
		if promises[p] < 2 {
			t.Errorf("%s has %d breaks", p, promises[p])
		}
	}
}

// TestReliability: the page tells of every break and of no other.
func TestReliability(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join(root, "docs/reliability.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range changes {
		if row := "\n| " + b.what + " | `" + b.test + "` |"; !bytes.Contains(page, []byte(row)) {
			t.Errorf("docs/reliability.md has no row that begins with%s", row)
		}
	}
	if n := bytes.Count(page, []byte("` | ")); n != len(changes) {
		t.Errorf("docs/reliability.md has %d rows for %d breaks", n, len(changes))
	}
}

func hasTest(t *testing.T, pkg, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, pkg, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(content, []byte("\nfunc "+name+"(t *testing.T)")) {
			return true
		}
	}
	return false
}
