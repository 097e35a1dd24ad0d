package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"stampede/internal/apitest"
	"stampede/internal/order"
	"stampede/internal/problem"
	"stampede/internal/token"
)

// TestBadInput sends what no client should. Every answer must be the right problem document, none may cost
// stock or be logged as our failure, and the edge must be as good as before. It looks at the log, so it is
// not parallel.
func TestBadInput(t *testing.T) {
	w := newWorld(t, func(e *Edge) { e.server.ReadTimeout = 500 * time.Millisecond })
	p := w.AddProduct(1000)
	mine := w.MustPost(1, p.ID, 1)
	w.WantSettledOutbox(p.ID)
	logs.Take()
	before := w.Dump()

	good := fmt.Sprintf(`{"product_id":%d,"quantity":1}`, p.ID)
	bearer := w.Bearer(1)
	signed := func(method jwt.SigningMethod, key any, claims jwt.MapClaims) string {
		text, err := jwt.NewWithClaims(method, claims).SignedString(key)
		w.Must(err)
		return "Bearer " + text
	}
	hour := time.Now().Add(time.Hour).Unix()
	forged, err := token.NewKeeper(strings.Repeat("x", 32)).Sign(token.Claims{UserID: 1}, time.Hour)
	w.Must(err)
	big := bytes.Repeat([]byte("x"), 1<<20)
	head := "POST /api/orders HTTP/1.1\r\nHost: edge\r\nAuthorization: " + bearer +
		"\r\nContent-Type: application/json\r\n"

	const js = "application/json"
	body := func(text string) apitest.Reply {
		return w.Send("POST", "/api/orders", text, "Authorization", bearer, "Content-Type", js)
	}
	as := func(authorization ...string) apitest.Reply {
		fields := []string{"Content-Type", js}
		for _, a := range authorization {
			fields = append(fields, "Authorization", a)
		}
		return w.Send("POST", "/api/orders", good, fields...)
	}
	typed := func(contentType ...string) apitest.Reply {
		fields := []string{"Authorization", bearer}
		for _, c := range contentType {
			fields = append(fields, "Content-Type", c)
		}
		return w.Send("POST", "/api/orders", good, fields...)
	}
	keyed := func(keys ...string) apitest.Reply {
		fields := []string{"Authorization", bearer, "Content-Type", js}
		for _, k := range keys {
			fields = append(fields, "Idempotency-Key", k)
		}
		return w.Send("POST", "/api/orders", good, fields...)
	}
	order7 := func(product, quantity string) apitest.Reply {
		return body(fmt.Sprintf(`{"product_id":%s,"quantity":%s}`, product, quantity))
	}
	one := fmt.Sprint(p.ID)

	cases := []struct {
		name   string
		got    func() apitest.Reply
		status int
		code   problem.Code
	}{
		{"not JSON", func() apitest.Reply { return body("hello") }, 400, problem.MalformedRequest},
		{"no body", func() apitest.Reply { return body("") }, 400, problem.MalformedRequest},
		{"half an object", func() apitest.Reply { return body(good[:len(good)-1]) }, 400, problem.MalformedRequest},
		{"trailing garbage", func() apitest.Reply { return body(good + "x") }, 400, problem.MalformedRequest},
		{"two objects", func() apitest.Reply { return body(good + good) }, 400, problem.MalformedRequest},
		{"an array", func() apitest.Reply { return body("[" + good + "]") }, 400, problem.MalformedRequest},
		{"null", func() apitest.Reply { return body("null") }, 400, problem.MalformedRequest},
		{"a number", func() apitest.Reply { return body("1") }, 400, problem.MalformedRequest},
		{"an empty object", func() apitest.Reply { return body("{}") }, 400, problem.MalformedRequest},
		{"deeply nested", func() apitest.Reply { return body(`{"a":` + strings.Repeat("[", 16000)) }, 400,
			problem.MalformedRequest},
		{"a byte order mark", func() apitest.Reply { return body("\ufeff" + good) }, 400, problem.MalformedRequest},
		{"product as text", func() apitest.Reply { return order7(`"`+one+`"`, "1") }, 400, problem.MalformedRequest},
		{"product null", func() apitest.Reply { return order7("null", "1") }, 400, problem.MalformedRequest},
		{"product as list", func() apitest.Reply { return order7("["+one+"]", "1") }, 400, problem.MalformedRequest},
		{"quantity as text", func() apitest.Reply { return order7(one, `"1"`) }, 400, problem.MalformedRequest},
		{"quantity true", func() apitest.Reply { return order7(one, "true") }, 400, problem.MalformedRequest},
		{"quantity as object", func() apitest.Reply { return order7(one, "{}") }, 400, problem.MalformedRequest},
		{"another way to pay", func() apitest.Reply { return order7(one, `1,"pay_with":"money"`) }, 400,
			problem.MalformedRequest},
		{"no way to pay", func() apitest.Reply { return order7(one, `1,"pay_with":null`) }, 400,
			problem.MalformedRequest},
		{"a number to pay with", func() apitest.Reply { return order7(one, `1,"pay_with":1`) }, 400,
			problem.MalformedRequest},
		{"no price in points", func() apitest.Reply { return order7(one, `1,"pay_with":"points"`) }, 409,
			problem.NoPointsPrice},
		{"no quantity", func() apitest.Reply { return body(`{"product_id":1}`) }, 400, problem.MalformedRequest},
		{"unknown product", func() apitest.Reply { return order7("999999", "1") }, 404, problem.ProductNotFound},
		{"product 0", func() apitest.Reply { return order7("0", "1") }, 404, problem.ProductNotFound},
		{"product -1", func() apitest.Reply { return order7("-1", "1") }, 404, problem.ProductNotFound},
		{"product 2^63", func() apitest.Reply { return order7("9223372036854775808", "1") }, 404,
			problem.ProductNotFound},
		{"product 1.5", func() apitest.Reply { return order7("1.5", "1") }, 404, problem.ProductNotFound},
		{"product 2^63-1", func() apitest.Reply { return order7("9223372036854775807", "1") }, 404,
			problem.ProductNotFound},
		{"quantity 0", func() apitest.Reply { return order7(one, "0") }, 422, problem.InvalidQuantity},
		{"quantity -0", func() apitest.Reply { return order7(one, "-0") }, 422, problem.InvalidQuantity},
		{"quantity -1", func() apitest.Reply { return order7(one, "-1") }, 422, problem.InvalidQuantity},
		{"quantity 1.5", func() apitest.Reply { return order7(one, "1.5") }, 422, problem.InvalidQuantity},
		{"quantity 1.0", func() apitest.Reply { return order7(one, "1.0") }, 422, problem.InvalidQuantity},
		{"quantity 1e400", func() apitest.Reply { return order7(one, "1e400") }, 422, problem.InvalidQuantity},
		{"quantity 2^63", func() apitest.Reply { return order7(one, "9223372036854775808") }, 422,
			problem.InvalidQuantity},
		{"quantity -2^63", func() apitest.Reply { return order7(one, "-9223372036854775808") }, 422,
			problem.InvalidQuantity},
		{"quantity 1001", func() apitest.Reply { return order7(one, "1001") }, 422, problem.InvalidQuantity},

		{"no token", func() apitest.Reply { return as() }, 401, problem.Unauthenticated},
		{"empty token", func() apitest.Reply { return as("Bearer ") }, 401, problem.Unauthenticated},
		{"no scheme", func() apitest.Reply { return as(strings.TrimPrefix(bearer, "Bearer ")) }, 401,
			problem.Unauthenticated},
		{"Basic", func() apitest.Reply { return as("Basic dXNlcjpwYXNzd29yZA==") }, 401, problem.Unauthenticated},
		{"garbage for a token", func() apitest.Reply { return as("Bearer a.b.c") }, 401, problem.Unauthenticated},
		{"a token with more behind", func() apitest.Reply { return as(bearer + "x") }, 401, problem.Unauthenticated},
		{"forged token", func() apitest.Reply { return as("Bearer " + forged) }, 401, problem.Unauthenticated},
		{"expired token", func() apitest.Reply {
			return as(signed(jwt.SigningMethodHS256, []byte(apitest.Secret),
				jwt.MapClaims{"sub": "1", "exp": time.Now().Add(-time.Hour).Unix()}))
		}, 401, problem.Unauthenticated},
		{"token for ever", func() apitest.Reply {
			return as(signed(jwt.SigningMethodHS256, []byte(apitest.Secret), jwt.MapClaims{"sub": "1"}))
		}, 401, problem.Unauthenticated},
		{"alg none", func() apitest.Reply {
			return as(signed(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType,
				jwt.MapClaims{"sub": "1", "exp": hour}))
		}, 401, problem.Unauthenticated},
		{"another algorithm", func() apitest.Reply {
			return as(signed(jwt.SigningMethodHS512, []byte(apitest.Secret), jwt.MapClaims{"sub": "1", "exp": hour}))
		}, 401, problem.Unauthenticated},
		{"user 0", func() apitest.Reply {
			return as(signed(jwt.SigningMethodHS256, []byte(apitest.Secret), jwt.MapClaims{"sub": "0", "exp": hour}))
		}, 401, problem.Unauthenticated},
		{"history without token", func() apitest.Reply { return w.Send("GET", "/api/orders", "") }, 401,
			problem.Unauthenticated},
		{"order without token", func() apitest.Reply { return w.Send("GET", "/api/orders/"+mine, "") }, 401,
			problem.Unauthenticated},

		{"no content type", func() apitest.Reply { return typed() }, 415, problem.UnsupportedMediaType},
		{"text", func() apitest.Reply { return typed("text/plain") }, 415, problem.UnsupportedMediaType},
		{"almost JSON", func() apitest.Reply { return typed("application/jsonp") }, 415, problem.UnsupportedMediaType},
		{"a form", func() apitest.Reply { return typed("application/x-www-form-urlencoded") }, 415,
			problem.UnsupportedMediaType},
		{"a form with files", func() apitest.Reply {
			return typed("multipart/form-data; boundary=x")
		}, 415, problem.UnsupportedMediaType},

		{"empty key", func() apitest.Reply { return keyed("") }, 400, problem.MalformedRequest},
		{"key of 256 bytes", func() apitest.Reply { return keyed(strings.Repeat("k", 256)) }, 400,
			problem.MalformedRequest},
		{"key that is not ASCII", func() apitest.Reply { return keyed("schlüssel") }, 400, problem.MalformedRequest},
		{"key with a space", func() apitest.Reply { return keyed("a b") }, 400, problem.MalformedRequest},
		{"key with a tab", func() apitest.Reply { return keyed("a\tb") }, 400, problem.MalformedRequest},
		{"two keys", func() apitest.Reply { return keyed("a", "b") }, 400, problem.MalformedRequest},
		{"a key twice", func() apitest.Reply { return keyed("a", "a") }, 400, problem.MalformedRequest},

		{"unknown path", func() apitest.Reply { return w.Get(1, "/api/order") }, 404, problem.NotFound},
		{"root", func() apitest.Reply { return w.Get(1, "/") }, 404, problem.NotFound},
		{"slash at the end", func() apitest.Reply { return w.Get(1, "/api/orders/") }, 404, problem.NotFound},
		{"other case", func() apitest.Reply { return w.Get(1, "/API/products") }, 404, problem.NotFound},
		{"too deep", func() apitest.Reply { return w.Get(1, "/api/orders/"+mine+"/x") }, 404, problem.NotFound},
		{"metrics in public", func() apitest.Reply { return w.Get(1, "/metrics") }, 404, problem.NotFound},
		{"profiles in public", func() apitest.Reply { return w.Get(1, "/debug/pprof/heap") }, 404, problem.NotFound},
		{"dots", func() apitest.Reply {
			return w.Exchange([]byte("GET /api/../metrics HTTP/1.1\r\nHost: edge\r\n\r\n"))
		}, 404, problem.NotFound},

		{"id that is none", func() apitest.Reply { return w.Get(1, "/api/orders/7") }, 400, problem.MalformedRequest},
		{"id as URN", func() apitest.Reply { return w.Get(1, "/api/orders/urn:uuid:"+mine) }, 400,
			problem.MalformedRequest},
		{"id in braces", func() apitest.Reply { return w.Get(1, "/api/orders/%7B"+mine+"%7D") }, 400,
			problem.MalformedRequest},
		{"id in plain braces", func() apitest.Reply {
			return w.Exchange([]byte("GET /api/orders/{" + mine + "} HTTP/1.1\r\nHost: edge\r\nAuthorization: " +
				bearer + "\r\n\r\n"))
		}, 400, problem.MalformedRequest},
		{"id without hyphens", func() apitest.Reply {
			return w.Get(1, "/api/orders/"+strings.ReplaceAll(mine, "-", ""))
		}, 400, problem.MalformedRequest},
		{"id of the right length", func() apitest.Reply {
			return w.Get(1, "/api/orders/"+strings.Repeat("g", 36))
		}, 400, problem.MalformedRequest},
		{"id with a NUL", func() apitest.Reply { return w.Get(1, "/api/orders/%00") }, 400, problem.MalformedRequest},
		{"wait of nothing known", func() apitest.Reply {
			return w.Get(1, "/api/orders/"+mine+"?wait=long")
		}, 400, problem.MalformedRequest},
		{"wait without unit", func() apitest.Reply { return w.Get(1, "/api/orders/"+mine+"?wait=10") }, 400,
			problem.MalformedRequest},
		{"wait negative", func() apitest.Reply { return w.Get(1, "/api/orders/"+mine+"?wait=-1s") }, 400,
			problem.MalformedRequest},
		{"wait too long", func() apitest.Reply { return w.Get(1, "/api/orders/"+mine+"?wait=20001ms") }, 400,
			problem.MalformedRequest},
		{"wait overflows", func() apitest.Reply {
			return w.Get(1, "/api/orders/"+mine+"?wait=9999999h")
		}, 400, problem.MalformedRequest},
		{"cursor that is no base64", func() apitest.Reply { return w.Get(1, "/api/orders?cursor=!") }, 400,
			problem.MalformedRequest},
		{"cursor too short", func() apitest.Reply { return w.Get(1, "/api/orders?cursor=AAAA") }, 400,
			problem.MalformedRequest},
		{"cursor of products", func() apitest.Reply {
			return w.Get(1, "/api/orders?cursor="+base64.RawURLEncoding.EncodeToString(make([]byte, 8)))
		}, 400, problem.MalformedRequest},
		{"products cursor that is no base64", func() apitest.Reply {
			return w.Get(1, "/api/products?cursor=%25")
		}, 400, problem.MalformedRequest},
		{"products cursor of orders", func() apitest.Reply {
			return w.Get(1, "/api/products?cursor="+base64.RawURLEncoding.EncodeToString(make([]byte, 16)))
		}, 400, problem.MalformedRequest},

		{"cursor without signature", func() apitest.Reply {
			return w.Get(1, "/api/products?cursor="+base64.RawURLEncoding.EncodeToString([]byte{0, 0, 0, 0, 0, 0, 0,
				50}))
		}, 400, problem.MalformedRequest},
		{"products cursor signed for orders", func() apitest.Reply {
			return w.Get(1, "/api/products?cursor="+testCursors.Order(order.NewID()))
		},
			400, problem.MalformedRequest},

		{"1 MB", func() apitest.Reply { return body(string(big)) }, 413, problem.BodyTooLarge},
		{"1 MB at once", func() apitest.Reply {
			return w.Exchange(fmt.Appendf(nil, "%sContent-Length: %d\r\n\r\n%s", head, len(big), big))
		}, 413, problem.BodyTooLarge},
		{"1 MB in one chunk", func() apitest.Reply {
			return w.Exchange(fmt.Appendf(nil, "%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", head,
				len(big), big))
		}, 413, problem.BodyTooLarge},
		{"1 MB in chunks", func() apitest.Reply {
			chunk := fmt.Sprintf("%x\r\n%s\r\n", 1000, big[:1000])
			return w.Exchange([]byte(head + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat(chunk, 1000) +
				"0\r\n\r\n"))
		}, 413, problem.BodyTooLarge},
		{"1 MB after 100 Continue", func() apitest.Reply {
			return w.Exchange(fmt.Appendf(nil, "%sExpect: 100-continue\r\nContent-Length: %d\r\n\r\n%s", head, len(big),
				big))
		}, 413, problem.BodyTooLarge},
		{"1 MB that would be sent after 100 Continue", func() apitest.Reply {
			return w.Exchange(fmt.Appendf(nil, "%sExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", head, len(big)))
		}, 413, problem.BodyTooLarge},
		{"one byte too many", func() apitest.Reply {
			return body(good + strings.Repeat(" ", maxBodyBytes+1-len(good)))
		}, 413, problem.BodyTooLarge},
		{"a huge header", func() apitest.Reply {
			return w.Send("GET", "/api/orders", "", "Authorization", bearer, "X-Big", string(big[:300_000]))
		}, 431, problem.HeadersTooLarge},
		{"many headers", func() apitest.Reply {
			return w.Exchange([]byte("GET /healthz HTTP/1.1\r\nHost: edge\r\n" +
				strings.Repeat("X-Header: value\r\n", 50_000) + "\r\n"))
		}, 431, problem.HeadersTooLarge},
		{"a huge path", func() apitest.Reply { return w.Get(1, "/"+string(big[:300_000])) }, 431,
			problem.HeadersTooLarge},
		{"no HTTP", func() apitest.Reply {
			return w.Exchange([]byte("hello, is anybody there?\r\n\r\n"))
		}, 400, problem.MalformedRequest},
		{"TLS", func() apitest.Reply {
			return w.Exchange([]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"))
		}, 400, problem.MalformedRequest},
		{"zeros", func() apitest.Reply { return w.Exchange(append(make([]byte, 5000), "\r\n\r\n"...)) }, 400,
			problem.MalformedRequest},
		{"two lengths", func() apitest.Reply {
			return w.Exchange([]byte(head + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + good))
		}, 400, problem.MalformedRequest},
		{"negative length", func() apitest.Reply {
			return w.Exchange([]byte(head + "Content-Length: -5\r\n\r\n" + good))
		}, 400, problem.MalformedRequest},
		{"broken chunk", func() apitest.Reply {
			return w.Exchange([]byte(head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n" + good))
		}, 400, problem.MalformedRequest},
		{"half a request line", func() apitest.Reply { return w.Exchange([]byte("POST /api/ord")) }, 408,
			problem.RequestTimeout},
		{"half the headers", func() apitest.Reply { return w.Exchange([]byte(head)) }, 408, problem.RequestTimeout},
		{"half a body", func() apitest.Reply {
			return w.Exchange([]byte(head + "Content-Length: 40\r\n\r\n{"))
		}, 408, problem.RequestTimeout},
		{"nothing at all", func() apitest.Reply { return w.Exchange(nil) }, 408, problem.RequestTimeout},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := c.got()
			apitest.WantProblem(t, r, c.status, c.code)
			if c.status == 401 && r.Header.Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("WWW-Authenticate: %q", r.Header)
			}
			if r.Took > 10*time.Second {
				t.Errorf("the answer took %v", r.Took)
			}
		})
	}

	for path, allow := range map[string]string{
		"/api/orders": "GET, HEAD, OPTIONS, POST", "/api/orders/" + mine: "GET, HEAD, OPTIONS",
		"/api/products": "GET, HEAD, OPTIONS, POST", "/api/products/1": "GET, HEAD, OPTIONS, PATCH",
		"/api/products/1/restocks/a": "OPTIONS, PUT", "/healthz": "GET, HEAD, OPTIONS",
	} {
		for _, method := range []string{"PUT", "DELETE", "PATCH", "TRACE", "BREW"} {
			if strings.Contains(allow, method) {
				continue
			}
			r := w.Send(method, path, "", "Authorization", bearer)
			apitest.WantProblem(t, r, 405, problem.MethodNotAllowed)
			if got := r.Header.Get("Allow"); got != allow {
				t.Errorf("%s %s: Allow is %q, want %q", method, path, got, allow)
			}
		}
		if r := w.Send("OPTIONS", path, ""); r.Status != 200 || r.Header.Get("Allow") != allow || r.Body != "" {
			t.Errorf("OPTIONS %s: %v, %q", path, r, r.Header)
		}
	}

	after := w.Dump()
	if !maps.Equal(before, after) {
		t.Errorf("bad input has changed Redis:\nbefore %v\nafter  %v", slices.Sorted(maps.Keys(before)),
			slices.Sorted(maps.Keys(after)))
	}
	if n := len(w.Orders()); n != 1 {
		t.Errorf("%d orders are on the queue, want the good one", n)
	}
	if lines := logs.Take(); len(lines) > 0 {
		t.Errorf("bad input was logged as our failure: %q", lines)
	}
	if got := w.Requests("none", "413", problem.BodyTooLarge); got == 0 {
		t.Error("requests that could not be read were not counted")
	}

	// What is unusual, and good.
	for name, got := range map[string]apitest.Reply{
		"a good order":                body(good),
		"content type with charset":   typed("application/json; charset=utf-8"),
		"content type in capitals":    typed("Application/JSON"),
		"scheme in small letters":     as("bearer" + strings.TrimPrefix(bearer, "Bearer")),
		"unknown fields":              body(fmt.Sprintf(`{"product_id":%d,"quantity":1,"x":[{}]}`, p.ID)),
		"white space":                 body(" \n" + good + "\n\t"),
		"the largest body":            body(good + strings.Repeat(" ", maxBodyBytes-len(good))),
		"key of 255 bytes":            keyed(strings.Repeat("k", 255)),
		"the largest quantity but 50": body(fmt.Sprintf(`{"product_id":%d,"quantity":%d}`, p.ID, order.MaxQuantity-50)),
		"after 100 Continue": w.Exchange(fmt.Appendf(nil,
			"%sExpect: 100-continue\r\nContent-Length: %d\r\n\r\n%s", head, len(good), good)),
		"in chunks": w.Exchange(fmt.Appendf(nil, "%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", head,
			len(good), good)),
	} {
		if got.Status != 202 {
			t.Errorf("%s: %v", name, got)
		}
	}
	if r := w.Get(1, "/api/orders/"+strings.ToUpper(mine)); r.Status != 200 {
		t.Errorf("an id in capitals: %v", r)
	}
}

