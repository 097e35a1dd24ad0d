package tidy

import (
	"go/ast"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// migrationFiles is git's pattern of the migrations that are written in SQL.
const migrationFiles = "*/migrations/*.sql"

// unusedMigrations are the numbers below the last one that no migration has, each with the reason.
var unusedMigrations = map[int]string{
	15: "was kept for a change that came to need no migration",
	17: "was kept for a change that came to need no migration",
	18: "was kept for a change that came to need no migration",
}

// TestMigrationNumbers knows the migrations in files, and those in Go, which are calls of goose.NewGoMigration or
// addColumns.
func TestMigrationNumbers(t *testing.T) {
	where := map[int][]string{}

	fileName := regexp.MustCompile(`^(\d{5})_[a-z0-9_]+\.sql$`)
	for _, name := range tracked(t, migrationFiles) {
		match := fileName.FindStringSubmatch(path.Base(name))
		if match == nil {
			t.Errorf("%s: its name is not five digits, an underscore, what it does, and .sql", name)
			continue
		}
		number, err := strconv.Atoi(match[1])
		if err != nil {
			t.Fatal(err)
		}
		where[number] = append(where[number], name)
	}

	for _, f := range goFiles(t) {
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			if number, ok := goMigration(n); ok {
				where[number] = append(where[number], f.path)
			}
			return true
		})
	}

	last := 0
	for number, names := range where {
		last = max(last, number)
		if len(names) > 1 {
			t.Errorf("migration %d is there more than once: %v", number, names)
		}
	}
	for number := 1; number <= last; number++ {
		_, is := where[number]
		reason, unused := unusedMigrations[number]
		switch {
		case is && unused:
			t.Errorf("migration %d is in %v, and unusedMigrations says that there is none: %s", number, where[number],
				reason)
		case !is && !unused:
			t.Errorf("there is no migration %d, and no reason in unusedMigrations", number)
		}
	}
	for number := range unusedMigrations {
		if number > last {
			t.Errorf("unusedMigrations has %d, and the last migration is %d", number, last)
		}
	}
}

// goMigration returns the number of a migration that is written in Go.
func goMigration(n ast.Node) (number int, ok bool) {
	call, ok := n.(*ast.CallExpr)
	if !ok || len(call.Args) == 0 {
		return 0, false
	}
	switch function := call.Fun.(type) {
	case *ast.SelectorExpr:
		ok = function.Sel.Name == "NewGoMigration"
	case *ast.Ident:
		ok = function.Name == "addColumns"
	}
	if !ok {
		return 0, false
	}
	literal, ok := call.Args[0].(*ast.BasicLit)
	if !ok || literal.Kind != token.INT {
		return 0, false
	}
	number, err := strconv.Atoi(literal.Value)
	return number, err == nil
}

// TestColumnComments holds the comments of the migrations that list the values of a column to the constants in the
// code.
func TestColumnComments(t *testing.T) {
	columns := []struct {
		table, column string
		dir, name     string // of the constants: their type's name, or what their names begin with
		except        string // constants that are not stored
	}{
		{"products", "state", "internal/order", "SaleState", ""},
		// A row of orders is a decision, and a hold says what has become of one.
		{"orders", "status", "internal/order", "Status", "pending awaiting_payment closing cancelled refunded"},
		{"holds", "state", "internal/order", "Status", "pending failed held"},
		{"holds", "reason", "internal/ledger", "CancelReason", ""},
		{"stock_ledger", "reason", "internal/ledger", "ledger", ""},
		{"payments", "state", "internal/till", "State", ""},
		{"payment_events", "source", "internal/till", "Source", ""},
		{"refunds", "state", "internal/till", "RefundState", ""},
		{"refunds", "reason", "internal/till", "Reason", ""},
		{"rooms", "state", "internal/room", "State", ""},
		{"users", "role", "internal/account", "Role", ""},
		{"bans", "kind", "internal/account", "ban", ""},
		{"books", "kind", "internal/ledger", "books", ""},
		{"wallet_ledger", "type", "internal/wallet", "Type", ""},
	}

	files := goFiles(t)
	commented := columnComments(t)
	for _, c := range columns {
		want := constants(files, c.dir, c.name)
		except := strings.Fields(c.except)
		want = slices.DeleteFunc(want, func(value string) bool { return slices.Contains(except, value) })
		if len(want) == 0 {
			t.Errorf("no constant of %s is a %s", c.dir, c.name)
		}
		name := c.table + "." + c.column
		if got := commented[name]; !slices.Equal(got, want) {
			t.Errorf("the comment of %s lists %q, and %s has the constants %q", name, got, c.dir, want)
		}
		delete(commented, name)
	}
	for name, values := range commented {
		t.Errorf("the comment of %s lists %q: name the constants in TestColumnComments", name, values)
	}
}

// columnComments returns the values that comments list before columns, each in single quotes, by table and column. A
// comment with one value lists none.
func columnComments(t *testing.T) map[string][]string {
	t.Helper()
	var (
		create = regexp.MustCompile(`^CREATE TABLE IF NOT EXISTS (\w+) \($`)
		column = regexp.MustCompile(`^    ([a-z]\w*) `)
		value  = regexp.MustCompile(`'(\w+)'`)
	)
	lists := map[string][]string{}
	for _, name := range tracked(t, migrationFiles) {
		table, comment := "", ""
		for line := range strings.SplitSeq(read(t, name), "\n") {
			if match := create.FindStringSubmatch(line); match != nil {
				table = match[1]
			} else if text, ok := strings.CutPrefix(strings.TrimSpace(line), "--"); ok {
				comment += text
			} else {
				var values []string
				for _, match := range value.FindAllStringSubmatch(comment, -1) {
					values = append(values, match[1])
				}
				comment = ""
				if match := column.FindStringSubmatch(line); match != nil && len(values) > 1 {
					slices.Sort(values)
					lists[table+"."+match[1]] = values
				}
			}
		}
	}
	return lists
}

// constants returns the values, in order, of a package's string constants that have a type, or whose names begin with a
// word that is no type.
func constants(files []goFile, dir, name string) []string {
	var values []string
	for _, f := range files {
		if f.dir() != dir || f.isTest() {
			continue
		}
		for _, d := range f.syntax.Decls {
			if group, ok := d.(*ast.GenDecl); ok && group.Tok == token.CONST {
				for _, spec := range group.Specs {
					values = append(values, constantsOf(spec.(*ast.ValueSpec), name)...)
				}
			}
		}
	}
	slices.Sort(values)
	return values
}

func constantsOf(spec *ast.ValueSpec, name string) []string {
	var values []string
	kind, typed := spec.Type.(*ast.Ident)
	for i, ident := range spec.Names {
		rest, prefixed := strings.CutPrefix(ident.Name, name)
		if typed && kind.Name != name || !typed && (!prefixed || rest == "" || strings.ToUpper(rest[:1]) != rest[:1]) {
			continue
		}
		if i >= len(spec.Values) {
			continue
		}
		if literal, ok := spec.Values[i].(*ast.BasicLit); ok && literal.Kind == token.STRING {
			if value, err := strconv.Unquote(literal.Value); err == nil && value != "" {
				values = append(values, value)
			}
		}
	}
	return values
}
