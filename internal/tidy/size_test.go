package tidy

import (
	"go/ast"
	"strings"
	"testing"
	"unicode/utf8"
)

const (
	// maxColumns lets two files stand side by side on a screen. A tab counts as tabColumns.
	maxColumns = 120
	tabColumns = 4
	// maxFunctionLines is what fits on a screen, so that a function can be read as a whole.
	maxFunctionLines = 70
)

func TestLines(t *testing.T) {
	long := map[string]int{}
	for _, f := range goFiles(t) {
		for line := range strings.SplitSeq(f.text, "\n") {
			if utf8.RuneCountInString(line)+strings.Count(line, "\t")*(tabColumns-1) > maxColumns {
				long[f.path]++
			}
		}
	}
	ratchet(t, "long-lines.txt", "lines longer than 120 columns", long)
}

// TestFunctions does not count the rows of tables: a case that is added to a test's is data, and no step more to read.
func TestFunctions(t *testing.T) {
	long := map[string]int{}
	for _, f := range goFiles(t) {
		for _, d := range f.syntax.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := f.lines(fn) - f.tableLines(fn); n > maxFunctionLines {
				long[f.path+" "+receiver(fn)+fn.Name.Name] = n
			}
		}
	}
	ratchet(t, "long-functions.txt", "lines in one function", long)
}

// lines returns how many lines a node covers.
func (f goFile) lines(n ast.Node) int {
	return f.set.Position(n.End()).Line - f.set.Position(n.Pos()).Line + 1
}

// tableLines returns how many lines of a function are inside literals of slices, arrays and maps.
func (f goFile) tableLines(fn *ast.FuncDecl) (total int) {
	ast.Inspect(fn, func(n ast.Node) bool {
		literal, ok := n.(*ast.CompositeLit)
		if !ok {
			return true
		}
		switch literal.Type.(type) {
		case *ast.ArrayType, *ast.MapType:
			total += max(0, f.lines(literal)-2) // the braces stand on lines of their own, or inside of one
			return false
		}
		return true
	})
	return total
}

// receiver returns the type that a method belongs to and a dot, or nothing.
func receiver(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return ""
	}
	kind := fn.Recv.List[0].Type
	for {
		switch t := kind.(type) {
		case *ast.StarExpr:
			kind = t.X
		case *ast.IndexExpr:
			kind = t.X
		case *ast.IndexListExpr:
			kind = t.X
		case *ast.Ident:
			return t.Name + "."
		default:
			return ""
		}
	}
}