// A client that is still sending when it is answered is not reset.
func TestLingering(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	connection, err := net.Dial("tcp", w.Addr)
	w.Must(err)
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(20 * time.Second))
	piece := make([]byte, 50_000) // more than the edge reads before it knows better
	_, err = fmt.Fprintf(connection, "POST /api/orders HTTP/1.1\r\nHost: edge\r\nContent-Length: %d\r\n\r\n%s",
		21*len(piece), piece)
	w.Must(err)
	answer := bufio.NewReader(connection)
	_, err = answer.Peek(1)
	w.Must(err)
	for range 20 {
		time.Sleep(10 * time.Millisecond) // as slow as a client may be
		if _, err := connection.Write(piece); err != nil {
			t.Fatalf("the client cannot go on: %v", err)
		}
	}
	apitest.WantProblem(t, apitest.ReadReply(answer), 413, problem.BodyTooLarge)
}

// The connection of a client that sends for ever is not kept for long either.
func TestLingeringIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	connection, err := net.Dial("tcp", w.Addr)
	w.Must(err)
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(20 * time.Second))
	_, err = connection.Write([]byte("POST /api/orders HTTP/1.1\r\nHost: edge\r\nContent-Length: 1000000000\r\n\r\n"))
	w.Must(err)
	apitest.WantProblem(t, apitest.ReadReply(connection), 413, problem.BodyTooLarge)
	begin := time.Now()
	piece := make([]byte, 64<<10)
	for err == nil {
		_, err = connection.Write(piece)
	}
	if took := time.Since(begin); took > 3*maxDrainTime {
		t.Errorf("the edge listened for %v more", took)
	}
}

