package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"
)

// A handler that panics with what a client sent tells the log where, and not what.
func TestPanicTellsNoSecret(t *testing.T) {
	logs.Take()
	token := "Bearer abc.def.ghi"
	for _, value := range []any{token, errors.New(token), fmt.Errorf("%q", token), []byte(token)} {
		survive(func(*fasthttp.RequestCtx) { panic(value) })(&fasthttp.RequestCtx{})
		all := strings.Join(logs.Take(), "\n")
		if !strings.Contains(all, "a handler panicked") || strings.Contains(all, "abc.def") {
			t.Errorf("a panic with %T logs %.300s", value, all)
		}
	}
}
