package main

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/valyala/fasthttp"

	"stampede/internal/problem"
)

// accepted is the code of an order that is promised, and of no problem document.
const accepted problem.Code = "accepted"

// retryAfter is for how many seconds a client is asked to wait before it asks for a new order.
const retryAfter = "1"

// codeValue is the request value under which the code of a problem is kept for the metrics.
const codeValue = "code"

// codes are the codes as request values, made once: sold out is answered to a crowd.
var codes = func() map[problem.Code]any {
	values := map[problem.Code]any{}
	for _, c := range problem.Codes() {
		values[c] = c
	}
	return values
}()

// sendProblem answers with a problem document (RFC 9457) for a code. The detail says what is wrong
// with this request and what to do; it may be empty. The id of the request comes last.
func sendProblem(ctx *fasthttp.RequestCtx, c problem.Code, detail string, extras ...problem.Extra) {
	ctx.Response.ResetBody()
	ctx.SetStatusCode(c.Status())
	ctx.SetContentType(problem.MediaType)
	ctx.Response.AppendBody(problem.Document(c, detail, extras...))
	ctx.Response.AppendBodyString(problem.BeforeID)
	ctx.Response.AppendBody(ctx.Response.Header.Peek(problem.RequestIDHeader))
	ctx.Response.AppendBodyString(problem.AfterID)
	switch c.Status() {
	case http.StatusServiceUnavailable:
		setRetryTime(ctx)
	case http.StatusUnauthorized:
		ctx.Response.Header.Set(fasthttp.HeaderWWWAuthenticate, "Bearer")
	}
	ctx.SetUserValue(codeValue, codes[c])
}

// sendError answers with the problem that an error is.
func sendError(ctx *fasthttp.RequestCtx, err *problem.Error) {
	sendProblem(ctx, err.Code, err.Detail, err.Extras...)
	if err.RetryAfter != "" {
		ctx.Response.Header.Set(fasthttp.HeaderRetryAfter, err.RetryAfter)
	}
}

// setRetryTime asks a client to come back a little later.
func setRetryTime(ctx *fasthttp.RequestCtx) {
	ctx.Response.Header.Set(fasthttp.HeaderRetryAfter, problem.RetryAfter())
}

// sendJSON answers with a value as JSON.
func sendJSON(ctx *fasthttp.RequestCtx, status int, value any) {
	body, err := json.Marshal(value)
	if err != nil {
		panic(fmt.Sprintf("edge: encode answer: %v", err))
	}
	ctx.SetStatusCode(status)
	ctx.SetContentType("application/json")
	ctx.SetBody(body)
}
