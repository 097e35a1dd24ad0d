package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"stampede/internal/apitest"
	"stampede/localstack"
)

// command is the edge as a process of its own, with nothing but these variables.
func command(t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append([]string{runEnv + "=1", "GOCOVERDIR=" + os.Getenv("GOCOVERDIR")}, env...)
	return cmd
}

func TestProcess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(10)
	env := append(localstack.SQSEnv(w.SQS.URL()),
		"REDIS_URL="+w.RedisURL, "MYSQL_DSN="+w.DSN, "JWT_SECRET="+apitest.Secret, "SHUTDOWN_NOTICE=0s",
		"EDGE_ADDR=127.0.0.1:0", "ADMIN_ADDR=127.0.0.1:0")
	cmd := command(t, env)
	stderr, err := cmd.StderrPipe()
	w.Must(err)
	w.Must(cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	var started struct{ Msg, Addr, Admin string }
	lines := bufio.NewReader(stderr)
	line, err := lines.ReadBytes('\n')
	w.Must(err)
	if err := json.Unmarshal(line, &started); err != nil || started.Msg != "edge started" {
		t.Fatalf("the first line is %q (%v)", line, err)
	}
	rest := make(chan string, 1)
	go func() {
		all, _ := io.ReadAll(lines)
		rest <- string(all)
	}()

	beside := *w.World
	beside.URL = "http://" + started.Addr
	beside.MustPost(1, p.ID, 1)
	if date, err := http.ParseTime(beside.Get(1, "/api/products").Header.Get("Date")); err != nil ||
		time.Since(date).Abs() > time.Minute {
		t.Errorf("Date: %v, %v", date, err)
	}
	admin := *w.World
	admin.Client = http.DefaultClient // its answers are in no contract
	admin.URL = "http://" + started.Admin
	if r := admin.Send("GET", "/metrics", ""); !strings.Contains(r.Body,
		`stampede_http_requests_total{code="ok",route="POST /api/orders",status="202"} 1`) {
		t.Errorf("the metrics are %.2000s", r.Body)
	}
	if r := admin.Send("GET", "/readyz", ""); r.Status != 200 {
		t.Errorf("got %v", r)
	}
	healthy := func(addr string) error {
		return command(t, append([]string{"EDGE_ADDR=" + addr}, env[:len(env)-2]...), "-healthcheck").Run()
	}
	if err := healthy(started.Addr); err != nil {
		t.Errorf("the health check says %v", err)
	}
	w.Client.CloseIdleConnections()
	admin.Client.CloseIdleConnections()
	w.Must(cmd.Process.Signal(syscall.SIGTERM))
	logged := <-rest
	if err := cmd.Wait(); err != nil || !strings.Contains(logged, `"edge stopped"`) {
		t.Errorf("the process ended with %v and logged %s", err, logged)
	}
	if err := healthy(started.Addr); err == nil {
		t.Error("an edge that is not there is healthy")
	}
}

func TestProcessRefusesToStart(t *testing.T) {
	t.Parallel()
	good := map[string]string{
		"REDIS_URL": "redis://127.0.0.1:1", "MYSQL_DSN": "root:hidden@tcp(127.0.0.1:1)/d", "JWT_SECRET": apitest.Secret,
		"AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "x",
		"AWS_SECRET_ACCESS_KEY": "x",
	}
	for name, c := range map[string]struct{ variable, value, want string }{
		"no Redis":         {"REDIS_URL", "", "REDIS_URL"},
		"no MySQL":         {"MYSQL_DSN", "", "MYSQL_DSN"},
		"a broken DSN":     {"MYSQL_DSN", "root:hidden@tcp(127.0.0.1", "MYSQL_DSN"},
		"a broken URL":     {"REDIS_URL", "redis://:hidden@h:x/0", "REDIS_URL"},
		"a short secret":   {"JWT_SECRET", "hidden", "JWT_SECRET"},
		"an odd level":     {"LOG_LEVEL", "loud", "LOG_LEVEL"},
		"no port":          {"EDGE_ADDR", "localhost", "EDGE_ADDR"},
		"a long notice":    {"SHUTDOWN_NOTICE", "1h", "SHUTDOWN_NOTICE"},
		"nothing at SQS":   {"LOG_LEVEL", "info", "ORDERS_QUEUE"},
		"no region at all": {"AWS_REGION", "", "AWS_REGION"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env := []string{"ADMIN_ADDR=127.0.0.1:0"}
			for variable, value := range good {
				if variable != c.variable {
					env = append(env, variable+"="+value)
				}
			}
			output, err := command(t, append(env, c.variable+"="+c.value)).CombinedOutput()
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || exit.ExitCode() != 1 || !strings.Contains(string(output), c.want) {
				t.Errorf("got %v and %s, want a word about %s", err, output, c.want)
			}
			if strings.Contains(string(output), "hidden") {
				t.Errorf("a secret is shown: %s", output)
			}
		})
	}
	output, _ := command(t, nil, "-help").CombinedOutput()
	for variable := range good {
		if !strings.HasPrefix(variable, "AWS") && !strings.Contains(string(output), variable) {
			t.Errorf("-help says nothing of %s: %s", variable, output)
		}
	}
}
