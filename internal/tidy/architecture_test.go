package tidy

import (
	"go/ast"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const architecture = "docs/architecture.md"

// TestWalk looks for every file and function that the walk of an order names.
func TestWalk(t *testing.T) {
	declared := map[string][]string{}
	for _, f := range goFiles(t) {
		declared[f.path] = []string{}
		for _, d := range f.syntax.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				declared[f.path] = append(declared[f.path], receiver(fn)+fn.Name.Name)
			}
		}
	}
	for _, script := range tracked(t, "lua/*.lua") {
		declared[script] = []string{}
	}

	var (
		step     = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([^|]*) \\|")
		function = regexp.MustCompile("`([^`]+)`")
	)
	_, walk, _ := strings.Cut(read(t, architecture), "## The walk of an order")
	steps := step.FindAllStringSubmatch(walk, -1)
	if len(steps) == 0 {
		t.Fatalf("%s has no walk", architecture)
	}
	for _, s := range steps {
		file := s[1]
		functions, ok := declared[file]
		if !ok {
			t.Errorf("the walk in %s goes through %s, which is not there", architecture, file)
			continue
		}
		named := function.FindAllStringSubmatch(s[2], -1)
		if len(named) == 0 && path.Ext(file) != ".lua" {
			t.Errorf("the walk in %s names no function of %s", architecture, file)
		}
		for _, f := range named {
			if !slices.Contains(functions, f[1]) {
				t.Errorf("the walk in %s goes through %s of %s, which is not there", architecture, f[1], file)
			}
		}
	}
}

// TestPackagePicture holds the picture of packages to allowedImports: every arrow is true, and none between those that
// are in it is left out.
func TestPackagePicture(t *testing.T) {
	_, picture, _ := strings.Cut(read(t, architecture), "flowchart TD\n")
	picture, _, _ = strings.Cut(picture, "```")
	title := regexp.MustCompile(`\["[^"]*"\]`)

	drawn := map[string]map[string]bool{}
	shown := map[string]bool{}
	for line := range strings.SplitSeq(strings.TrimSpace(picture), "\n") {
		from, to, _ := strings.Cut(title.ReplaceAllString(strings.TrimSpace(line), ""), " --> ")
		shown[from] = true
		drawn[from] = map[string]bool{}
		for name := range strings.SplitSeq(to, " & ") {
			shown[name], drawn[from][name] = true, true
		}
	}

	imports := map[string]map[string]bool{}
	for dir, names := range allowedImports {
		imports[path.Base(dir)] = map[string]bool{}
		for _, name := range names {
			imports[path.Base(dir)][path.Base(name)] = true
		}
	}

	for from, names := range drawn {
		for name := range names {
			if !imports[from][name] {
				t.Errorf("%s draws that %s imports %s, which it does not", architecture, from, name)
			}
		}
		for name := range imports[from] {
			// All know the order; a picture with an arrow to it from everywhere would show little else.
			if shown[name] && !names[name] && name != "order" && name != "lua" {
				t.Errorf("%s does not draw that %s imports %s", architecture, from, name)
			}
		}
	}
}
