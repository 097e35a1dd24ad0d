// Package problem is how the servers answer what is not what the client asked for: problem documents (RFC 9457) with
// their codes, one reading of bodies that lets nothing ambiguous pass, and the id by which an answer finds its log.
package problem

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
)

// MediaType is the Content-Type of a problem document.
const MediaType = "application/problem+json"

// Code is the stable name of an outcome that is not what the client asked for. Clients branch on it.
type Code string

// The codes of all problem documents that the servers send.
const (
	MalformedRequest     Code = "malformed_request"
	Unauthenticated      Code = "unauthenticated"
	NotFound             Code = "not_found"
	OrderNotFound        Code = "order_not_found"
	OrderNotSeenYet      Code = "order_not_seen_yet"
	ProductNotFound      Code = "product_not_found"
	MethodNotAllowed     Code = "method_not_allowed"
	SoldOut              Code = "sold_out"
	LimitExceeded        Code = "limit_exceeded"
	SaleNotStarted       Code = "sale_not_started"
	SaleEnded            Code = "sale_ended"
	RequestTimeout       Code = "request_timeout"
	BodyTooLarge         Code = "body_too_large"
	HeadersTooLarge      Code = "headers_too_large"
	UnsupportedMediaType Code = "unsupported_media_type"
	InvalidQuantity      Code = "invalid_quantity"
	IdempotencyMismatch  Code = "idempotency_mismatch"
	InternalError        Code = "internal_error"
	NotReady             Code = "not_ready"
	QueueUnavailable     Code = "queue_unavailable"
	StockUnavailable     Code = "stock_unavailable"
	OrdersUnavailable    Code = "orders_unavailable"
	OutcomeUnknown       Code = "outcome_unknown"
	Banned               Code = "banned"
	RateLimited          Code = "rate_limited"
	EmailTaken           Code = "email_taken"
	InvalidEmail         Code = "invalid_email"
	InvalidName          Code = "invalid_name"
	WeakPassword         Code = "weak_password"
	InvalidCredentials   Code = "invalid_credentials"
	InvalidRefreshToken  Code = "invalid_refresh_token"
	UserNotFound         Code = "user_not_found"
	AccountsUnavailable  Code = "accounts_unavailable"
	Forbidden            Code = "forbidden"
	NotOnSale            Code = "not_on_sale"
	NoPointsPrice        Code = "no_points_price"
	InvalidProduct       Code = "invalid_product"
	InvalidRestock       Code = "invalid_restock"
	RestockMismatch      Code = "restock_mismatch"
	TooFewUnits          Code = "too_few_units"
	ProductsUnavailable  Code = "products_unavailable"
	NotPayable           Code = "not_payable"
	NotCancellable       Code = "not_cancellable"
	PaymentNotOffered    Code = "payment_not_offered"
	TooManyPayments      Code = "too_many_payments"
	PaymentNotFound      Code = "payment_not_found"
	ProviderUnavailable  Code = "provider_unavailable"
	PaymentsUnavailable  Code = "payments_unavailable"
	InvalidTopUp         Code = "invalid_topup"
	InvalidRefund        Code = "invalid_refund"
	RefundMismatch       Code = "refund_mismatch"
)

