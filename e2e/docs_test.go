package e2e

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"stampede/localstack"
	"stampede/localstack/stacktest"
)

// example is a command of a document with what the document shows of its output; nothing if it shows none.
type example struct {
	line            int
	command, output string
}

// TestDocsExamples types what stands behind the prompts of the documents' console blocks, in order, into a shell beside
// "make up", and holds what it prints against what the documents show. Blocks of sh need more than that stack, such as
// Docker, and are not run.
func TestDocsExamples(t *testing.T) {
	for name, least := range map[string]int{"docs/tour.md": 20, "docs/api.md": 30} {
		t.Run(filepath.Base(name), func(t *testing.T) {
			t.Parallel()
			examples := readExamples(t, filepath.Join("..", name))
			if len(examples) < least {
				t.Fatalf("only %d examples were found", len(examples))
			}
			sh := startShell(t, startUp(t))
			names := shownIDs{}
			for _, e := range examples {
				sh.try(t, name, e, names)
			}
		})
	}
}

// An example with a date that has passed shows something else from then on.
func TestDocsExamplesHoldNoDateThatPasses(t *testing.T) {
	date := regexp.MustCompile(`20[0-9]{2}-[0-9]{2}-[0-9]{2}`)
	for _, name := range []string{"docs/tour.md", "docs/api.md"} {
		for _, e := range readExamples(t, filepath.Join("..", name)) {
			for _, found := range date.FindAllString(e.command, -1) {
				if !strings.HasPrefix(found, "2099-") {
					t.Errorf("%s:%d: %s passes; take one in 2099", name, e.line, found)
				}
			}
		}
	}
}

// readExamples finds the commands of a document's console blocks. A command begins with a prompt and goes on through
// indented lines; what follows, up to an empty line before the next prompt, is its output. Of a fence, the language
// must say whether it is run.
func readExamples(t *testing.T, path string) (all []example) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}

	fence := ""
	for i, line := range strings.Split(string(content), "\n") {
		if language, ok := strings.CutPrefix(line, "```"); ok {
			switch {
			case fence != "":
				fence = ""
			case language == "":
				t.Errorf("%s:%d: the block does not say what it is: console is run, sh is not", path, i+1)
				fence = "unknown"
			default:
				fence = language
			}
			continue
		}
		if fence != "console" {
			continue
		}
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			all = append(all, example{line: i + 1, command: command})
			continue
		}
		last := &all[len(all)-1]
		if last.output == "" && strings.HasPrefix(line, "  ") {
			last.command += "\n" + line
		} else {
			last.output += line + "\n"
		}
	}
	for i := range all {
		all[i].output = strings.TrimSpace(all[i].output)
	}
	return all
}

// startUp starts "make up" and returns the file that it leaves for shells.
func startUp(t *testing.T) (envFile string) {
	t.Helper()
	dir := t.TempDir()
	log := filepath.Join(t.TempDir(), "log")
	up, err := localstack.StartProcess(localstack.ProcessOptions{
		Path: filepath.Join(bin, "ctl"), Args: []string{"up", "--dir", dir}, Dir: "..", LogFile: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { up.Stop(time.Minute) })
	envFile = filepath.Join(dir, "up.env")
	stacktest.Eventually(t, 3*time.Minute, func() error { // it builds the programs first
		_, err := os.Stat(envFile)
		return err
	})
	return envFile
}

// sourced is what a shell without any variables has in its environment after it has sourced the file, which only its
// owner may read.
func sourced(t *testing.T, file string) []string {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("%s has the mode %v", file, info.Mode())
	}
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", ". "+file+"; /usr/bin/env")
	cmd.Env = []string{}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// shell is one shell that a document's commands are typed into.
type shell struct {
	in  io.Writer
	out *bufio.Reader
}

// startShell starts a shell in a folder that has bin/ctl, and .local/up.env as the stack wrote it.
func startShell(t *testing.T, envFile string) *shell {
	t.Helper()
	dir := t.TempDir()
	if err := os.Symlink(bin, filepath.Join(dir, "bin")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Dir(envFile), filepath.Join(dir, ".local")); err != nil {
		t.Fatal(err)
	}

	cmd := exec.CommandContext(t.Context(), "sh")
	cmd.Dir = dir
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout // both are what somebody at a terminal sees
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait() // it was cancelled with the test's context
	})
	return &shell{in, bufio.NewReader(out)}
}

// run types one command and returns what it prints.
func (s *shell) run(command string) (output string, failed bool, err error) {
	const mark = '\036'
	if _, err = fmt.Fprintf(s.in, "%s\nprintf '\\036%%d\\n' $?\n", command); err != nil {
		return "", false, err
	}
	output, err = s.out.ReadString(mark)
	if err != nil {
		return output, false, err
	}
	status, err := s.out.ReadString('\n')
	return strings.TrimSpace(strings.TrimSuffix(output, string(mark))), status != "0\n", err
}

// try types an example. What is so only after a moment, such as a ban, is waited for by typing it again.
func (s *shell) try(t *testing.T, document string, e example, ids shownIDs) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for first := ""; ; time.Sleep(200 * time.Millisecond) {
		got, failed, err := s.run(ids.replace(e.command))
		if err != nil {
			t.Fatalf("%s:%d: %s\n%s%v", document, e.line, e.command, got, err)
		}
		if !failed && (e.output == "" || shape(got) == shape(e.output)) {
			ids.learn(e.output, got)
			return
		}
		first = cmp.Or(first, shape(got))
		if time.Now().After(deadline) {
			t.Errorf("%s:%d: %s\nprints\n%s\nwhich looks otherwise than what is shown:\n%s", document, e.line,
				e.command,
				first, shape(e.output))
			return
		}
	}
}

var (
	// orderID is the id of an order, or the number of a payment.
	orderID = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}|\b06[0-9A-Z]{18}\b`)

	// varying is what is otherwise each time, with what stands for it in a shape.
	varying = []struct {
		pattern *regexp.Regexp
		shape   string
	}{
		{regexp.MustCompile(`\r`), ""},
		{orderID, "ORDER"},
		{regexp.MustCompile(`"(access_token|refresh_token)":"[^"]+"`), `"$1":"TOKEN"`},
		{regexp.MustCompile(`"((reserved|decided|created|paid|expires)_at|pay_by)":"[^"]+"`), `"$1":"TIME"`},
		{regexp.MustCompile(`\b[0-9a-f]{32}\b`), "REQUEST"},
		{regexp.MustCompile(`http://127\.0\.0\.1:[0-9]+`), "ADDRESS"},
		{regexp.MustCompile(`cs_test_\w+`), "SESSION"},
		{regexp.MustCompile(`(?m)^Date: .*$`), "Date: DATE"},
		{regexp.MustCompile(`(?m)^Content-Length: [0-9]+$`), "Content-Length: N"},
		{regexp.MustCompile(`;r=[0-9]+;t=[0-9]+`), ";r=N;t=N"},
	}
)

// shape is an output without what varies.
func shape(output string) string {
	for _, v := range varying {
		output = v.pattern.ReplaceAllString(output, v.shape)
	}
	return output
}

// shownIDs are the orders that a document shows, and those that there are in their places.
type shownIDs map[string]string

func (ids shownIDs) learn(shown, got string) {
	real := orderID.FindAllString(got, -1)
	for i, id := range orderID.FindAllString(shown, -1) {
		ids[id] = real[i]
	}
}

func (ids shownIDs) replace(command string) string {
	for shown, real := range ids {
		command = strings.ReplaceAll(command, shown, real)
	}
	return command
}
