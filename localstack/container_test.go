package localstack

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// These tests hold the files for containers to what the Go code and the documentation say, as text: they run without
// Docker, so none of them shows that the containers start.

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// block returns the lines below "key:" at this indentation, which are indented further.
func block(t *testing.T, text, indent, key string) string {
	t.Helper()
	_, rest, found := strings.Cut("\n"+text, "\n"+indent+key+":")
	if !found {
		t.Fatalf("there is no %s", key)
	}
	_, rest, _ = strings.Cut(rest, "\n")
	var lines []string
	for line := range strings.Lines(rest) {
		if strings.TrimSpace(line) != "" && !strings.HasPrefix(line, indent+" ") {
			break
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "")
}

func TestCompose(t *testing.T) {
	text := read(t, "../docker-compose.yml")

	// The variables of the programs, and no others.
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^  ([A-Z_]+): `).FindAllStringSubmatch(block(t, text, "", "x-environment"), -1) {
		names = append(names, m[1])
	}
	want := "REDIS_URL MYSQL_DSN ORDERS_QUEUE ORDERS_DLQ AWS_REGION AWS_ENDPOINT_URL_SQS AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("the common environment has %s\nwant %s", got, want)
	}
	for _, line := range []string{"ORDERS_QUEUE: " + QueueName, "ORDERS_DLQ: " + DLQName, "AWS_REGION: " + Region} {
		if !strings.Contains(text, "  "+line+"\n") {
			t.Errorf("there is no %q", line)
		}
	}
	if !strings.Contains(text, "@tcp(mysql:3306)/"+DatabaseName+`"`) {
		t.Errorf("MYSQL_DSN does not lead to database %s", DatabaseName)
	}

	services := block(t, text, "", "services")
	for service, contents := range map[string][]string{
		"redis":      {"image: redis:8\n", "--appendonly, \"yes\"", "noeviction", "healthcheck:", "restart: on-failure:"},
		"mysql":      {"image: mysql:8.4\n", "healthcheck:", "restart: on-failure:"},
		"localstack": {"image: localstack/localstack:4.14.0\n", "SERVICES: sqs", "./localstack/init/ready.d:/etc/localstack/init/ready.d", "--queue-name " + QueueName, "restart: on-failure:"},
		"migrate":    {"target: ctl", "command: [migrate]", "service_healthy", "restart: on-failure:"},
		"edge":       {"target: edge", "JWT_SECRET: ", "service_completed_successfully", "<<: *needs", "<<: *limits"},
		"worker":     {"target: worker", "replicas: 2", "service_completed_successfully", "<<: *needs", "<<: *limits"},
		"ctl":        {"target: ctl", "profiles: [tools]"},
	} {
		body := block(t, services, "  ", service)
		for _, s := range contents {
			if !strings.Contains(body, s) {
				t.Errorf("service %s has no %q", service, s)
			}
		}
	}

	// No port is open to other machines.
	ports := regexp.MustCompile(`(?m)^ +ports:\n((?: +- .*\n)+)`).FindAllStringSubmatch(text, -1)
	if len(ports) == 0 {
		t.Error("no port is published")
	}
	for _, m := range ports {
		for line := range strings.Lines(m[1]) {
			if !strings.HasPrefix(strings.Trim(strings.TrimSpace(line), `- "'`), "127.0.0.1:") {
				t.Errorf("port %s is open to other machines", strings.TrimSpace(line))
			}
		}
	}

	// Secrets come from outside, and whoever has none is told how to make one.
	for _, name := range []string{"JWT_SECRET", "MYSQL_PASSWORD"} {
		for _, m := range regexp.MustCompile(`(?m)^[^#\n]*`+name+`: .*$`).FindAllString(text, -1) {
			if !strings.Contains(m, "${"+name+":?") || !strings.Contains(m, "openssl rand -hex") {
				t.Errorf("%s does not come from the environment: %s", name, m)
			}
		}
	}
	if m := regexp.MustCompile(`[0-9a-fA-F]{16}`).FindString(text); m != "" {
		t.Errorf("%s looks like a secret", m)
	}
}

