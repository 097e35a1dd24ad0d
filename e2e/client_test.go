package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// openAPITool is a command that runs a program of e2e/client/package.json in a directory.
func openAPITool(t *testing.T, dir, name string, args ...string) *exec.Cmd {
	t.Helper()
	modules := openAPIModules(t)
	cmd := exec.CommandContext(t.Context(), filepath.Join(modules, ".bin", name), args...)
	cmd.Dir = dir
	// The linter reports to its makers and asks them for news, unless told otherwise.
	cmd.Env = append(os.Environ(), "REDOCLY_TELEMETRY=off", "REDOCLY_SUPPRESS_UPDATE_NOTICE=true")
	return cmd
}

// openAPIModules is where scripts/install-deps puts what e2e/client/package.json names.
func openAPIModules(t *testing.T) string {
	t.Helper()
	installed, err := os.ReadFile("../.local/openapi/installed.json")
	if err != nil {
		t.Fatalf("%v: run scripts/install-deps openapi", err)
	}
	wanted, err := os.ReadFile("client/package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(installed, wanted) {
		t.Fatal("other versions are installed than package-lock.json names: run scripts/install-deps openapi")
	}
	modules, err := filepath.Abs("../.local/openapi/node_modules")
	if err != nil {
		t.Fatal(err)
	}
	return modules
}

// TestOpenAPILint: the document keeps the rules that Redocly recommends. Its warnings are matters of taste.
func TestOpenAPILint(t *testing.T) {
	t.Parallel()

	out, err := openAPITool(t, "../internal/apidoc", "redocly", "lint", "openapi.gen.yaml",
		"--extends=recommended").CombinedOutput()

	if err != nil {
		t.Errorf("redocly lint: %v\n%s", err, out)
	}
}

// TestGeneratedClient: a client that is generated of the document, and compiled, logs in and orders on real servers.
func TestGeneratedClient(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.startServers()
	s.startWorker()
	s.mustCtl("product", "add", "--name", "ticket", "--price", "4990", "--currency", "JPY", "--stock", "5",
		"--limit", "1")
	dir := buildClient(t, s.front+"/openapi.yaml")

	program := exec.CommandContext(t.Context(), "node", "order.js", s.front, "ada@example.org",
		"seven quiet otters knit")
	program.Dir = dir
	out, err := program.CombinedOutput()

	var orders []struct{ Status string }
	if err != nil || json.Unmarshal(out, &orders) != nil || len(orders) != 1 || orders[0].Status != "completed" {
		t.Fatalf("the client: %v\n%s", err, out)
	}
	if a := s.audit(30 * time.Second); !a.OK || a.Products[0].CompletedUnits != 1 {
		t.Errorf("the audit found %v, and that %d units are sold, want 1", a.Problems, a.Products[0].CompletedUnits)
	}
}

// buildClient generates and compiles the client of the document that an edge serves, and returns the directory of
// order.js.
func buildClient(t *testing.T, document string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Symlink(openAPIModules(t), filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"package.json", "tsconfig.json", "order.ts"} {
		content, err := os.ReadFile(filepath.Join("client", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}

	if out, err := openAPITool(t, dir, "openapi-typescript", document, "--output",
		"schema.ts").CombinedOutput(); err != nil {
		t.Fatalf("openapi-typescript: %v\n%s", err, out)
	}
	if out, err := openAPITool(t, dir, "tsc").CombinedOutput(); err != nil {
		t.Fatalf("tsc: %v\n%s", err, out)
	}
	return dir
}