// problems is the one place that maps a code to HTTP: the status, and the title for a person.
var problems = map[Code]struct {
	status int
	title  string
}{
	MalformedRequest:     {http.StatusBadRequest, "The request cannot be read."},
	Unauthenticated:      {http.StatusUnauthorized, "A valid bearer token is required."},
	NotFound:             {http.StatusNotFound, "There is nothing at this address."},
	OrderNotFound:        {http.StatusNotFound, "You have no such order."},
	OrderNotSeenYet:      {http.StatusNotFound, "No such order has been seen yet."},
	ProductNotFound:      {http.StatusNotFound, "There is no such product."},
	MethodNotAllowed:     {http.StatusMethodNotAllowed, "This address does not take that method."},
	SoldOut:              {http.StatusConflict, "The product is sold out."},
	LimitExceeded:        {http.StatusConflict, "You may not buy that many of this product."},
	SaleNotStarted:       {http.StatusConflict, "The sale has not started."},
	SaleEnded:            {http.StatusConflict, "The sale has ended."},
	RequestTimeout:       {http.StatusRequestTimeout, "The request took too long to arrive."},
	BodyTooLarge:         {http.StatusRequestEntityTooLarge, "The request body is too large."},
	HeadersTooLarge:      {http.StatusRequestHeaderFieldsTooLarge, "The request headers are too large."},
	UnsupportedMediaType: {http.StatusUnsupportedMediaType, "The request body must be application/json."},
	InvalidQuantity:      {http.StatusUnprocessableEntity, "The quantity is not possible."},
	IdempotencyMismatch:  {http.StatusUnprocessableEntity, "The idempotency key was used for another request."},
	InternalError:        {http.StatusInternalServerError, "Something went wrong on our side."},
	NotReady:             {http.StatusServiceUnavailable, "This server takes no orders right now."},
	QueueUnavailable:     {http.StatusServiceUnavailable, "Orders cannot be taken right now; nothing was ordered."},
	StockUnavailable:     {http.StatusServiceUnavailable, "The stock cannot be reached right now."},
	OrdersUnavailable:    {http.StatusServiceUnavailable, "Orders cannot be looked up right now."},
	Banned:               {http.StatusForbidden, "You are not admitted."},
	RateLimited:          {http.StatusTooManyRequests, "You have made too many requests."},
	EmailTaken:           {http.StatusConflict, "There is an account with this e-mail address."},
	InvalidEmail:         {http.StatusUnprocessableEntity, "The e-mail address is not valid."},
	InvalidName:          {http.StatusUnprocessableEntity, "The name is not valid."},
	WeakPassword:         {http.StatusUnprocessableEntity, "The password is not acceptable."},
	InvalidCredentials:   {http.StatusUnauthorized, "E-mail address and password do not match."},
	InvalidRefreshToken:  {http.StatusUnauthorized, "The refresh token is not valid; log in again."},
	UserNotFound:         {http.StatusNotFound, "There is no such user."},
	AccountsUnavailable:  {http.StatusServiceUnavailable, "Accounts cannot be reached right now."},
	Forbidden:            {http.StatusForbidden, "You may not do that."},
	NotOnSale:            {http.StatusConflict, "The product is not on sale."},
	NoPointsPrice:        {http.StatusConflict, "The product cannot be paid with points."},
	InvalidProduct:       {http.StatusUnprocessableEntity, "The product is not possible."},
	InvalidRestock:       {http.StatusUnprocessableEntity, "The restock is not possible."},
	RestockMismatch:      {http.StatusConflict, "The restock was applied with other units."},
	TooFewUnits:          {http.StatusConflict, "Fewer units are for sale than are to be taken out."},
	ProductsUnavailable:  {http.StatusServiceUnavailable, "Products cannot be reached right now."},
	NotPayable:           {http.StatusConflict, "The order does not await its payment."},
	NotCancellable:       {http.StatusConflict, "The order cannot be cancelled any more."},
	PaymentNotOffered:    {http.StatusUnprocessableEntity, "The provider does not take this payment."},
	TooManyPayments:      {http.StatusConflict, "There were too many attempts to pay."},
	PaymentNotFound:      {http.StatusNotFound, "You have no such payment."},
	ProviderUnavailable:  {http.StatusServiceUnavailable, "The provider of payments does not answer right now."},
	PaymentsUnavailable:  {http.StatusServiceUnavailable, "Payments cannot be reached right now."},
	InvalidTopUp:         {http.StatusUnprocessableEntity, "Points cannot be bought like this."},
	InvalidRefund:        {http.StatusUnprocessableEntity, "The refund is not possible."},
	RefundMismatch:       {http.StatusConflict, "The refund was made with something else."},
	OutcomeUnknown:       {http.StatusServiceUnavailable, "The order may have been placed; look at its location."},
}

// Codes returns all codes, in no order.
func Codes() []Code { return slices.Collect(maps.Keys(problems)) }

// Status is the status of answers with this code.
func (c Code) Status() int { return problems[c].status }

// Title says to a person what has happened, in one sentence.
func (c Code) Title() string { return problems[c].title }

// Error is why a request is answered with a problem.
type Error struct {
	Code Code
	// Detail says what is wrong with this request and what to do. It may be empty.
	Detail string
	// Extras are members that the document has besides the standard ones.
	Extras []Extra
	// RetryAfter is the value of that header, or empty. An answer of status 503 has one in any case.
	RetryAfter string
}

// Extra is a member of a document.
type Extra struct {
	Name  string
	Value any
}

// New makes an error whose detail may be empty.
func New(c Code, detail string) *Error { return &Error{Code: c, Detail: detail} }

func (e *Error) Error() string { return fmt.Sprintf("%s: %s", e.Code, e.Detail) }

// plain are the documents that say no more than their code, made once: sold out is answered to a crowd.
var plain = func() map[Code][]byte {
	documents := make(map[Code][]byte, len(problems))
	for c := range problems {
		documents[c] = encode(c, "", nil)
	}
	return documents
}()

// Document is a problem document but for its end: BeforeID, the id of the request and AfterID. It may be shared and
// must not be changed.
func Document(c Code, detail string, extras ...Extra) []byte {
	if detail == "" && len(extras) == 0 {
		return plain[c]
	}
	return encode(c, detail, extras)
}

// What stands before and after the id of the request at the end of a document.
const (
	BeforeID = `,"request_id":"`
	AfterID  = `"}`
)

func encode(c Code, detail string, extras []Extra) []byte {
	p := problems[c]
	document := map[string]any{"status": p.status, "title": p.title, "code": c}
	if detail != "" {
		document["detail"] = detail
	}
	for _, e := range extras {
		document[e.Name] = e.Value
	}
	body, err := json.Marshal(document)
	if err != nil {
		panic(fmt.Sprintf("problem: encode %s: %v", c, err))
	}
	return body[:len(body)-1]
}

// retryTimes are for how many seconds a client is asked to wait after a 503.
var retryTimes = []string{"1", "2", "3"}

// RetryAfter is a value of the header of that name. Each client gets one of a few at random, so that a crowd that was
// refused together does not come back together.
func RetryAfter() string { return retryTimes[rand.IntN(len(retryTimes))] }

// IsRetryAfter reports whether a value is one of those.
func IsRetryAfter(value string) bool { return slices.Contains(retryTimes, value) }
