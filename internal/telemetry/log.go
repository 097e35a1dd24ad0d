package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	// maxLines is how many warnings and errors of the same message a program logs in logWindow. When a dependency is
	// down a crowd meets the same failure, and one line says what thousands would.
	maxLines  = 10
	logWindow = 10 * time.Second
	// maxMessages bounds the messages that are counted one by one. They are constants of the program, some hundred; a
	// library's that are not share one count.
	maxMessages = 1_000
)

// linesDropped counts the lines that were not written.
var linesDropped = prometheus.NewCounter(prometheus.CounterOpts{
	Name: "stampede_log_lines_dropped_total",
	Help: "Log lines that were not written, because the same message had just been written many times.",
})

// SetLog makes the program log JSON lines to stderr from a level on: debug, info, warn or error. Of a warning or error
// that comes again and again, only some lines are written, and the next one says how many were not.
func SetLog(level string, reg prometheus.Registerer) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		panic(err) // a check of the variable comes first
	}
	reg.MustRegister(linesDropped)
	slog.SetDefault(slog.New(newLimited(slog.NewJSONHandler(os.Stderr, handlerOptions(l)))))
}

// handlerOptions are those of every log: an error's text is ErrorText.
func handlerOptions(level slog.Level) *slog.HandlerOptions {
	return &slog.HandlerOptions{Level: level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if err, ok := a.Value.Any().(error); ok {
			a.Value = slog.StringValue(ErrorText(err))
		}
		return a
	}}
}

// ErrorText is what may be logged of an error. MySQL's texts about data and about syntax quote the values of a
// statement; of these only number and SQLSTATE are left.
func ErrorText(err error) string {
	text := err.Error()
	for _, e := range mysqlErrors(err) {
		if quotesValues(e) && e.Message != "" {
			text = strings.ReplaceAll(text, e.Message, "(text left out, since it quotes values)")
		}
	}
	return text
}

// mysqlErrors are the errors of MySQL in an error's tree.
func mysqlErrors(err error) []*mysql.MySQLError {
	if e, ok := err.(*mysql.MySQLError); ok {
		return []*mysql.MySQLError{e}
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil {
			return mysqlErrors(inner)
		}
	case interface{ Unwrap() []error }:
		var all []*mysql.MySQLError
		for _, inner := range e.Unwrap() {
			all = append(all, mysqlErrors(inner)...)
		}
		return all
	}
	return nil
}

// quotesValues reports whether an error is of a kind whose text has values in it: the SQLSTATE classes of data (22) and
// of constraints (23), and the numbers that MySQL gives other classes.
func quotesValues(e *mysql.MySQLError) bool {
	const parseError, truncated, wrongValue = 1064, 1265, 1366
	class := string(e.SQLState[:2])
	return class == "22" || class == "23" || e.Number == parseError || e.Number == truncated || e.Number == wrongValue
}

// limited is a handler that bounds how often a message is logged.
type limited struct {
	slog.Handler
	counts *counts
}

// counts are shared by the handlers that are made of one by adding attributes.
type counts struct {
	mu        sync.Mutex
	byMessage map[string]*count
}

// count is of one message since the window began.
type count struct {
	began   time.Time
	lines   int
	dropped int
}

func newLimited(h slog.Handler) limited {
	return limited{h, &counts{byMessage: make(map[string]*count)}}
}

// Handle writes a line unless there were too many like it, with the trace that it belongs to.
func (l limited) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		ok, dropped := l.counts.admit(r.Message, r.Time)
		if !ok {
			linesDropped.Inc()
			return nil
		}
		if dropped > 0 {
			r = r.Clone()
			r.AddAttrs(slog.Int("lines_dropped", dropped))
		}
	}
	return l.Handler.Handle(ctx, r)
}

// WithAttrs and WithGroup keep the bound, which a plain handler's would lose.
func (l limited) WithAttrs(attrs []slog.Attr) slog.Handler {
	return limited{l.Handler.WithAttrs(attrs), l.counts}
}

// WithGroup is like WithAttrs.
func (l limited) WithGroup(name string) slog.Handler {
	return limited{l.Handler.WithGroup(name), l.counts}
}

// admit reports whether a line may be written, and how many like it were not since the last window.
func (c *counts) admit(message string, now time.Time) (ok bool, dropped int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.byMessage[message]
	if n == nil {
		if len(c.byMessage) >= maxMessages {
			message = ""
			n = c.byMessage[message]
		}
		if n == nil {
			n = &count{began: now}
			c.byMessage[message] = n
		}
	}
	if now.Sub(n.began) >= logWindow {
		dropped = n.dropped
		*n = count{began: now}
	}
	if n.lines >= maxLines {
		n.dropped++
		return false, 0
	}
	n.lines++
	return true, dropped
}

// PanicKind says what a panic was about. Its value may hold what a client sent, unless the runtime made it, whose texts
// name types and numbers only.
func PanicKind(v any) string {
	if err, ok := v.(runtime.Error); ok {
		return err.Error()
	}
	return fmt.Sprintf("%T", v)
}
