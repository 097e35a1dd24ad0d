package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"stampede/internal/audit"
	"stampede/internal/lab"
	"stampede/internal/order"
	"stampede/internal/reconcile"
	"stampede/internal/token"
)

func TestDispatch(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string // in the error, which must be one of usage
	}{
		{nil, "expected one of"},
		{[]string{"frobnicate"}, "frobnicate"},
		{[]string{"prodct"}, `did you mean "product"`},
		{[]string{"product", "lst"}, `"list"`},
		{[]string{"product", "add", "--nam", "x"}, `did you mean "--name"`},
		{[]string{"product", "add", "-json"}, "-j"},
		{[]string{"product"}, "lost-orders"},
		{[]string{"demo", "--units", "x"}, "demo"},
		{[]string{"demo", "--units", "-1"}, "--units"},
		{[]string{"demo", "--rate", "NaN"}, "--rate"},
		{[]string{"demo", "--workers", "0"}, "--workers"},
		{[]string{"demo", "--quantity", "1001"}, "--quantity"},
		{[]string{"demo", "more"}, "more"},
		{[]string{"up", "--edges", "0"}, "--edges"},
		{[]string{"run", "--workers", "33", "--", "true"}, "--workers"},
		{[]string{"run", "--users", "0", "--", "true"}, "--users"},
		{[]string{"run", "--edges", "2"}, "name a command"},
		{[]string{"token", "--user", "7"}, "JWT_SECRET"},
		{[]string{"token"}, "--users"},
		{[]string{"token", "--user", "7", "--users", "1-2"}, "--users"},
		{[]string{"token", "--user", "-7"}, "--user"},
		{[]string{"token", "--user", "7", "--role", "king"}, "--role"},
		{[]string{"token", "--users", "7"}, "1-5000"},
		{[]string{"token", "--users", "7-6"}, "1-5000"},
		{[]string{"token", "--users", "0-6"}, "1-5000"},
		{[]string{"token", "--users", "1-1000001"}, "1-5000"},
		{[]string{"audit"}, "MYSQL_DSN"},
		{[]string{"audit", "books"}, "MYSQL_DSN"},
		{[]string{"audit", "books", "--all"}, "MYSQL_DSN"},
		{[]string{"archive"}, "--before"},
		{[]string{"payment", "refund", "0199a3c0-0000-7000-8000-000000000001", "--amount", "1"}, "--note"},
		{[]string{"payment", "refund", "7", "--note", "x"}, "<id>"},
		{[]string{"payment", "export", "--from", "2026-01-01"}, "--to"},
		{[]string{"payment", "show", "x"}, "MYSQL_DSN"},
		{[]string{"refund", "done", "x"}, "--note"},
		{[]string{"archive", "--before", "2026-01-01"}, "MYSQL_DSN"},
		{[]string{"audit", "--wait", "1s", "--json"}, "MYSQL_DSN"},
		{[]string{"audit", "books", "more"}, "more"},
		{[]string{"audit", "boks"}, "boks"},
		{[]string{"ban", "add", "--user", "7", "--address", "::1"}, "--address"},
		{[]string{"ban", "add", "--address", "::1/129"}, "--address"},
		{[]string{"ban", "lift"}, "--user"},
		{[]string{"dlq", "redrive"}, "--all"},
		{[]string{"dlq", "discard", "--id", "x", "--all"}, "--all"},
		{[]string{"reconcile", "--fence"}, "--apply"},
		{[]string{"restock", "--product", "1", "--units", "-5"}, "--id"},
		{[]string{"restock", "--product", "1", "--units", "-5", "--id", "x"}, "MYSQL_DSN"},
		{[]string{"completion", "tcsh"}, "fish"},
		{[]string{"migrate", "--app-user", "app"}, "MYSQL_DSN"},
		{[]string{"product", "set", "--id", "1"}, "MYSQL_DSN"},
		{[]string{"product", "set", "--id", "0"}, "--id"},
		{[]string{"product", "set", "--id", "1", "--limit", "2", "--no-limit"}, "--no-limit"},
		{[]string{"product", "set", "--id", "1", "--state", "sold"}, "--state"},
		{[]string{"product", "set", "--price", "1.5"}, "price"},
		{[]string{"product", "set", "--ends", "tomorrow"}, "ends"},
		{[]string{"product", "set", "--ends", "2026-01-02T3:04:05Z"}, "ends"},
		{[]string{"product", "add", "--starts", "2026-01-02T03:04:05,5Z"}, "starts"},
		{[]string{"product", "add", "--starts", "2026-01-02T03:04:05+24:00"}, "starts"},
	} {
		for _, name := range []string{"JWT_SECRET", "MYSQL_DSN", "REDIS_URL"} {
			t.Setenv(name, "")
		}
		err := dispatch(context.Background(), test.args)
		var usage *usageError
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("ctl %q: %v", test.args, err)
		}
	}
}

