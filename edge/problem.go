package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"

	"github.com/valyala/fasthttp"
)

// code is the stable name of an outcome that is not what the client asked for. Clients branch on it.
type code string

// accepted is the code of an order that is promised, and of no problem document.
const accepted code = "accepted"

// The codes of all problem documents that the edge sends.
const (
	malformedRequest     code = "malformed_request"
	unauthenticated      code = "unauthenticated"
	notFound             code = "not_found"
	orderNotFound        code = "order_not_found"
	orderNotSeenYet      code = "order_not_seen_yet"
	productNotFound      code = "product_not_found"
	methodNotAllowed     code = "method_not_allowed"
	soldOut              code = "sold_out"
	limitExceeded        code = "limit_exceeded"
	saleNotStarted       code = "sale_not_started"
	saleEnded            code = "sale_ended"
	requestTimeout       code = "request_timeout"
	bodyTooLarge         code = "body_too_large"
	headersTooLarge      code = "headers_too_large"
	unsupportedMediaType code = "unsupported_media_type"
	invalidQuantity      code = "invalid_quantity"
	idempotencyMismatch  code = "idempotency_mismatch"
	internalError        code = "internal_error"
	notReady             code = "not_ready"
	queueUnavailable     code = "queue_unavailable"
	stockUnavailable     code = "stock_unavailable"
	ordersUnavailable    code = "orders_unavailable"
	outcomeUnknown       code = "outcome_unknown"
	banned               code = "banned"
	rateLimited          code = "rate_limited"
	emailTaken           code = "email_taken"
	invalidEmail         code = "invalid_email"
	invalidName          code = "invalid_name"
	weakPassword         code = "weak_password"
	invalidCredentials   code = "invalid_credentials"
	invalidRefreshToken  code = "invalid_refresh_token"
	userNotFound         code = "user_not_found"
	accountsUnavailable  code = "accounts_unavailable"
	forbidden            code = "forbidden"
	notOnSale            code = "not_on_sale"
	invalidProduct       code = "invalid_product"
	invalidRestock       code = "invalid_restock"
	restockMismatch      code = "restock_mismatch"
	tooFewUnits          code = "too_few_units"
	productsUnavailable  code = "products_unavailable"
)

// problems is the one place that maps a code to HTTP: the status, and the title for a person.
var problems = map[code]struct {
	status int
	title  string
}{
	malformedRequest:     {http.StatusBadRequest, "The request cannot be read."},
	unauthenticated:      {http.StatusUnauthorized, "A valid bearer token is required."},
	notFound:             {http.StatusNotFound, "There is nothing at this address."},
	orderNotFound:        {http.StatusNotFound, "You have no such order."},
	orderNotSeenYet:      {http.StatusNotFound, "No such order has been seen yet."},
	productNotFound:      {http.StatusNotFound, "There is no such product."},
	methodNotAllowed:     {http.StatusMethodNotAllowed, "This address does not take that method."},
	soldOut:              {http.StatusConflict, "The product is sold out."},
	limitExceeded:        {http.StatusConflict, "You may not buy that many of this product."},
	saleNotStarted:       {http.StatusConflict, "The sale has not started."},
	saleEnded:            {http.StatusConflict, "The sale has ended."},
	requestTimeout:       {http.StatusRequestTimeout, "The request took too long to arrive."},
	bodyTooLarge:         {http.StatusRequestEntityTooLarge, "The request body is too large."},
	headersTooLarge:      {http.StatusRequestHeaderFieldsTooLarge, "The request headers are too large."},
	unsupportedMediaType: {http.StatusUnsupportedMediaType, "The request body must be application/json."},
	invalidQuantity:      {http.StatusUnprocessableEntity, "The quantity is not possible."},
	idempotencyMismatch:  {http.StatusUnprocessableEntity, "The idempotency key was used for another request."},
	internalError:        {http.StatusInternalServerError, "Something went wrong on our side."},
	notReady:             {http.StatusServiceUnavailable, "This server takes no orders right now."},
	queueUnavailable:     {http.StatusServiceUnavailable, "Orders cannot be taken right now; nothing was ordered."},
	stockUnavailable:     {http.StatusServiceUnavailable, "The stock cannot be reached right now."},
	ordersUnavailable:    {http.StatusServiceUnavailable, "Orders cannot be looked up right now."},
	banned:               {http.StatusForbidden, "You are not admitted."},
	rateLimited:          {http.StatusTooManyRequests, "You have made too many requests."},
	emailTaken:           {http.StatusConflict, "There is an account with this e-mail address."},
	invalidEmail:         {http.StatusUnprocessableEntity, "The e-mail address is not valid."},
	invalidName:          {http.StatusUnprocessableEntity, "The name is not valid."},
	weakPassword:         {http.StatusUnprocessableEntity, "The password is not acceptable."},
	invalidCredentials:   {http.StatusUnauthorized, "E-mail address and password do not match."},
	invalidRefreshToken:  {http.StatusUnauthorized, "The refresh token is not valid; log in again."},
	userNotFound:         {http.StatusNotFound, "There is no such user."},
	accountsUnavailable:  {http.StatusServiceUnavailable, "Accounts cannot be reached right now."},
	forbidden:            {http.StatusForbidden, "You may not do that."},
	notOnSale:            {http.StatusConflict, "The product is not on sale."},
	invalidProduct:       {http.StatusUnprocessableEntity, "The product is not possible."},
	invalidRestock:       {http.StatusUnprocessableEntity, "The restock is not possible."},
	restockMismatch:      {http.StatusConflict, "The restock was applied with other units."},
	tooFewUnits:          {http.StatusConflict, "Fewer units are for sale than are to be taken out."},
	productsUnavailable:  {http.StatusServiceUnavailable, "Products cannot be reached right now."},
	outcomeUnknown:       {http.StatusServiceUnavailable, "The order may have been placed; look at its location."},
}