func TestPanic(t *testing.T) {
	w := newWorld(t, func(e *Edge) {
		e.products = newCache(func(context.Context, order.ProductID) (order.Product, error) { panic("a bug") },
			productBytes)
	})
	p := w.AddProduct(5)
	logs.Take()
	path := fmt.Sprintf("/api/products/%d", p.ID)
	apitest.WantProblem(t, w.Send("GET", path, ""), 500, problem.InternalError)
	for range 20 {
		apitest.WantProblem(t, w.Send("GET", path, ""), 500, problem.InternalError)
	}
	w.MustPost(1, p.ID, 1)
	if lines := logs.Take(); len(lines) != 21 || !strings.Contains(lines[0], "panic=string ") ||
		strings.Contains(lines[0], "a bug") || !strings.Contains(lines[0], "input_test.go") {
		t.Errorf("logged: %q", lines)
	}
	if got := w.Requests("GET /api/products/{id}", "500", problem.InternalError); got != 21 {
		t.Errorf("%v panics were counted", got)
	}
}

// Requests that follow each other on one connection at once get their answers in order.
func TestPipelining(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.AddProduct(3)
	connection, err := net.Dial("tcp", w.Addr)
	w.Must(err)
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(20 * time.Second))
	good := fmt.Sprintf(`{"product_id":%d,"quantity":1}`, p.ID)
	one := fmt.Sprintf("POST /api/orders HTTP/1.1\r\nHost: edge\r\nAuthorization: %s\r\nContent-Type: "+
		"application/json\r\nContent-Length: %d\r\n\r\n%s", w.Bearer(1), len(good), good)
	_, err = connection.Write([]byte(strings.Repeat(one, 4) +
		"GET /nowhere HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n"))
	w.Must(err)
	var all bytes.Buffer
	_, err = all.ReadFrom(connection)
	w.Must(err)
	text := all.String()
	if strings.Count(text, "HTTP/1.1 202") != 3 || strings.Count(text, "HTTP/1.1 409") != 1 ||
		strings.Count(text, "HTTP/1.1 404") != 1 ||
		strings.Count(text, http.StatusText(http.StatusConflict)) != 1 {
		t.Errorf("got %s", text)
	}
}
