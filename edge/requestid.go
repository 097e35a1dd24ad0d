package main

import (
	"encoding/binary"
	"encoding/hex"
	"log/slog"
	"math/rand/v2"

	"github.com/valyala/fasthttp"
)

// requestIDHeader names a request in its answer. The id is there before anything is done about the request, and the
// header of the answer is where it is kept.
const requestIDHeader = "Stampede-Request-Id"

var (
	requestIDKey   = []byte(requestIDHeader)
	traceparentKey = []byte("Traceparent") // as fasthttp keeps it, however it is written
)

// traceIDBytes is the length of a trace id, and so of a request's: 32 hexadecimal digits.
const traceIDBytes = 16

// requestID is an id as it is written.
type requestID [2 * traceIDBytes]byte

// nameRequest gives a request its id: the trace id that the client sent, or a random one. It is not inlined, so that
// the stacks of all connections are no larger for it.
//
//go:noinline
func nameRequest(ctx *fasthttp.RequestCtx) {
	var id requestID
	if sent := traceID(ctx.Request.Header.PeekBytes(traceparentKey)); sent != nil {
		copy(id[:], sent)
	} else {
		// These numbers are random enough to be unique, and cost a few nanoseconds.
		var raw [traceIDBytes]byte
		binary.NativeEndian.PutUint64(raw[:8], rand.Uint64())
		binary.NativeEndian.PutUint64(raw[8:], rand.Uint64())
		hex.Encode(id[:], raw[:])
	}
	ctx.Response.Header.SetCanonical(requestIDKey, id[:])
}

// traceID returns the trace id of a traceparent header (W3C Trace Context), or nil if that is not valid. Later versions
// of the header may go on after what the first one has.
func traceID(traceparent []byte) []byte {
	const length = len("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	switch {
	case len(traceparent) < length, string(traceparent[:2]) == "ff":
		return nil
	case len(traceparent) > length && (string(traceparent[:2]) == "00" || traceparent[length] != '-'):
		return nil
	}
	trace, parent := traceparent[3:35], traceparent[36:52]
	if traceparent[2] != '-' || traceparent[35] != '-' || traceparent[52] != '-' ||
		!isHex(traceparent[:2]) || !isHex(trace) || !isHex(parent) || !isHex(traceparent[53:length]) ||
		isZero(trace) || isZero(parent) {
		return nil
	}
	return trace
}

// isHex reports whether all digits are hexadecimal, with small letters.
func isHex(digits []byte) bool {
	for _, d := range digits {
		if (d < '0' || d > '9') && (d < 'a' || d > 'f') {
			return false
		}
	}
	return true
}

func isZero(digits []byte) bool {
	for _, d := range digits {
		if d != '0' {
			return false
		}
	}
	return true
}

// logID is a request's id as an attribute of a log line.
func logID(ctx *fasthttp.RequestCtx) slog.Attr {
	return slog.String("request_id", string(ctx.Response.Header.Peek(requestIDHeader)))
}

// keepID keeps the id of a ticket's request, for the log. It is not inlined for the reason that place is not.
//
//go:noinline
func (t *ticket) keepID(ctx *fasthttp.RequestCtx) {
	copy(t.requestID[:], ctx.Response.Header.Peek(requestIDHeader))
}

// logIDs are the ids of tickets' requests as an attribute of a log line.
func logIDs(tickets []*ticket) slog.Attr {
	ids := make([]string, len(tickets))
	for i, t := range tickets {
		ids[i] = string(t.requestID[:])
	}
	return slog.Any("request_ids", ids)
}
