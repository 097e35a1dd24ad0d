package main

import (
	"errors"
	"log/slog"
	"runtime/debug"

	"github.com/valyala/fasthttp"

	"stampede/internal/access"
	"stampede/internal/framing"
	"stampede/internal/problem"
	"stampede/internal/telemetry"
	"stampede/internal/token"
)

// errAmbiguous is the error of a request whose end a proxy may see elsewhere.
var errAmbiguous = errors.New("it is ambiguous where the request ends")

// begin names each request, and sees that its answer has what every answer has. It refuses what fasthttp reads although
// its end is ambiguous, and closes the connection: what follows on it may be a request that a client has slipped past a
// proxy.
func (e *Edge) begin(next fasthttp.RequestHandler, m *metrics) fasthttp.RequestHandler {
	refuse := m.measure("none", func(ctx *fasthttp.RequestCtx) {
		sendReadError(ctx, errAmbiguous)
		ctx.SetConnectionClose()
	})
	return func(ctx *fasthttp.RequestCtx) {
		nameRequest(ctx)
		if framing.Ambiguous(ctx.Request.Header.RawHeaders()) {
			refuse(ctx)
		} else {
			next(ctx)
		}
		e.finish(ctx)
	}
}

// survive answers for a handler that panics, which fasthttp by itself would not survive.
func survive(next fasthttp.RequestHandler) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		defer func() {
			if v := recover(); v != nil {
				kind, stack := telemetry.PanicKind(v), debug.Stack()
				if err, ok := v.(error); ok {
					if p, ok := errors.AsType[*loadPanic](err); ok {
						kind, stack = telemetry.PanicKind(p.value), p.stack
					}
				}
				slog.Error("serve: a handler panicked", logID(ctx), "panic", kind, "stack", string(stack))
				sendProblem(ctx, problem.InternalError, "")
			}
		}()
		next(ctx)
	}
}

// header is the header of an answer, as a guard writes to it.
type header struct{ *fasthttp.ResponseHeader }

func (h header) Get(name string) string { return string(h.Peek(name)) }

// admit lets requests through whose client is not banned and does not ask too often.
func (e *Edge) admit(purpose access.Purpose, next fasthttp.RequestHandler) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		if e.screen(ctx, purpose) {
			next(ctx)
		}
	}
}

// screen reports whether a client may ask. If not, it answers the request.
func (e *Edge) screen(ctx *fasthttp.RequestCtx, purpose access.Purpose) bool {
	lines := func(field string) (lines []string) {
		for _, line := range ctx.Request.Header.PeekAll(field) {
			lines = append(lines, string(line))
		}
		return lines
	}
	if err := e.guard.Screen(header{&ctx.Response.Header}, access.AddrOf(ctx.RemoteAddr()), lines,
		purpose); err != nil {
		sendError(ctx, err)
		return false
	}
	return true
}

// forUser lets only requests with a valid token through, and tells the handler whose it is.
func (e *Edge) forUser(next func(*fasthttp.RequestCtx, *token.Claims)) fasthttp.RequestHandler {
	return func(ctx *fasthttp.RequestCtx) {
		who, err := e.guard.User(header{&ctx.Response.Header}, ctx.Request.Header.Peek(fasthttp.HeaderAuthorization))
		if err != nil {
			sendError(ctx, err)
			return
		}
		next(ctx, who)
	}
}
