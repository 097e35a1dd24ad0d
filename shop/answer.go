package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"time"

	"stampede/internal/access"
	"stampede/internal/front"
	"stampede/internal/password"
	"stampede/internal/problem"
	"stampede/internal/telemetry"
	"stampede/internal/token"
)

// answer is what a request is answered with. It notes what metrics and traces tell of it.
type answer struct {
	http.ResponseWriter
	status int
	code   problem.Code
}

func (a *answer) WriteHeader(status int) {
	a.status = status
	a.ResponseWriter.WriteHeader(status)
}

// begin is the way of every request of a route: it gets its id and the headers that every answer has, is counted and
// traced, and its client is screened before anything is done.
func (s *Shop) begin(name string, purpose access.Purpose, next handler) http.Handler {
	counted := s.requests.Route(name)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		id := problem.NewRequestID([]byte(r.Header.Get("Traceparent")))
		h := w.Header()
		h[problem.RequestIDHeader] = []string{string(id[:])}
		h.Set("Server", "stampede")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		s.guard.Origins.Allow(h, []byte(r.Header.Get("Origin")))

		a := &answer{ResponseWriter: w, status: http.StatusOK}
		span := telemetry.Begin(telemetry.Place{}, name, telemetry.Server)
		defer span.End()
		if err := s.screened(a, r, purpose, next); err != nil {
			a.sendError(r, err)
		}
		counted.Done(a.status, string(a.code), time.Since(start))
		if span.IsRecording() {
			telemetry.Describe(span, r.Method, name, a.status, string(id[:]), string(a.code))
		}
	})
}

// screened answers a request that has arrived as a whole and whose client may ask. A handler that panics has failed
// like any other.
func (s *Shop) screened(a *answer, r *http.Request, purpose access.Purpose, next handler) (err error) {
	defer func() {
		if v := recover(); v != nil {
			slog.Error("serve: a handler panicked", logID(a), "panic", telemetry.PanicKind(v), "stack",
				string(debug.Stack()))
			err = problem.New(problem.InternalError, "")
		}
	}()
	body, err := readBody(a.ResponseWriter, r, purpose) // through which a body that is too large closes the connection
	if err != nil {
		return err
	}
	if err := s.guard.Screen(a.Header(), remote(r), r.Header.Values, purpose); err != nil {
		return err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return next(a, r)
}

// remote is where a request came from.
func remote(r *http.Request) netip.Addr {
	end, _ := netip.ParseAddrPort(r.RemoteAddr) // net/http made it of an address
	return end.Addr()
}

// forUser lets only requests with a valid token through, and tells the handler whose it is.
func (s *Shop) forUser(next func(http.ResponseWriter, *http.Request, *token.Claims) error) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		who, err := s.guard.User(w.Header(), []byte(r.Header.Get("Authorization")))
		if err != nil {
			return err
		}
		return next(w, r, who)
	}
}

// withoutKey refuses requests with an idempotency key, for what cannot keep the promise that is asked for with one.
func withoutKey(next handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if r.Method == http.MethodPost && len(r.Header.Values(problem.IdempotencyHeader)) > 0 {
			return problem.New(problem.MalformedRequest,
				"Only orders and products are taken with an Idempotency-Key. Leave it out.")
		}
		return next(w, r)
	}
}

// unrouted answers what no route is for: with the methods that the path has on any server, if it has some.
func (s *Shop) unrouted(w http.ResponseWriter, r *http.Request) error {
	allow := front.AllowInstead(r.Method, r.URL.EscapedPath())
	if allow == "" {
		return problem.New(problem.NotFound, "")
	}
	w.Header().Set("Allow", allow)
	if r.Method != http.MethodOptions {
		return problem.New(problem.MethodNotAllowed, "")
	}
	s.guard.Origins.Preflight(w.Header(), []byte(r.Header.Get("Origin")),
		[]byte(r.Header.Get("Access-Control-Request-Method")), allow)
	return nil
}

// unavailable is a failure of ours, with what the client is told of it.
type unavailable struct {
	told *problem.Error
	err  error
}

func (u *unavailable) Error() string { return u.err.Error() }
func (u *unavailable) Unwrap() error { return u.err }

// down makes errors that are ours into what the client is told when they happen on a route.
func down(code problem.Code, detail string, next handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		err := next(w, r)
		switch {
		case err == nil, isType[*problem.Error](err), isType[*unavailable](err):
			return err
		case errors.Is(err, password.ErrBusy):
			return busy()
		}
		return &unavailable{problem.New(code, detail), err}
	}
}

// sendError answers a request with why it failed. This is the one mapping of errors to HTTP.
func (a *answer) sendError(r *http.Request, err error) {
	told, ok := errors.AsType[*problem.Error](err)
	if !ok {
		told = problem.New(problem.InternalError, "")
		if u, ok := errors.AsType[*unavailable](err); ok {
			told = u.told
		}
		slog.Error("serve: a request failed", logID(a), "route", r.Pattern, "error", err)
	}
	a.sendProblem(told)
}

// sendProblem answers with a problem document (RFC 9457), the id of the request at its end.
func (a *answer) sendProblem(p *problem.Error) {
	a.code = p.Code
	h := a.Header()
	h.Set("Content-Type", problem.MediaType)
	switch {
	case p.RetryAfter != "":
		h.Set("Retry-After", p.RetryAfter)
	case p.Code.Status() == http.StatusServiceUnavailable:
		h.Set("Retry-After", problem.RetryAfter())
	case p.Code.Status() == http.StatusUnauthorized:
		h.Set("WWW-Authenticate", "Bearer")
	}
	a.WriteHeader(p.Code.Status())
	_, _ = fmt.Fprint(a, string(problem.Document(p.Code, p.Detail, p.Extras...)), problem.BeforeID,
		h.Get(problem.RequestIDHeader), problem.AfterID)
}

// sendJSON answers with a value as JSON.
func sendJSON(w http.ResponseWriter, status int, value any) error {
	body, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode an answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // whoever does not read it has gone
	return nil
}

// readBody reads a request's body to its end.
func readBody(w http.ResponseWriter, r *http.Request, purpose access.Purpose) ([]byte, error) {
	most := int64(maxBodyBytes)
	if purpose == access.Webhook {
		most = maxNoticeBytes
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	var network net.Error
	switch {
	case err == nil:
		return body, nil
	case isType[*http.MaxBytesError](err):
		return nil, problem.New(problem.BodyTooLarge, fmt.Sprintf("A body may have %d bytes.", most))
	case errors.As(err, &network) && network.Timeout():
		return nil, problem.New(problem.RequestTimeout, "")
	default:
		return nil, problem.New(problem.MalformedRequest, "This is not a valid HTTP request.")
	}
}

func isType[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// readFields reads a JSON object of strings.
func readFields(r *http.Request, fields any, example string) error {
	body, _ := io.ReadAll(r.Body) // which has arrived
	if err := problem.ReadFields(r.Header.Get("Content-Type"), body, fields, example); err != nil {
		return err
	}
	return nil
}

// work is the context of what a request has done. It goes on if the client goes away, who could not tell what became of
// it otherwise.
func (s *Shop) work(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(r.Context()), s.workTimeout)
}

// logID is a request's id as an attribute of a log line.
func logID(w http.ResponseWriter) slog.Attr {
	return slog.String("request_id", w.Header().Get(problem.RequestIDHeader))
}
