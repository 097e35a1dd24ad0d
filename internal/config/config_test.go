package config

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

// values are what vars declares.
type values struct {
	addr, level, name, secret *string
	notice                    *time.Duration
	workers                   *int
}

func vars() (*Set, values) {
	s := New("program")
	return s, values{
		addr:  s.String("T_ADDR", ":8080", "where to listen", Address),
		level: s.String("T_LEVEL", "info", "how much to log", OneOf("info", "warn")),
		name:  s.String("T_NAME", "", "a name"),
		secret: s.Secret("T_SECRET", "a secret", func(v string) error {
			return map[bool]error{true: errors.New("is too short")}[len(v) < 5]
		}),
		notice:  s.Duration("T_NOTICE", 2*time.Second, 0, 10*time.Second, "how long to wait"),
		workers: s.Int("T_WORKERS", 4, 1, 8, "how many"),
	}
}

func TestDefaults(t *testing.T) {
	t.Setenv("T_NAME", "n")
	t.Setenv("T_SECRET", "hunter2")
	t.Setenv("T_LEVEL", "") // as good as not set
	s, v := vars()
	if err := s.Parse(); err != nil {
		t.Fatal(err)
	}
	if *v.addr != ":8080" || *v.level != "info" || *v.name != "n" || *v.secret != "hunter2" ||
		*v.notice != 2*time.Second || *v.workers != 4 {
		t.Errorf("%q %q %q %q %v %d", *v.addr, *v.level, *v.name, *v.secret, *v.notice, *v.workers)
	}
}

// TestNewlineAtTheEnd: a secret that comes from a file is the same with and without the newline at its end.
func TestNewlineAtTheEnd(t *testing.T) {
	t.Setenv("T_NAME", "n\r\n")
	t.Setenv("T_SECRET", "hunter2\n")
	t.Setenv("T_LEVEL", "\n") // as good as not set
	s, v := vars()
	if err := s.Parse(); err != nil {
		t.Fatal(err)
	}
	if *v.name != "n" || *v.secret != "hunter2" || *v.level != "info" {
		t.Errorf("%q %q %q", *v.name, *v.secret, *v.level)
	}
}

func TestValues(t *testing.T) {
	t.Setenv("T_NAME", "n")
	t.Setenv("T_SECRET", "hunter2")
	for _, test := range []struct{ name, value, want string }{
		{"T_ADDR", "127.0.0.1:0", ""},
		{"T_ADDR", "[::1]:65535", ""},
		{"T_ADDR", "8080", "address"},
		{"T_ADDR", ":65536", "address"},
		{"T_ADDR", ":http", "address"},
		{"T_ADDR", "host:", "address"},
		{"T_LEVEL", "warn", ""},
		{"T_LEVEL", "WARN", "info, warn"},
		{"T_NAME", "", "is not set"},
		{"T_SECRET", "", "is not set"},
		{"T_SECRET", "abcd", "is too short"},
		{"T_NOTICE", "0s", ""},
		{"T_NOTICE", "10s", ""},
		{"T_NOTICE", "10001ms", "between 0s and 10s"},
		{"T_NOTICE", "-1s", "between"},
		{"T_NOTICE", "5", `"5" cannot be read`},
		{"T_WORKERS", "1", ""},
		{"T_WORKERS", "8", ""},
		{"T_WORKERS", "0", "0 is not between 1 and 8"},
		{"T_WORKERS", "9", "between"},
		{"T_WORKERS", "x", `"x" cannot be read`},
		{"T_WORKERS", "99999999999999999999", "cannot be read"},
	} {
		t.Run(test.name+"="+test.value, func(t *testing.T) {
			t.Setenv(test.name, test.value)
			s, _ := vars()
			err := s.Parse()
			switch {
			case test.want == "" && err != nil:
				t.Error(err)
			case test.want != "" && (err == nil || !strings.HasPrefix(err.Error(), test.name+": ") ||
				!strings.Contains(err.Error(), test.want)):
				t.Errorf("error %v, want %s: … %s", err, test.name, test.want)
			}
		})
	}
}

