// Package config reads a program's configuration from the environment, and from nothing else. Every
// error names its variable, and --help prints all variables with their defaults.
package config

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Set is the set of variables that a program reads. Declare them, then call Parse once.
type Set struct {
	program string
	flags   *flag.FlagSet // does the conversions; a variable is a flag by the variable's name
	order   []string
	rules   map[string]func() error
	// optional are the variables that may be empty.
	optional map[string]bool
}

// New makes an empty set for a program of this name.
func New(program string) *Set {
	flags := flag.NewFlagSet(program, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	return &Set{program: program, flags: flags, rules: map[string]func() error{}, optional: map[string]bool{}}
}

// String declares a variable. Without a default it must be set.
func (s *Set) String(name, fallback, usage string, checks ...func(string) error) *string {
	p := s.flags.String(name, fallback, usage)
	s.add(name, func() error {
		if *p == "" {
			return errors.New("is not set")
		}
		for _, check := range checks {
			if err := check(*p); err != nil {
				return err
			}
		}
		return nil
	})
	return p
}

// Secret declares a variable that must be set and whose value is never printed, nor may its checks repeat it.
func (s *Set) Secret(name, usage string, checks ...func(string) error) *string {
	return s.String(name, "", usage, checks...)
}

// Optional declares a variable that need not be set, and that has no default.
func (s *Set) Optional(name, usage string, checks ...func(string) error) *string {
	p := s.flags.String(name, "", usage)
	s.optional[name] = true
	s.add(name, func() error {
		for _, check := range checks {
			if *p == "" {
				break
			}
			if err := check(*p); err != nil {
				return err
			}
		}
		return nil
	})
	return p
}

// Duration declares a variable such as 20s, between two bounds.
func (s *Set) Duration(name string, fallback, low, high time.Duration, usage string) *time.Duration {
	p := s.flags.Duration(name, fallback, usage)
	s.add(name, func() error {
		if *p < low || *p > high {
			return fmt.Errorf("%s is not between %s and %s", *p, low, high)
		}
		return nil
	})
	return p
}

// Int declares a whole number between two bounds.
func (s *Set) Int(name string, fallback, low, high int, usage string) *int {
	p := s.flags.Int(name, fallback, usage)
	s.add(name, func() error {
		if *p < low || *p > high {
			return fmt.Errorf("%d is not between %d and %d", *p, low, high)
		}
		return nil
	})
	return p
}

// Bool declares a variable that is true or false, and false unless it is set.
func (s *Set) Bool(name, usage string) *bool {
	p := s.flags.Bool(name, false, usage)
	s.add(name, func() error { return nil })
	return p
}

func (s *Set) add(name string, rule func() error) {
	s.order = append(s.order, name)
	s.rules[name] = rule
}

// Parse reads the environment and checks every variable. The error holds a line for each that is wrong.
func (s *Set) Parse() error {
	var errs []error
	for _, name := range s.order {
		err := error(nil)
		// A value that was read from a file often has the newline at the file's end.
		if value := strings.TrimRight(os.Getenv(name), "\r\n"); value != "" {
			if err = s.flags.Set(name, value); err != nil {
				// A secret does not come here: it is a string, and every value is one.
				err = fmt.Errorf("%q cannot be read: %w", value, err)
			}
		}
		if err == nil {
			err = s.rules[name]()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// Usage writes every variable with its default and meaning.
func (s *Set) Usage(w io.Writer, about string) {
	fmt.Fprintf(w, "%s %s\n\nEnvironment variables:\n\n", s.program, about)
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, name := range s.order {
		f := s.flags.Lookup(name)
		fallback := f.DefValue
		switch {
		case s.optional[name]:
			fallback = "(none)"
		case fallback == "":
			fallback = "(required)"
		}
		fmt.Fprintf(tab, "  %s\t%s\t%s\n", name, fallback, f.Usage)
	}
	tab.Flush()
	fmt.Fprint(w, "\nAnd as Go, the AWS SDK and OpenTelemetry's SDK read them: GOMEMLIMIT, GOGC; AWS_REGION, "+
		"AWS_ENDPOINT_URL_SQS,\ncredentials (AWS_…); OTEL_….\n")
}

// OneOf is a check that a value is one of a few words.
func OneOf(words ...string) func(string) error {
	return func(value string) error {
		for _, word := range words {
			if value == word {
				return nil
			}
		}
		return fmt.Errorf("%q is not one of %s", value, strings.Join(words, ", "))
	}
}

// Address is a check that a value is an address to listen on.
func Address(value string) error {
	_, port, err := net.SplitHostPort(value)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("%q is not an address such as :8080 or 127.0.0.1:8080", value)
	}
	return nil
}

// The variables that edge, worker and ctl have in common. The packages that use a value check it.

// RedisURL declares REDIS_URL and REDIS_PASSWORD, which becomes part of it.
func (s *Set) RedisURL() *string {
	u := s.Secret("REDIS_URL", "redis://[user:password@]host:port[/db], rediss:// for TLS; several hosts, "+
		"comma-separated, mean Cluster")
	s.Optional("REDIS_PASSWORD", "the password, if REDIS_URL has none", func(password string) error {
		scheme, rest, found := strings.Cut(*u, "://")
		if !found {
			return nil // what is wrong with the URL is said elsewhere
		}
		hosts, _, _ := strings.Cut(rest, "/")
		user, _, found := strings.Cut(hosts, "@")
		if !found {
			user, rest = "", "@"+rest
		} else if strings.Contains(user, ":") {
			return errors.New("is set, and REDIS_URL has a password as well")
		}
		*u = scheme + "://" + user + url.UserPassword("", password).String() + rest[len(user):]
		return nil
	})
	return u
}

// MySQLDSN declares MYSQL_DSN and MYSQL_PASSWORD, which becomes part of it.
func (s *Set) MySQLDSN() *string {
	dsn := s.Secret("MYSQL_DSN", "user[:password]@tcp(host:port)/database")
	s.Optional("MYSQL_PASSWORD", "the password, if MYSQL_DSN has none", func(password string) error {
		// As the driver reads it, the user ends at the last @ before the last /.
		at := strings.LastIndexByte((*dsn)[:max(strings.LastIndexByte(*dsn, '/'), 0)], '@')
		if at < 0 {
			return errors.New("is set, but MYSQL_DSN has no user")
		}
		if strings.Contains((*dsn)[:at], ":") {
			return errors.New("is set, and MYSQL_DSN has a password as well")
		}
		*dsn = (*dsn)[:at] + ":" + password + (*dsn)[at:]
		return nil
	})
	return dsn
}

// MySQLSettings declares MYSQL_LOCAL and MYSQL_ALLOW_GALERA, which say what MySQL's settings may be.
func (s *Set) MySQLSettings() (local, allowGalera *bool) {
	return s.Bool("MYSQL_LOCAL", "true: MySQL is for development, and what a power cut takes from it is missed "+
			"by nobody"),
		s.Bool("MYSQL_ALLOW_GALERA", "true: MySQL may be a node of a Galera cluster, which may lose committed orders")
}

// Queues declares ORDERS_QUEUE and ORDERS_DLQ.
func (s *Set) Queues() (name, dlq *string) {
	return s.String("ORDERS_QUEUE", "orders", "name of the queue of orders"),
		s.String("ORDERS_DLQ", "orders-dlq", "name of its dead-letter queue")
}

// Traces declares OTEL_EXPORTER_OTLP_ENDPOINT, which OpenTelemetry's SDK reads by itself.
func (s *Set) Traces() {
	s.Optional("OTEL_EXPORTER_OTLP_ENDPOINT",
		"where traces go, by OTLP over HTTP, such as http://collector:4318; none are made without it",
		func(value string) error {
			if u, err := url.Parse(value); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
				return errors.New("is not a URL such as http://collector:4318")
			}
			return nil
		})
}

// AdminAddr declares ADMIN_ADDR.
func (s *Set) AdminAddr() *string {
	return s.String("ADMIN_ADDR", ":9090", "address of metrics, profiles and health, for operators only", Address)
}

// LogLevel declares LOG_LEVEL.
func (s *Set) LogLevel() *string {
	return s.String("LOG_LEVEL", "info", "debug, info, warn or error", OneOf("debug", "info", "warn", "error"))
}
