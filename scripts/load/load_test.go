// Package load has the load tests for k6 and Locust. What is tested here is that they load nothing but what the
// operator has named, and that what the documents say of them is so.
package load

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestTargets asks the scripts of both load generators, without either, whether they would load targets that are on
// this machine and targets that are not.
func TestTargets(t *testing.T) {
	script, err := os.ReadFile("k6/lib/targets.js")
	if err != nil {
		t.Fatal(err)
	}
	languages := map[string]func(edge, allow string) *exec.Cmd{
		"node": func(edge, allow string) *exec.Cmd {
			cmd := exec.Command("node", "--input-type=module", "-", edge, allow)
			cmd.Stdin = strings.NewReader(string(script) +
				"\nconsole.log(targets(process.argv[2], process.argv[3]).join());\n")
			return cmd
		},
		"python3": func(edge, allow string) *exec.Cmd {
			cmd := exec.Command("python3", "-B", "-c",
				"import sys, targets; print(','.join(targets.targets(*sys.argv[1:])))", edge, allow)
			cmd.Dir = "locust"
			return cmd
		},
	}
	for language, command := range languages {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			for _, test := range []struct {
				edge, allow string
				want        string // in what it says
				refused     bool
			}{
				{"http://127.0.0.1:8080,http://localhost:8081,http://[::1]:8082/", "",
					"http://127.0.0.1:8080,http://localhost:8081,http://[::1]:8082\n", false},
				{"https://shop.example.org", "shop.example.org", "https://shop.example.org\n", false},
				{"https://shop.example.org", "", "ALLOW_HOST", true},
				{"http://127.0.0.1:8080,http://192.0.2.1:8080", "shop.example.org", "ALLOW_HOST", true},
				{"http://127.0.0.1.example.org", "", "ALLOW_HOST", true},
				{"http://localhost@192.0.2.1:8080", "localhost", "is not like", true},
				{"http://localhost:80/@192.0.2.1", "localhost", "is not like", true},
				{"localhost:8080", "", "is not like", true},
			} {
				out, err := command(test.edge, test.allow).CombinedOutput()
				if (err != nil) != test.refused || !strings.Contains(string(out), test.want) {
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

// TestK6Options: what follows -- reaches k6, and only that.
func TestK6Options(t *testing.T) {
	dir := t.TempDir()
	script, err := os.ReadFile("k6/run")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"run": string(script), "smoke.js": "", "soak.js": "", "k6": "#!/bin/sh\necho \"k6 $*\"\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for args, want := range map[string]string{
		"smoke soak -- --out json=x y": "k6 run --quiet --address= --out json=x y %s/smoke.js\nk6 run --quiet " +
			"--address= --out json=x y %s/soak.js\n",
		"smoke":       "k6 run --quiet --address= %s/smoke.js\n",
		"smoke --":    "k6 run --quiet --address= %s/smoke.js\n",
		"--":          "Name scenarios: smoke soak",
		"smoke --out": "Name scenarios: smoke soak",
	} {
		cmd := exec.Command(filepath.Join(dir, "run"), strings.Fields(args)...)
		cmd.Env = []string{"PATH=" + dir + ":" + os.Getenv("PATH")}
		out, err := cmd.CombinedOutput()
		refused := strings.HasPrefix(want, "Name")
		if (err != nil) != refused || !strings.Contains(string(out), strings.ReplaceAll(want, "%s", dir)) {
			t.Errorf("run %s: %v: %s", args, err, out)
		}
	}
}