// TestHelp: whatever a command is, it shows what it takes in the same two ways, and needs no configuration for it.
func TestHelp(t *testing.T) {
	for _, test := range []struct {
		args []string
		want []string
	}{
		{[]string{}, []string{"product add ", "audit books ", "--version"}},
		{[]string{"product"}, []string{"product add ", "product accept-mysql "}},
		{[]string{"product", "set"}, []string{"--no-limit ", "--starts=TIME ", "MYSQL_DSN ", "REDIS_URL "}},
		{[]string{"order", "show"}, []string{"<id> ", "--json ", "ORDERS_QUEUE "}},
		{[]string{"token"}, []string{"--users=N-M ", "JWT_SECRET "}},
		{[]string{"audit"}, []string{"audit books ", "--wait=DURATION ", "ORDERS_QUEUE "}},
		{[]string{"run"}, []string{"--workers=2 ", "[<command> ...]"}},
	} {
		for _, flag := range []string{"--help", "-h"} {
			out := stdout(t, append(test.args, flag)...)
			for _, want := range test.want {
				if !strings.Contains(out, want) {
					t.Errorf("ctl %q %s does not show %q:\n%s", test.args, flag, want, out)
				}
			}
		}
	}
	if out := stdout(t, "--version"); !strings.HasPrefix(out, "stampede devel, revision ") {
		t.Errorf("the version is %q", out)
	}
}

// stdout runs a command and returns what it prints.
func stdout(t *testing.T, args ...string) string {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	saved := os.Stdout
	os.Stdout = write
	printed := make(chan string)
	go func() {
		out, _ := io.ReadAll(read)
		printed <- string(out)
	}()
	err = dispatch(t.Context(), args)
	os.Stdout = saved
	write.Close()
	if err != nil {
		t.Errorf("ctl %q: %v", args, err)
	}
	return <-printed
}

func TestCompletions(t *testing.T) {
	parser, err := newParser()
	if err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"pro":                       "product",
		"product ":                  "add set list lost-orders accept-mysql",
		"product add --st":          "--stock --starts --state",
		"product add --state ":      "on_sale off_sale",
		"product add --state=x --n": "--name",
		"product add --name user ":  "",
		"user role --role m":        "merchant",
		"reconcile --apply --f":     "--fence",
		"completion ":               "bash zsh fish",
		"run -- product ":           "",
		"nonsense":                  "",
	} {
		if got := strings.Join(completions(parser.Model.Node, strings.Split(line, " ")), " "); got != want {
			t.Errorf("after %q: %q, want %q", line, got, want)
		}
	}
}

// TestCompletionInBash lets a real shell complete, by the script that ctl prints.
func TestCompletionInBash(t *testing.T) {
	program := filepath.Join(t.TempDir(), "ctl")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	bash := exec.CommandContext(t.Context(), "bash", "-c",
		`set -e; source <("$1" completion bash); COMP_WORDS=("$1" product l); `+
			`COMP_CWORD=2; _ctl; echo "${COMPREPLY[@]}"`, "bash", program)
	if out, err := bash.CombinedOutput(); err != nil || string(out) != "list lost-orders\n" {
		t.Errorf("bash completes to %q (%v)", out, err)
	}
}

// TestNamesInJSON: all that is printed as JSON has names in snake case, and ids that say of what.
func TestNamesInJSON(t *testing.T) {
	snake := regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)
	seen := map[reflect.Type]bool{}
	var check func(reflect.Type)
	check = func(typ reflect.Type) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice || typ.Kind() == reflect.Map {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || seen[typ] || !strings.HasPrefix(typ.PkgPath()+"/", "stampede/") &&
			typ.Name() != "" {
			return
		}
		seen[typ] = true
		for field := range typ.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			switch {
			case field.Anonymous || name == "-":
			case !field.IsExported():
				continue
			case !snake.MatchString(name) || name == "id":
				t.Errorf("%s.%s is called %q", typ, field.Name, name)
			}
			check(field.Type)
		}
	}
	for _, printed := range []any{
		lab.DemoResult{}, lab.BenchReport{}, audit.Report{}, []reconcile.Report{}, []letter{}, orderStory{},
		userReport{}, []logRow{}, []order.Record{}, []listedProduct{}, []paymentReport{},
	} {
		check(reflect.TypeOf(printed))
	}
}

func TestWriteTokens(t *testing.T) {
	var users userRange
	if err := users.UnmarshalText([]byte("7-9")); err != nil {
		t.Fatal(err)
	}
	keeper := token.NewKeeper(strings.Repeat("k", token.MinSecretBytes))
	var out strings.Builder
	if err := keeper.WriteTokens(&out, users.first, users.last, "merchant", time.Minute); err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(out.String())
	if len(lines) != 3 {
		t.Fatalf("%d tokens, want 3", len(lines))
	}
	for i, line := range lines {
		if claims, err := keeper.Verify([]byte(line), time.Now()); err != nil || claims.UserID != order.UserID(7+i) ||
			claims.Role != "merchant" {
			t.Errorf("token %d is of %+v: %v", i, claims, err)
		}
	}
}
