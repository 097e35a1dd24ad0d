package problem

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"stampede/internal/order"
	"stampede/internal/strictjson"
)

// requestMembers are the names of all members that requests may have. One that is written in another case is refused in
// every request: who sends it means what it names.
var requestMembers = []string{
	"product_id", "quantity",
	"email", "name", "password", "old_password", "new_password", "refresh_token",
	"description", "price", "currency", "stock", "starts_at", "ends_at", "limit_per_user", "state", "units",
	"payment", "pay_within_s",
	"provider", "method", "points", "amount", "return_units", "note",
	"points_price", "pay_with",
}

// CheckBody is the one gate for every JSON body. If something is wrong with the body, detail says what.
func CheckBody(body []byte, example string) (detail string) {
	err := strictjson.Check(body, requestMembers...)
	switch {
	case errors.Is(err, strictjson.ErrSyntax):
		return NotAnObject(example)
	case err != nil:
		return "The body is ambiguous or out of bounds: " + err.Error() + "."
	}
	return ""
}

// NotAnObject says what a body should have been.
func NotAnObject(example string) string {
	return "The body must be a JSON object such as " + example + "."
}

// IsMediaType reports whether a Content-Type names a media type, with or without parameters.
func IsMediaType(contentType []byte, want string) bool {
	mediaType, _, _ := bytes.Cut(contentType, []byte(";"))
	return bytes.EqualFold(bytes.TrimSpace(mediaType), []byte(want))
}

// ReadFields reads a body that is a JSON object into a struct.
func ReadFields(contentType string, body []byte, fields any, example string) *Error {
	if err := checkTyped(contentType, body, example, "application/json"); err != nil {
		return err
	}
	if err := json.Unmarshal(body, fields); err != nil {
		return New(MalformedRequest, NotAnObject(example))
	}
	return nil
}

// Member is a member of a JSON object, with its value as it was sent.
type Member struct {
	Name  string
	Value json.RawMessage
}

// ReadObject reads a body of one of the media types that is a JSON object.
func ReadObject(contentType string, body []byte, example string, mediaTypes ...string) ([]Member, *Error) {
	if err := checkTyped(contentType, body, example, mediaTypes...); err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(body)) // of what is valid it fails to read nothing
	if begin, _ := decoder.Token(); begin != json.Delim('{') {
		return nil, New(MalformedRequest, NotAnObject(example))
	}
	var members []Member
	for decoder.More() {
		token, _ := decoder.Token()
		m := Member{}
		m.Name, _ = token.(string)
		_ = decoder.Decode(&m.Value)
		members = append(members, m)
	}
	return members, nil
}

// checkTyped is CheckBody for a body that should have one of the media types.
func checkTyped(contentType string, body []byte, example string, mediaTypes ...string) *Error {
	if !slices.ContainsFunc(mediaTypes, func(want string) bool { return IsMediaType([]byte(contentType), want) }) {
		return New(UnsupportedMediaType, "Send the body with Content-Type: "+mediaTypes[0]+".")
	}
	if detail := CheckBody(body, example); detail != "" {
		return New(MalformedRequest, detail)
	}
	return nil
}

// IdempotencyHeader is the header with which a client makes a retry safe.
const IdempotencyHeader = "Idempotency-Key"

// IdempotencyKey reads the values of the header of that name, which is an expired IETF draft (07) that clients know
// from payment services. Without the header the key is empty. If something is wrong with it, detail says what.
func IdempotencyKey[T ~string | ~[]byte](values []T) (key, detail string) {
	if len(values) == 0 {
		return "", ""
	}
	value := values[0]
	if len(values) > 1 || len(value) == 0 || len(value) > order.MaxIdempotencyKeyBytes {
		return "", fmt.Sprintf("Idempotency-Key must be given once and have 1 to %d characters.",
			order.MaxIdempotencyKeyBytes)
	}
	for i := range len(value) {
		if value[i] <= ' ' || value[i] > '~' {
			return "", "Idempotency-Key must be visible ASCII characters without spaces."
		}
	}
	return string(value), ""
}
