package localstack

import (
	"debug/elf"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// These tests hold the files for containers to what the programs and the documentation say. They run without Docker, so
// none of them shows that the containers start: scripts/compose-smoke does.

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestDockerfile holds it to go.mod, and to what an image has to say of itself.
func TestDockerfile(t *testing.T) {
	t.Parallel()
	text := read(t, "../Dockerfile")
	version := regexp.MustCompile(`(?m)^go (\S+)$`).FindStringSubmatch(read(t, "../go.mod"))[1]
	if !strings.Contains(text, " golang:"+version+"-bookworm AS build\n") {
		t.Errorf("the programs are not built with Go %s, as go.mod says", version)
	}
	for _, m := range regexp.MustCompile(`(?m)^FROM (?:--platform=\S+ )?(\S+)`).FindAllStringSubmatch(text, -1) {
		if image := m[1]; image != "base" && !pinned.MatchString(strings.TrimSuffix(image, "-bookworm")) &&
			!regexp.MustCompile(`@sha256:[0-9a-f]{64}$`).MatchString(image) {
			t.Errorf("%s does not say which version", image)
		}
	}
	for _, s := range []string{":nonroot@", "\nUSER 65532:65532\n", " /etc/ssl/certs/rds.pem\n"} {
		if !strings.Contains(text, s) {
			t.Errorf("there is no %q", s)
		}
	}
	for _, program := range []string{"edge", "shop", "worker", "ctl"} {
		_, stage, found := strings.Cut(text, "FROM base AS "+program+"\n")
		if !found {
			t.Errorf("there is no target %s", program)
		}
		stage, _, _ = strings.Cut(stage, "\nFROM ")
		lines := []string{"COPY --from=build /out/" + program + " /" + program, `ENTRYPOINT ["/` + program + `"]`}
		if program != "ctl" {
			lines = append(lines, `CMD ["/`+program+`", "-healthcheck"]`)
		}
		for _, line := range lines {
			if !strings.Contains(stage, line) {
				t.Errorf("target %s has no %s", program, line)
			}
		}
		if strings.Contains(stage, "USER") {
			t.Errorf("target %s has a user of its own", program)
		}
	}
}

// maxProgram is how many bytes a program may have: what it has, and a little more. Its image has 3 MB besides. That of
// ctl keeps every method of every library, since kong looks methods up by name: of Stripe's that are 7 MB, which are 1
// MB in shop and worker.
var maxProgram = map[string]int64{
	"edge": 21_000_000, "shop": 24_300_000, "worker": 21_600_000, "ctl": 33_300_000,
}

// TestPrograms builds the programs as the Dockerfile does, and starts them where there is nothing else: as a user
// without rights, in a file system that has nothing but the program and that this user cannot write to.
func TestPrograms(t *testing.T) {
	t.Parallel()
	build := regexp.MustCompile(`CGO_ENABLED=0 .* go build -trimpath .* -o /out/ .*`).FindString(read(t,
		"../Dockerfile"))
	if build == "" {
		t.Fatal("the Dockerfile builds nothing")
	}
	root := t.TempDir()
	// With other paths in it everything would be compiled anew.
	build = strings.Replace(build, " -trimpath", "", 1)
	sh := exec.Command("sh", "-c", strings.Replace(build, "/out/", root+"/", 1))
	sh.Dir, sh.Env = "..", append(os.Environ(), "TARGETOS=linux", "TARGETARCH="+runtime.GOARCH, "VERSION=v1.2.3")
	if out, err := sh.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", build, err, out)
	}
	if err := os.Chmod(root, 0o555); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(root, 0o755) })
	for _, program := range []string{"edge", "shop", "worker", "ctl"} {
		file := filepath.Join(root, program)
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s has %.1f MB", program, float64(info.Size())/1e6)
		if info.Size() > maxProgram[program] {
			t.Errorf("%s has %d bytes, more than %d: does it use text/template or reflect's Method?", program,
				info.Size(), maxProgram[program])
		}
		binary, err := elf.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range binary.Progs {
			if part.Type == elf.PT_INTERP || part.Type == elf.PT_DYNAMIC {
				t.Errorf("%s is not static", program)
			}
		}
		binary.Close()

		if runtime.GOOS != "linux" {
			continue
		}
		if out, err := alone(root, program, "--help"); err != nil {
			t.Errorf("%s --help: %v\n%s", program, err, out)
		}
		if program == "ctl" {
			continue
		}
		for status, want := range map[int]string{http.StatusOK: "<nil>",
			http.StatusServiceUnavailable: "exit status 1"} {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(status)
			}))
			addr := server.Listener.Addr().String()
			out, err := alone(root, program, "-healthcheck", "EDGE_ADDR="+addr, "SHOP_ADDR="+addr,
				"ADMIN_ADDR="+addr)
			server.Close()
			if fmt.Sprint(err) != want {
				t.Errorf("%s -healthcheck of a program that answers %d: %v, want %s\n%s", program, status, err, want,
					out)
			}
		}
	}
}

// alone runs a program of a directory that becomes its whole file system, as nobody. It takes root to do so; others run
// it as they are.
func alone(root, program, arg string, env ...string) (string, error) {
	cmd := exec.Command(filepath.Join(root, program), arg)
	cmd.Env = append(env, "REDIS_URL=redis://nowhere:6379", "MYSQL_DSN=nobody@tcp(nowhere:3306)/nothing",
		"JWT_SECRET=0123456789abcdef0123456789abcdef")
	if os.Getuid() == 0 {
		cmd.Path, cmd.Dir = "/"+program, "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
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
	cmd := exec.Command("go", "list", "-e", "-tags", "release", "-deps", "-f", "{{if not .Standard}}{{.Dir}}{{end}}",
		"./edge", "./shop", "./worker", "./ctl")
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
