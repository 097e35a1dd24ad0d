// Package tidy holds the repository to the rules that a compiler does not know: how long lines and functions may be,
// who imports whom, that migrations are numbered without gaps, and that lists in comments are those of the code. Its
// tests need no server and take seconds.
package tidy

import (
	"bufio"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// root is the folder of the repository, as seen from this one.
const root = "../.."

var update = flag.Bool("update", false, "lower the allowances to what is there")

// goFile is a parsed file of Go, whatever its build tags are.
type goFile struct {
	path   string // from the root, with slashes
	text   string
	set    *token.FileSet
	syntax *ast.File
}

func (f goFile) isTest() bool { return strings.HasSuffix(f.path, "_test.go") }

// dir is the folder of the file: its package, without the name of the module.
func (f goFile) dir() string { return path.Dir(f.path) }

// goFiles returns the files of Go that git tracks, but for generated ones.
func goFiles(t *testing.T) []goFile {
	t.Helper()
	var files []goFile
	for _, name := range tracked(t, "*.go") {
		content, err := os.ReadFile(filepath.Join(root, name))
		if os.IsNotExist(err) {
			continue // removed, and not yet committed
		}
		if err != nil {
			t.Fatal(err)
		}

		set := token.NewFileSet()
		syntax, err := parser.ParseFile(set, name, content, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		if !ast.IsGenerated(syntax) {
			files = append(files, goFile{path: name, text: string(content), set: set, syntax: syntax})
		}
	}
	return files
}

// tracked returns the files that git knows, or would add, whose paths match a pattern of git's.
func tracked(t *testing.T, pattern string) []string {
	t.Helper()
	list := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", pattern)
	list.Dir = root
	out, err := list.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	names := strings.FieldsFunc(string(out), func(r rune) bool { return r == 0 })
	if len(names) == 0 {
		t.Fatalf("git knows no file %s", pattern)
	}

	// go test takes an earlier result for this one while all that was opened is as it was. It does not see what git
	// reads, but for the folders that are opened here: a new file changes one of them.
	seen := map[string]bool{}
	for _, name := range names {
		for dir := path.Dir(name); !seen[dir]; dir = path.Dir(dir) {
			seen[dir] = true
			if _, err := os.ReadDir(filepath.Join(root, dir)); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		}
	}
	return names
}

// ratchet compares what is there with a list of allowances, each a number and what it is allowed to. Nothing may have
// more than its allowance, and nothing less, so that the list is lowered with it. The flag -update writes the list anew
// if its sum does not rise: allowances can move with a file that moves.
func ratchet(t *testing.T, list, unit string, found map[string]int) {
	t.Helper()
	allowed := readAllowances(t, list)

	if *update {
		if was, is := sum(allowed), sum(found); is > was {
			t.Fatalf("%s may only shrink: it allows %d %s, and there are %d", list, was, unit, is)
		}
		writeAllowances(t, list, found)
		return
	}

	names := slices.Collect(maps.Keys(found))
	for name := range allowed {
		if _, ok := found[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		switch is, was := found[name], allowed[name]; {
		case is > was:
			t.Errorf("%s: %d %s, and %s allows %d", name, is, unit, list, was)
		case is < was:
			t.Errorf("%s: only %d %s, and %s still allows %d: lower it with go test ./internal/tidy -update",
				name, is, unit, list, was)
		}
	}
}

func sum(counts map[string]int) (total int) {
	for _, n := range counts {
		total += n
	}
	return total
}

func readAllowances(t *testing.T, list string) map[string]int {
	t.Helper()
	content, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}

	allowed := map[string]int{}
	lines := bufio.NewScanner(strings.NewReader(string(content)))
	for lines.Scan() {
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		var n int
		count, name, _ := strings.Cut(lines.Text(), " ")
		if _, err := fmt.Sscan(count, &n); err != nil || name == "" || n < 1 {
			t.Fatalf("%s: %q is no allowance", list, lines.Text())
		}
		allowed[name] = n
	}
	return allowed
}

// writeAllowances keeps the comments at the head of the list.
func writeAllowances(t *testing.T, list string, found map[string]int) {
	t.Helper()
	content, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}

	var out strings.Builder
	for line := range strings.Lines(string(content)) {
		if strings.HasPrefix(line, "#") {
			out.WriteString(line)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		fmt.Fprintf(&out, "%d %s\n", found[name], name)
	}
	if err := os.WriteFile(list, []byte(out.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
