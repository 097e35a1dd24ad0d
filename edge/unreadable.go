package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"

	"github.com/valyala/fasthttp"

	"stampede/internal/problem"
)

// sendReadError answers a request that could not be read, or not to its end.
func sendReadError(ctx *fasthttp.RequestCtx, err error) {
	if c, ok := ctx.Conn().(*conn); ok {
		c.unread.Store(true)
	}
	switch kind := readErrorKind(err); kind {
	case problem.BodyTooLarge:
		sendProblem(ctx, kind, fmt.Sprintf("A body may have %d bytes.", maxBodyBytes))
	case problem.HeadersTooLarge:
		sendProblem(ctx, kind, fmt.Sprintf("Request line and headers may have %d bytes.", maxHeaderBytes))
	case problem.RequestTimeout:
		sendProblem(ctx, kind, "")
	default:
		sendProblem(ctx, kind, "This is not a valid HTTP request.")
	}
}

// readErrorKind says in a word of ours why a request could not be read.
func readErrorKind(err error) problem.Code {
	var small *fasthttp.ErrSmallBuffer
	var network net.Error
	switch {
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		return problem.BodyTooLarge
	case errors.As(err, &small):
		return problem.HeadersTooLarge
	case errors.As(err, &network) && network.Timeout():
		return problem.RequestTimeout
	default:
		return problem.MalformedRequest
	}
}

// quietLogger logs that fasthttp had trouble with a connection, and of which kind. Its own text quotes what the client
// sent, secrets included, and is dropped; bad input is not our failure.
type quietLogger struct{}

func (quietLogger) Printf(_ string, args ...any) {
	for _, arg := range args {
		if err, ok := arg.(error); ok {
			slog.Debug("read a request: a connection ended early", "kind", readErrorKind(err))
			return
		}
	}
	slog.Debug("read a request: a connection was not served")
}
