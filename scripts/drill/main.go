// Drill breaks the program on purpose, in one way after another, and expects a test to notice each time: a test that
// passes whatever the code does proves nothing. docs/reliability.md says what each break means.
//
//	go run ./scripts/drill [--only regexp] [--list] [--verbose]
//
// It works in a copy of the tracked files in a temporary directory, which is gone when it ends, and runs one test at a
// time. Its exit code is 1 if a break is not caught.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	// testLimit bounds one run of a test. Some fail only when their patience of half a minute is over.
	testLimit = 2 * time.Minute
	// stopLimit is how long a test that is told to end may take to stop its servers.
	stopLimit = 20 * time.Second
)

// change is one way to break the program.
type change struct {
	promise string
	what    string // what is wrong then
	file    string
	old     string // text that is in the file exactly once
	new     string
	pkg     string // where the test is
	test    string // its name, with that of a subtest if only that is meant
	says    string // what the test says of it: a failure for any other reason does not count
}

func main() {
	only := flag.String("only", "", "make the breaks of which promise, text or test match this regular expression")
	list := flag.Bool("list", false, "print the breaks and make none")
	verbose := flag.Bool("verbose", false, "print also what the tests say")
	flag.Parse()
	pattern, err := regexp.Compile(*only)
	if err != nil || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "drill: --only is a regular expression; there are no other arguments", err)
		os.Exit(2)
	}
	chosen := slices.DeleteFunc(slices.Clone(changes), func(c change) bool {
		return !pattern.MatchString(c.promise + " " + c.what + " " + c.test)
	})
	if *list {
		for _, c := range chosen {
			fmt.Println(line(chosen, c) + "  ./" + c.pkg)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	caught, err := drill(ctx, chosen, *verbose)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "drill:", err)
		os.Exit(1)
	}
	fmt.Printf("drill: %d breaks, %d caught\n", len(chosen), caught)
	if caught < len(chosen) {
		os.Exit(1)
	}
}

// drill makes the breaks in a copy, one after the other, and counts those that are caught.
func drill(ctx context.Context, chosen []change, verbose bool) (caught int, err error) {
	if len(chosen) == 0 {
		return 0, errors.New("no break is called that: see --list")
	}
	dir, err := os.MkdirTemp("", "stampede-drill-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	c := copied{dir: dir}
	if err := c.fill(ctx); err != nil {
		return 0, err
	}
	fmt.Printf("%d tests must pass as the code is\n", len(chosen))
	if err := c.sound(ctx, chosen); err != nil {
		return 0, err
	}
	fmt.Println(line(chosen, change{promise: "", what: "break", test: "test"}) + "  result      seconds")
	for _, b := range chosen {
		begin := time.Now()
		result := "NOT CAUGHT"
		out, err := c.broken(ctx, b)
		if failed, ok := errors.AsType[*compileError](err); ok { // the other breaks are worth their time all the same
			result, out, err = "NOT BUILT", failed.Error(), nil
		}
		if err != nil {
			return caught, err
		}
		if strings.Contains(out, "--- FAIL: "+b.test+" ") && strings.Contains(out, b.says) {
			caught, result = caught+1, "caught"
		}
		fmt.Printf("%s  %-10s  %7.1f\n", line(chosen, b), result, time.Since(begin).Seconds())
		switch {
		case result != "caught":
			fmt.Print(indent(out))
		case verbose:
			fmt.Print(indent(said(out, b.says)))
		}
	}
	return caught, nil
}

// line is the head of a break's line in the table.
func line(chosen []change, b change) string {
	var what, test int
	for _, c := range chosen {
		what, test = max(what, len(c.what)), max(test, len(c.test))
	}
	return fmt.Sprintf("%-2s  %-*s  %-*s", b.promise, what, b.what, test, b.test)
}

// said is the first message of a test that has the text: its line, and up to two that belong to it.
func said(out, text string) string {
	lines := strings.Split(out, "\n")
	first := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, text) })
	if first < 0 {
		return ""
	}
	message := lines[first]
	for _, l := range lines[first+1 : min(first+3, len(lines))] {
		if strings.Contains(l, "_test.go:") || strings.Contains(l, "--- ") {
			break
		}
		message += " " + strings.TrimSpace(l)
	}
	return strings.TrimSpace(message) + "\n"
}

