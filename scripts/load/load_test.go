// Package load has the load tests for k6 and Locust. What is tested here is that they load nothing but what the operator
// has named, and that what the documents say of them is so.
package load

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestTargets has both load generators read their scripts, without a run, for targets that are on this machine and
// targets that are not.
func TestTargets(t *testing.T) {
	tokens := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(tokens, []byte("token\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tools := map[string]func(edge, allow string) *exec.Cmd{
		"k6": func(edge, allow string) *exec.Cmd {
			k6, err := filepath.Abs("../../.local/bin/k6")
			if _, err2 := os.Stat(k6); err != nil || err2 != nil {
				k6 = "k6"
			}
			return exec.Command(k6, "inspect", "-e", "EDGE="+edge, "-e", "ALLOW_HOST="+allow, "-e", "TOKENS="+tokens, "k6/smoke.js")
		},
		"locust": func(edge, allow string) *exec.Cmd {
			cmd := exec.Command("locust", "-f", "locust/sale.py", "--list")
			cmd.Env = append(os.Environ(), "EDGE="+edge, "ALLOW_HOST="+allow, "TOKENS="+tokens, "PYTHONDONTWRITEBYTECODE=1")
			return cmd
		},
	}
	for tool, command := range tools {
		t.Run(tool, func(t *testing.T) {
			t.Parallel()
			if err := command("", "").Err; err != nil {
				t.Skip(err)
			}
			for _, test := range []struct {
				edge, allow string
				want        string // in what it says when it refuses; empty if it does not
			}{
				{"", "", ""},
				{"http://127.0.0.1:8080,http://localhost:8081,http://[::1]:8082/", "", ""},
				{"https://shop.example.org", "shop.example.org", ""},
				{"https://shop.example.org", "", "ALLOW_HOST"},
				{"http://127.0.0.1:8080,http://192.0.2.1:8080", "shop.example.org", "ALLOW_HOST"},
				{"http://127.0.0.1.example.org", "", "ALLOW_HOST"},
				{"http://localhost@192.0.2.1:8080", "localhost", "is not like"},
				{"http://localhost:80/@192.0.2.1", "localhost", "is not like"},
				{"localhost:8080", "", "is not like"},
			} {
				out, err := command(test.edge, test.allow).CombinedOutput()
				if (err != nil) != (test.want != "") || !strings.Contains(string(out), test.want) {
					t.Errorf("EDGE=%s ALLOW_HOST=%s: %v: %s", test.edge, test.allow, err, out)
				}
			}
		})
	}
}

// TestScenarios compares the files with the help of make and the documents.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("k6/*.js")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d scenarios: %v", len(files), err)
	}
	for _, document := range []string{"README.md", "../../Makefile"} {
		content, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if name := strings.TrimSuffix(filepath.Base(file), ".js"); !strings.Contains(string(content), name) {
				t.Errorf("%s does not name the scenario %s", document, name)
			}
		}
	}
}
