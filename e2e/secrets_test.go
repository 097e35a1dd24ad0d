package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// used are the secrets that the tests have sent and were sent.
var used secrets

type secrets struct {
	mu    sync.Mutex
	known []string
}

// secretMembers are those of a body, of a request or of an answer, that nobody else may see.
var secretMembers = []string{"password", "current_password", "new_password", "old_password", "access_token",
	"refresh_token"}

// add keeps the secrets of a body.
func (s *secrets) add(body string) {
	if !strings.Contains(body, "password") && !strings.Contains(body, "_token") {
		return
	}
	var members map[string]any
	if json.Unmarshal([]byte(body), &members) != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range secretMembers {
		if secret, _ := members[name].(string); secret != "" && !slices.Contains(s.known, secret) {
			s.known = append(s.known, secret)
		}
	}
}

// in returns a secret that a log holds: one of those in bodies, any token, which begins as all that are signed do, or
// one in the environment of the program that wrote it.
func (s *secrets) in(log []byte, env []string) string {
	s.mu.Lock()
	all := append([]string{"eyJhbGciOi"}, s.known...)
	s.mu.Unlock()
	for _, variable := range env {
		name, value, _ := strings.Cut(variable, "=")
		switch name {
		case "JWT_SECRET":
			all = append(all, strings.Split(value, ",")...)
		case "MYSQL_PASSWORD", "REDIS_PASSWORD", "AWS_SECRET_ACCESS_KEY":
			all = append(all, value)
		case "MYSQL_DSN":
			if user, _, ok := strings.Cut(value, "@tcp("); ok {
				_, password, _ := strings.Cut(user, ":")
				all = append(all, password)
			}
		}
	}
	for _, secret := range all {
		// A word such as the local stack's "local" is no secret, and may be anywhere.
		if len(secret) > len("hunter") && bytes.Contains(log, []byte(secret)) {
			return secret
		}
	}
	return ""
}

// TestLogOfMalformedRequests has edge and shop log all that they would ever log, while clients send what cannot be
// read. That no secret is in their logs is looked at when they end, as it is of every program.
func TestLogOfMalformedRequests(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.env = append(s.env, "LOG_LEVEL=debug")
	edge, shop := s.startEdge(), s.startShop()
	login := `{"email":"ada@example.org","password":"seven quiet otters knit"}`
	used.add(login)
	head := "POST /api/login HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer " + s.token(1) + "\r\n"
	texts := []string{
		head + "no header at all\r\n\r\n" + login,
		head + "Content-Length: none\r\n\r\n" + login,
		head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n" + login,
		head + "X-Long: " + strings.Repeat("x", 10_000) + "\r\n\r\n",
		s.token(1) + " " + login + "\r\n\r\n",
	}
	for _, address := range []string{edge.addr, shop.addr} {
		for _, text := range texts {
			conn, err := net.DialTimeout("tcp", address, 10*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(conn, text); err != nil {
				t.Error(err)
			}
			if answer, _ := io.ReadAll(conn); !bytes.HasPrefix(answer, []byte("HTTP/1.1 4")) {
				t.Errorf("%.60q is answered with %.60q", text, answer)
			}
			conn.Close()
		}
	}
}
