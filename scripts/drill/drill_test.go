package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
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
	for _, p := range []string{"P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8", "P12"} {
		if promises[p] < 2 {
			t.Errorf("%s has %d breaks", p, promises[p])
		}
	}
}

// TestChangesCompile: a break that the compiler finds proves nothing of the tests. As many breaks as do not touch the
// same text are compiled at a time.
func TestChangesCompile(t *testing.T) {
	t.Parallel()
	left := slices.DeleteFunc(slices.Clone(changes), func(b change) bool { return filepath.Ext(b.file) != ".go" })
	for len(left) > 0 {
		broken := map[string][]byte{}
		var next []change
		for _, b := range left {
			path, err := filepath.Abs(filepath.Join(root, b.file))
			if err != nil {
				t.Fatal(err)
			}
			if broken[path] == nil {
				if broken[path], err = os.ReadFile(path); err != nil {
					t.Fatal(err)
				}
			}
			if bytes.Count(broken[path], []byte(b.old)) != 1 {
				next = append(next, b)
				continue
			}
			broken[path] = bytes.Replace(broken[path], []byte(b.old), []byte(b.new), 1)
		}
		if len(next) == len(left) {
			t.Fatalf("these do not fit: %+v", next) // TestChanges says more
		}
		compile(t, broken)
		left = next
	}
}

// compile builds the module with other contents of some files.
func compile(t *testing.T, contents map[string][]byte) {
	t.Helper()
	dir := t.TempDir()
	replaced := map[string]string{}
	for path, content := range contents {
		replaced[path] = filepath.Join(dir, strconv.Itoa(len(replaced))+".go")
		if err := os.WriteFile(replaced[path], content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replaced})
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		t.Fatal(err)
	}

	build := exec.CommandContext(t.Context(), "go", "build", "-overlay", list, "-o", os.DevNull, "./...")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Errorf("with breaks: %v\n%s", err, out)
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
