package main

import (
	"errors"

	"stampede/internal/strictjson"
)

// requestMembers are the names of all members that requests may have. One that is written in another case is refused in
// every request: who sends it means what it names.
var requestMembers = []string{
	"product_id", "quantity",
	"email", "name", "password", "old_password", "new_password", "refresh_token",
	"description", "price", "currency", "stock", "starts_at", "ends_at", "limit_per_user", "state", "units",
}

// checkBody is the one gate for every JSON body. If something is wrong with the body, detail says what.
func checkBody(body []byte, example string) (detail string) {
	err := strictjson.Check(body, requestMembers...)
	switch {
	case errors.Is(err, strictjson.ErrSyntax):
		return notAnObject(example)
	case err != nil:
		return "The body is ambiguous or out of bounds: " + err.Error() + "."
	}
	return ""
}

func notAnObject(example string) string {
	return "The body must be a JSON object such as " + example + "."
}