func TestAllErrorsAtOnceAndNoSecret(t *testing.T) {
	for name, value := range map[string]string{
		"T_ADDR": "x", "T_LEVEL": "loud", "T_NAME": "", "T_SECRET": "pass", "T_NOTICE": "soon", "T_WORKERS": "0",
	} {
		t.Setenv(name, value)
	}
	s, _ := vars()
	err := s.Parse()
	if err == nil {
		t.Fatal("no error")
	}
	lines := strings.Split(err.Error(), "\n")
	for i, name := range []string{"T_ADDR", "T_LEVEL", "T_NAME", "T_SECRET", "T_NOTICE", "T_WORKERS"} {
		if i >= len(lines) || !strings.HasPrefix(lines[i], name+": ") {
			t.Fatalf("line %d does not name %s:\n%v", i, name, err)
		}
	}
	if strings.Contains(err.Error(), "pass") {
		t.Errorf("the secret is told: %v", err)
	}
}

func TestUsage(t *testing.T) {
	t.Setenv("T_SECRET", "hunter2")
	s, _ := vars()
	s.Optional("T_SPARE", "a spare")
	_ = s.Parse()
	var out bytes.Buffer
	s.Usage(&out, "does things.")
	text := out.String()
	if !strings.HasPrefix(text, "program does things.\n") || strings.Contains(text, "hunter2") {
		t.Errorf("usage:\n%s", text)
	}
	for _, want := range [][]string{
		{"T_ADDR", ":8080", "where to listen"}, {"T_LEVEL", "info", "how much to log"},
		{"T_NAME", "(required)", "a name"},
		{"T_SECRET", "(required)", "a secret"}, {"T_NOTICE", "2s", "how long to wait"}, {"T_WORKERS", "4", "how many"},
		{"T_SPARE", "(none)", "a spare"}, {"And as Go, the AWS SDK", "AWS_REGION"},
	} {
		found := false
		for line := range strings.Lines(text) {
			rest, ok := strings.CutPrefix(strings.TrimSpace(line), want[0])
			for _, part := range want[1:] {
				ok = ok && strings.Contains(rest, part)
			}
			found = found || ok
		}
		if !found {
			t.Errorf("no line has %q:\n%s", want, text)
		}
	}
}

// A password that comes by itself, as secret stores hand it out, becomes part of the address.
func TestPasswords(t *testing.T) {
	for _, test := range []struct{ dsn, redis, password, wantDSN, wantRedis string }{
		{"u@tcp(h:1)/d?tls=true", "rediss://h:1/0", "p", "u:p@tcp(h:1)/d?tls=true", "rediss://:p@h:1/0"},
		{"u@tcp(h:1)/d", "redis://u@h:1,i:2", "p@/:?#% x", "u:p@/:?#% x@tcp(h:1)/d",
			"redis://u:p%40%2F%3A%3F%23%25%20x@h:1,i:2"},
		{"u:q@tcp(h:1)/d", "redis://h:1", "", "u:q@tcp(h:1)/d", "redis://h:1"},
		{"u:q@tcp(h:1)/d", "redis://:q@h:1", "hunter2", "", ""},
		{"tcp(h:1)/d", "redis://u:q@h:1", "hunter2", "", ""},
	} {
		t.Setenv("MYSQL_DSN", test.dsn)
		t.Setenv("REDIS_URL", test.redis)
		t.Setenv("MYSQL_PASSWORD", test.password)
		t.Setenv("REDIS_PASSWORD", test.password)
		s := New("program")
		dsn, redis := s.MySQLDSN(), s.RedisURL()
		err := s.Parse()
		if test.wantDSN == "" {
			if err == nil || !strings.HasPrefix(err.Error(), "MYSQL_PASSWORD: ") ||
				!strings.Contains(err.Error(), "\nREDIS_PASSWORD: ") || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%+v: error %v", test, err)
			}
			continue
		}
		if err != nil || *dsn != test.wantDSN || *redis != test.wantRedis {
			t.Errorf("%+v: %q, %q, %v", test, *dsn, *redis, err)
		}
	}
}