// retryAfter is for how many seconds a client is asked to wait before it asks for a new order.
const retryAfter = "1"

// retryTimes are for how many seconds a client is asked to wait after a 503. Each gets one of them at random, so that a
// crowd that was refused together does not come back together.
var retryTimes = []string{"1", "2", "3"}

func setRetryTime(ctx *fasthttp.RequestCtx) {
	ctx.Response.Header.Set(fasthttp.HeaderRetryAfter, retryTimes[rand.IntN(len(retryTimes))])
}

// extra is a member that a problem document has besides the standard ones.
type extra struct {
	name  string
	value any
}

// plainProblems are the documents that say no more than their code, and the code as a request's value, made once: sold
// out is answered to a crowd.
var plainProblems = func() map[code]plainProblem {
	plain := make(map[code]plainProblem, len(problems))
	for c := range problems {
		plain[c] = plainProblem{problems[c].status, problemDocument(c, "", nil), c}
	}
	return plain
}()

type plainProblem struct {
	status int
	body   []byte
	code   any
}

func problemDocument(c code, detail string, extras []extra) []byte {
	p := problems[c]
	document := map[string]any{"status": p.status, "title": p.title, "code": c}
	if detail != "" {
		document["detail"] = detail
	}
	for _, e := range extras {
		document[e.name] = e.value
	}
	body, err := json.Marshal(document)
	if err != nil {
		panic(fmt.Sprintf("edge: encode problem %s: %v", c, err))
	}
	return body
}

// sendProblem answers with a problem document (RFC 9457) for a code. The detail says what is wrong
// with this request and what to do; it may be empty. The id of the request comes last.
func sendProblem(ctx *fasthttp.RequestCtx, c code, detail string, extras ...extra) {
	p := plainProblems[c]
	if detail != "" || len(extras) > 0 {
		p.body = problemDocument(c, detail, extras)
	}
	ctx.Response.ResetBody()
	ctx.SetStatusCode(p.status)
	ctx.SetContentType("application/problem+json")
	ctx.Response.AppendBody(p.body[:len(p.body)-1])
	ctx.Response.AppendBodyString(`,"request_id":"`)
	ctx.Response.AppendBody(ctx.Response.Header.Peek(requestIDHeader))
	ctx.Response.AppendBodyString(`"}`)
	switch p.status {
	case http.StatusServiceUnavailable:
		setRetryTime(ctx)
	case http.StatusUnauthorized:
		ctx.Response.Header.Set(fasthttp.HeaderWWWAuthenticate, "Bearer")
	}
	ctx.SetUserValue(codeValue, p.code)
}

// codeValue is the request value under which the code of a problem is kept for the metrics.
const codeValue = "code"