func TestDockerfile(t *testing.T) {
	text := read(t, "../Dockerfile")
	for _, s := range []string{"FROM golang:1.26 AS build", "CGO_ENABLED=0", "-trimpath", ":nonroot AS base"} {
		if !strings.Contains(text, s) {
			t.Errorf("there is no %q", s)
		}
	}
	for _, program := range []string{"edge", "worker", "ctl"} {
		_, stage, found := strings.Cut(text, "FROM base AS "+program+"\n")
		if !found {
			t.Errorf("there is no target %s", program)
		}
		stage, _, _ = strings.Cut(stage, "\nFROM ")
		if !strings.Contains(stage, `ENTRYPOINT ["/`+program+`"]`) {
			t.Errorf("target %s does not run %s", program, program)
		}
		if program != "ctl" && !strings.Contains(stage, `CMD ["/`+program+`", "-healthcheck"]`) {
			t.Errorf("target %s has no health check", program)
		}
	}
}

// What the programs are built from has to be among what .dockerignore lets through, and nothing that is private.
func TestDockerignore(t *testing.T) {
	var allowed []string
	for line := range strings.Lines(read(t, "../.dockerignore")) {
		if name, found := strings.CutPrefix(strings.TrimSpace(line), "!"); found {
			allowed = append(allowed, name)
		}
	}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	// -e: this test is not about whether the programs can be built.
	cmd := exec.Command("go", "list", "-e", "-deps", "-f", "{{if not .Standard}}{{.Dir}}{{end}}", "./edge", "./worker", "./ctl")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range strings.Fields(string(out)) {
		path, err := filepath.Rel(root, dir)
		if err != nil || strings.HasPrefix(path, "..") {
			continue // another module
		}
		top, _, _ := strings.Cut(path, string(filepath.Separator))
		ok := false
		for _, name := range allowed {
			ok = ok || name == top
		}
		if !ok {
			t.Errorf("the programs are built from %s, which .dockerignore keeps out", path)
		}
	}
}

// TestQueuesScript runs the script of LocalStack with a stand-in for awslocal that notes what it is asked for.
func TestQueuesScript(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash")
	}
	script := "init/ready.d/queues.sh"
	if info, err := os.Stat(script); err != nil || info.Mode()&0o111 == 0 {
		t.Errorf("LocalStack runs only what is executable: %v, %v", info.Mode(), err)
	}
	for _, exists := range []bool{false, true} {
		dir := t.TempDir()
		stub(t, dir, "awslocal", `
			case "$2" in
			create-queue) if [ -n "$EXISTS" ]; then exit 254; fi; echo "$4" "$6" >>"$CALLS" ;;
			set-queue-attributes) echo "${4#url-of-}" "$6" >>"$CALLS" ;;
			get-queue-url) echo "url-of-$4" ;;
			get-queue-attributes) echo "arn-of-${4#url-of-}" ;;
			*) exit 1 ;;
			esac`)
		calls := filepath.Join(dir, "calls")
		cmd := exec.Command(bash, script)
		cmd.Env = []string{"PATH=" + dir, "CALLS=" + calls}
		if exists {
			cmd.Env = append(cmd.Env, "EXISTS=yes")
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v:\n%s", err, out)
		}

		queues := map[string]map[string]string{}
		last := ""
		for line := range strings.Lines(read(t, calls)) {
			name, attributes, _ := strings.Cut(strings.TrimSpace(line), " ")
			var parsed map[string]string
			if err := json.Unmarshal([]byte(attributes), &parsed); err != nil {
				t.Fatalf("the attributes of %s are %s: %v", name, attributes, err)
			}
			queues[name] = parsed
			last = name
		}
		if len(queues) != 2 || queues[QueueName] == nil || queues[DLQName] == nil {
			t.Fatalf("the script makes %v", queues)
		}
		if last != QueueName {
			t.Errorf("%s is made last; whoever finds %s must find everything", last, QueueName)
		}
		queues[DLQName]["QueueArn"] = "arn-of-" + DLQName
		checkQueueAttributes(t, queues[QueueName], queues[DLQName])
	}
}

// stub writes a shell script that stands in for a program.
func stub(t *testing.T, dir, name, script string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
}