func indent(text string) string {
	var b strings.Builder
	for l := range strings.Lines(text) {
		if !strings.HasPrefix(l, "===") { // which test runs
			b.WriteString("      " + l)
		}
	}
	return b.String()
}

// copied is a copy of the module.
type copied struct{ dir string }

// fill copies the tracked files as they are at the moment.
func (c copied) fill(ctx context.Context) error {
	root, err := exec.CommandContext(ctx, "git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		return fmt.Errorf("the drill needs a git repository, to know which files are the program's: %w", err)
	}
	module := strings.TrimSpace(string(root))
	list := exec.CommandContext(ctx, "git", "ls-files", "-z")
	list.Dir = module
	names, err := list.Output()
	if err != nil {
		return err
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(names), "\x00"), "\x00") {
		info, err := os.Stat(filepath.Join(module, name))
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted, and not yet committed
		}
		if err != nil {
			return err
		}
		content, err := os.ReadFile(filepath.Join(module, name))
		if err != nil {
			return err
		}
		to := filepath.Join(c.dir, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(to, content, info.Mode().Perm()); err != nil {
			return err
		}
	}
	return nil
}

// sound runs all tests once, package by package, as long as nothing is broken.
func (c copied) sound(ctx context.Context, chosen []change) error {
	tests := map[string][]string{}
	for _, b := range chosen {
		if !slices.Contains(tests[b.pkg], b.test) {
			tests[b.pkg] = append(tests[b.pkg], b.test)
		}
	}
	for pkg, names := range tests {
		out, err := c.run(ctx, pkg, names...)
		if err != nil {
			return err
		}
		for _, name := range names {
			if !strings.Contains(out, "--- PASS: "+name+" ") {
				return fmt.Errorf("%s in ./%s does not pass though nothing is broken:\n%s", name, pkg, indent(out))
			}
		}
	}
	return nil
}

// broken makes a break, runs its test, and mends the break.
func (c copied) broken(ctx context.Context, b change) (out string, err error) {
	path := filepath.Join(c.dir, b.file)
	content, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if n := bytes.Count(content, []byte(b.old)); n != 1 {
		return "", fmt.Errorf("%q: %s has the text to replace %d times, not once:\n%s", b.what, b.file, n, b.old)
	}
	worse := bytes.Replace(content, []byte(b.old), []byte(b.new), 1)
	if err := os.WriteFile(path, worse, 0o644); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.WriteFile(path, content, 0o644)) }()
	if out, err = c.run(ctx, b.pkg, b.test); err != nil {
		return "", fmt.Errorf("%q: %w", b.what, err)
	}
	return out, nil
}

// run runs tests of a package and returns what they say. It is an error if they do not compile.
func (c copied) run(ctx context.Context, pkg string, names ...string) (string, error) {
	binary := filepath.Join(c.dir, "drill.test")
	build := c.command(ctx, "", "go", "test", "-c", "-vet=off", "-ldflags=-w", "-o", binary, "./"+pkg)
	if out, err := build.CombinedOutput(); ctx.Err() != nil {
		return "", ctx.Err()
	} else if err != nil {
		return "", &compileError{pkg, out}
	}
	patterns := make([]string, len(names))
	for i, name := range names {
		parts := strings.Split(name, "/")
		for j := range parts {
			parts[j] = "^" + regexp.QuoteMeta(parts[j]) + "$"
		}
		patterns[i] = strings.Join(parts, "/")
	}
	test := c.command(ctx, pkg, binary, "-test.v", "-test.count=1", "-test.timeout="+testLimit.String(),
		"-test.run="+strings.Join(patterns, "|"))
	out, err := test.CombinedOutput()
	var failed *exec.ExitError
	if ctx.Err() != nil || err != nil && !errors.As(err, &failed) {
		return "", errors.Join(ctx.Err(), err)
	}
	return string(out), nil
}

// compileError says that the tests of a package do not compile.
type compileError struct {
	pkg string
	out []byte
}

func (e *compileError) Error() string { return fmt.Sprintf("./%s does not compile:\n%s", e.pkg, e.out) }

// command is told to end when ctx ends, so that it can stop what it has started.
func (c copied) command(ctx context.Context, dir, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = filepath.Join(c.dir, dir)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopLimit
	return cmd
}
