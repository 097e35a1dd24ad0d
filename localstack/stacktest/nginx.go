package stacktest

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"stampede/localstack"
)

// nginxConfig passes all requests on to one server, over connections that are kept, and as they come: also headers that
// nginx would drop by itself. Its log has what was passed on, with the status of the answer.
const nginxConfig = `
pid %[1]s/pid;
events { worker_connections 256; }
http {
	log_format passed '$upstream_status $request';
	access_log %[1]s/access.log passed;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	ignore_invalid_headers off;
	upstream behind { server %[3]s; keepalive 8; }
	server {
		listen %[2]s;
		location / {
			proxy_pass http://behind;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_next_upstream off;
		}
	}
}
`

// FramingsThroughNginx sends the requests of AmbiguousFramings to an nginx in front of a server. What nginx takes for
// one request must be one to the server: it must never answer more requests than nginx has passed on.
func FramingsThroughNginx(t *testing.T, addr, line, headers, next string) {
	t.Helper()
	behind := newTap(t, addr)
	front, log := startNginx(t, behind.ln.Addr().String())

	// How many more answers there are than requests that were passed on, as far as it is known. All that came before is
	// counted, since the log is written when nginx is done with a request, which may be after its answer and in the
	// next case.
	more := 0
	check := func(t *testing.T, got []answer) {
		t.Helper()
		difference := func() int { return behind.answers() - len(passedOn(t, log)) }
		// One look decides, since an answer that is seen while its line in the log is read makes another one differ.
		n := difference()
		for end := time.Now().Add(10 * time.Second); n != more && time.Now().Before(end); n = difference() {
			time.Sleep(2 * time.Millisecond)
		}
		if n != more {
			t.Errorf("%d more answers than nginx passed on, the last of which are %q; the client got %v", n-more,
				lastOf(passedOn(t, log)), got)
			more = n
		}
	}

	for _, f := range framings {
		t.Run(f.name, func(t *testing.T) {
			got, err := converse(front, f.raw(line, headers)+next)
			if err != nil {
				t.Fatalf("after %v: %v", got, err)
			}
			check(t, got)
			if f.refused && len(got) > 0 && got[0].status < 400 {
				t.Errorf("answered %v", got)
			}
		})
	}
	got, err := converse(front, next)
	if err != nil || len(got) != 1 || got[0].status != 200 {
		t.Errorf("afterwards an ordinary request is answered with %v, %v", got, err)
	}
	check(t, got)
}

// lastOf is the end of a list that may be long.
func lastOf(lines []string) []string { return lines[max(0, len(lines)-4):] }

// startNginx starts an nginx in front of a server, and returns its address and that of its log.
func startNginx(t *testing.T, behind string) (addr, log string) {
	t.Helper()
	dir := t.TempDir()
	addr = freeAddr(t)
	StartNginx(t, dir, addr, fmt.Sprintf(nginxConfig, dir, addr, behind))
	return addr, filepath.Join(dir, "access.log")
}

func freeAddr(t *testing.T) string {
	t.Helper()
	port, err := localstack.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}

// StartNginx starts an nginx with a configuration, which has it listen at an address and write to nothing but the
// directory.
func StartNginx(t *testing.T, dir, addr, config string) {
	t.Helper()
	path, err := exec.LookPath("nginx")
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/nginx"); err != nil {
			t.Fatal("there is no nginx: scripts/install-deps nginx installs it")
		}
	}
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}

	// The error log comes first: nginx opens it before it reads the configuration.
	server, err := localstack.StartProcess(localstack.ProcessOptions{
		Path: path, Args: []string{"-e", filepath.Join(dir, "error.log"), "-p", dir, "-c", file,
			"-g", "daemon off; master_process off;"},
		LogFile: filepath.Join(dir, "output"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Stop(10 * time.Second) })
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if conn, err := net.Dial("tcp", addr); err == nil {
			_ = conn.Close()
			return
		}
		select {
		case <-server.Done():
			t.Fatalf("nginx ended: %s", server.LogTail())
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("nginx does not listen: %s", server.LogTail())
		}
	}
}

// passedOn returns the lines of nginx's log that tell of requests which went to the server behind it.
func passedOn(t *testing.T, log string) (lines []string) {
	t.Helper()
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "- ") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// tap passes connections on to a server and counts its answers.
type tap struct {
	ln net.Listener

	mu    sync.Mutex
	count int
	conns []net.Conn
	work  sync.WaitGroup
}

func newTap(t *testing.T, target string) *tap {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &tap{ln: ln}
	p.work.Go(func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", target)
			if err != nil {
				_ = client.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, client, server)
			p.mu.Unlock()
			p.serve(client, server)
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		p.mu.Lock()
		for _, c := range p.conns {
			_ = c.Close()
		}
		p.mu.Unlock()
		p.work.Wait()
	})
	return p
}

// serve passes bytes on in both directions until either end closes.
func (p *tap) serve(client, server net.Conn) {
	p.work.Go(func() {
		defer server.Close()
		_, _ = io.Copy(server, client)
	})
	p.work.Go(func() {
		defer client.Close()
		// An answer is counted when it has been passed on to its end.
		_ = readAnswers(io.TeeReader(server, client), func(answer) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.count++
		})
	})
}

func (p *tap) answers() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count
}
