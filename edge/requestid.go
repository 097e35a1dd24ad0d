package main

import (
	"log/slog"

	"github.com/valyala/fasthttp"

	"stampede/internal/problem"
)

var (
	requestIDKey   = []byte(problem.RequestIDHeader)
	traceparentKey = []byte("Traceparent") // as fasthttp keeps it, however it is written
)

// nameRequest gives a request its id, before anything is done about it: the header of the answer is where it is kept.
// It is not inlined, so that the stacks of all connections are no larger for it.
//
//go:noinline
func nameRequest(ctx *fasthttp.RequestCtx) {
	id := problem.NewRequestID(ctx.Request.Header.PeekBytes(traceparentKey))
	ctx.Response.Header.SetCanonical(requestIDKey, id[:])
}

// logID is a request's id as an attribute of a log line.
func logID(ctx *fasthttp.RequestCtx) slog.Attr {
	return slog.String("request_id", string(ctx.Response.Header.Peek(problem.RequestIDHeader)))
}

// keepID keeps the id of a ticket's request, for the log. It is not inlined for the reason that place is not.
//
//go:noinline
func (t *ticket) keepID(ctx *fasthttp.RequestCtx) {
	copy(t.requestID[:], ctx.Response.Header.Peek(problem.RequestIDHeader))
}

// logIDs are the ids of tickets' requests as an attribute of a log line.
func logIDs(tickets []*ticket) slog.Attr {
	ids := make([]string, len(tickets))
	for i, t := range tickets {
		ids[i] = string(t.requestID[:])
	}
	return slog.Any("request_ids", ids)
}
