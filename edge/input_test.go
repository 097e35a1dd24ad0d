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

	"stampede/internal/order"
	"stampede/internal/token"
)

// TestBadInput sends what no client should. Every answer must be the right problem document, none may cost
// stock or be logged as our failure, and the edge must be as good as before. It looks at the log, so it is
// not parallel.
func TestBadInput(t *testing.T) {
	w := newWorld(t, func(e *Edge) { e.server.ReadTimeout = 500 * time.Millisecond })
	p := w.addProduct(1000)
	mine := w.mustPost(1, p.ID, 1)
	w.wantSettledOutbox(p.ID)
	logs.take()
	before := w.dump()

	good := fmt.Sprintf(`{"product_id":%d,"quantity":1}`, p.ID)
	bearer := w.bearer(1)
	signed := func(method jwt.SigningMethod, key any, claims jwt.MapClaims) string {
		text, err := jwt.NewWithClaims(method, claims).SignedString(key)
		w.must(err)
		return "Bearer " + text
	}
	hour := time.Now().Add(time.Hour).Unix()
	forged, err := token.NewKeeper(strings.Repeat("x", 32)).Sign(token.Claims{UserID: 1}, time.Hour)
	w.must(err)
	big := bytes.Repeat([]byte("x"), 1<<20)
	head := "POST /api/orders HTTP/1.1\r\nHost: edge\r\nAuthorization: " + bearer +
		"\r\nContent-Type: application/json\r\n"

	const js = "application/json"
	body := func(text string) reply {
		return w.send("POST", "/api/orders", text, "Authorization", bearer, "Content-Type", js)
	}
	as := func(authorization ...string) reply {
		fields := []string{"Content-Type", js}
		for _, a := range authorization {
			fields = append(fields, "Authorization", a)
		}
		return w.send("POST", "/api/orders", good, fields...)
	}
	typed := func(contentType ...string) reply {
		fields := []string{"Authorization", bearer}
		for _, c := range contentType {
			fields = append(fields, "Content-Type", c)
		}
		return w.send("POST", "/api/orders", good, fields...)
	}
	keyed := func(keys ...string) reply {
		fields := []string{"Authorization", bearer, "Content-Type", js}
		for _, k := range keys {
			fields = append(fields, "Idempotency-Key", k)
		}
		return w.send("POST", "/api/orders", good, fields...)
	}
	order7 := func(product, quantity string) reply {
		return body(fmt.Sprintf(`{"product_id":%s,"quantity":%s}`, product, quantity))
	}
	one := fmt.Sprint(p.ID)

	cases := []struct {
		name   string
		got    func() reply
		status int
		code   code
	}{
		{"not JSON", func() reply { return body("hello") }, 400, malformedRequest},
		{"no body", func() reply { return body("") }, 400, malformedRequest},
		{"half an object", func() reply { return body(good[:len(good)-1]) }, 400, malformedRequest},
		{"trailing garbage", func() reply { return body(good + "x") }, 400, malformedRequest},
		{"two objects", func() reply { return body(good + good) }, 400, malformedRequest},
		{"an array", func() reply { return body("[" + good + "]") }, 400, malformedRequest},
		{"null", func() reply { return body("null") }, 400, malformedRequest},
		{"a number", func() reply { return body("1") }, 400, malformedRequest},
		{"an empty object", func() reply { return body("{}") }, 400, malformedRequest},
		{"deeply nested", func() reply { return body(`{"a":` + strings.Repeat("[", 16000)) }, 400, malformedRequest},
		{"a byte order mark", func() reply { return body("\ufeff" + good) }, 400, malformedRequest},
		{"product as text", func() reply { return order7(`"`+one+`"`, "1") }, 400, malformedRequest},
		{"product null", func() reply { return order7("null", "1") }, 400, malformedRequest},
		{"product as list", func() reply { return order7("["+one+"]", "1") }, 400, malformedRequest},
		{"quantity as text", func() reply { return order7(one, `"1"`) }, 400, malformedRequest},
		{"quantity true", func() reply { return order7(one, "true") }, 400, malformedRequest},
		{"quantity as object", func() reply { return order7(one, "{}") }, 400, malformedRequest},
		{"no quantity", func() reply { return body(`{"product_id":1}`) }, 400, malformedRequest},
		{"unknown product", func() reply { return order7("999999", "1") }, 404, productNotFound},
		{"product 0", func() reply { return order7("0", "1") }, 404, productNotFound},
		{"product -1", func() reply { return order7("-1", "1") }, 404, productNotFound},
		{"product 2^63", func() reply { return order7("9223372036854775808", "1") }, 404, productNotFound},
		{"product 1.5", func() reply { return order7("1.5", "1") }, 404, productNotFound},
		{"product 2^63-1", func() reply { return order7("9223372036854775807", "1") }, 404, productNotFound},
		{"quantity 0", func() reply { return order7(one, "0") }, 422, invalidQuantity},
		{"quantity -0", func() reply { return order7(one, "-0") }, 422, invalidQuantity},
		{"quantity -1", func() reply { return order7(one, "-1") }, 422, invalidQuantity},
		{"quantity 1.5", func() reply { return order7(one, "1.5") }, 422, invalidQuantity},
		{"quantity 1.0", func() reply { return order7(one, "1.0") }, 422, invalidQuantity},
		{"quantity 1e400", func() reply { return order7(one, "1e400") }, 422, invalidQuantity},
		{"quantity 2^63", func() reply { return order7(one, "9223372036854775808") }, 422, invalidQuantity},
		{"quantity -2^63", func() reply { return order7(one, "-9223372036854775808") }, 422, invalidQuantity},
		{"quantity 1001", func() reply { return order7(one, "1001") }, 422, invalidQuantity},

		{"no token", func() reply { return as() }, 401, unauthenticated},
		{"empty token", func() reply { return as("Bearer ") }, 401, unauthenticated},
		{"no scheme", func() reply { return as(strings.TrimPrefix(bearer, "Bearer ")) }, 401, unauthenticated},
		{"Basic", func() reply { return as("Basic dXNlcjpwYXNzd29yZA==") }, 401, unauthenticated},
		{"garbage for a token", func() reply { return as("Bearer a.b.c") }, 401, unauthenticated},
		{"a token with more behind", func() reply { return as(bearer + "x") }, 401, unauthenticated},
		{"forged token", func() reply { return as("Bearer " + forged) }, 401, unauthenticated},
		{"expired token", func() reply {
			return as(signed(jwt.SigningMethodHS256, []byte(secret),
				jwt.MapClaims{"sub": "1", "exp": time.Now().Add(-time.Hour).Unix()}))
		}, 401, unauthenticated},
		{"token for ever", func() reply {
			return as(signed(jwt.SigningMethodHS256, []byte(secret), jwt.MapClaims{"sub": "1"}))
		}, 401, unauthenticated},
		{"alg none", func() reply {
			return as(signed(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType,
				jwt.MapClaims{"sub": "1", "exp": hour}))
		}, 401, unauthenticated},
		{"another algorithm", func() reply {
			return as(signed(jwt.SigningMethodHS512, []byte(secret), jwt.MapClaims{"sub": "1", "exp": hour}))
		}, 401, unauthenticated},
		{"user 0", func() reply {
			return as(signed(jwt.SigningMethodHS256, []byte(secret), jwt.MapClaims{"sub": "0", "exp": hour}))
		}, 401, unauthenticated},
		{"history without token", func() reply { return w.send("GET", "/api/orders", "") }, 401, unauthenticated},
		{"order without token", func() reply { return w.send("GET", "/api/orders/"+mine, "") }, 401, unauthenticated},

		{"no content type", func() reply { return typed() }, 415, unsupportedMediaType},
		{"text", func() reply { return typed("text/plain") }, 415, unsupportedMediaType},
		{"almost JSON", func() reply { return typed("application/jsonp") }, 415, unsupportedMediaType},
		{"a form", func() reply { return typed("application/x-www-form-urlencoded") }, 415, unsupportedMediaType},
		{"a form with files", func() reply {
			return typed("multipart/form-data; boundary=x")
		}, 415, unsupportedMediaType},

		{"empty key", func() reply { return keyed("") }, 400, malformedRequest},
		{"key of 256 bytes", func() reply { return keyed(strings.Repeat("k", 256)) }, 400, malformedRequest},
		{"key that is not ASCII", func() reply { return keyed("schlüssel") }, 400, malformedRequest},
		{"key with a space", func() reply { return keyed("a b") }, 400, malformedRequest},
		{"key with a tab", func() reply { return keyed("a\tb") }, 400, malformedRequest},
		{"two keys", func() reply { return keyed("a", "b") }, 400, malformedRequest},
		{"a key twice", func() reply { return keyed("a", "a") }, 400, malformedRequest},

		{"unknown path", func() reply { return w.get(1, "/api/order") }, 404, notFound},
		{"root", func() reply { return w.get(1, "/") }, 404, notFound},
		{"slash at the end", func() reply { return w.get(1, "/api/orders/") }, 404, notFound},
		{"other case", func() reply { return w.get(1, "/API/products") }, 404, notFound},
		{"too deep", func() reply { return w.get(1, "/api/orders/"+mine+"/x") }, 404, notFound},
		{"metrics in public", func() reply { return w.get(1, "/metrics") }, 404, notFound},
		{"profiles in public", func() reply { return w.get(1, "/debug/pprof/heap") }, 404, notFound},
		{"dots", func() reply {
			return w.exchange([]byte("GET /api/../metrics HTTP/1.1\r\nHost: edge\r\n\r\n"))
		}, 404, notFound},

		{"id that is none", func() reply { return w.get(1, "/api/orders/7") }, 400, malformedRequest},
		{"id as URN", func() reply { return w.get(1, "/api/orders/urn:uuid:"+mine) }, 400, malformedRequest},
		{"id in braces", func() reply { return w.get(1, "/api/orders/%7B"+mine+"%7D") }, 400, malformedRequest},
		{"id in plain braces", func() reply {
			return w.exchange([]byte("GET /api/orders/{" + mine + "} HTTP/1.1\r\nHost: edge\r\nAuthorization: " +
				bearer + "\r\n\r\n"))
		}, 400, malformedRequest},
		{"id without hyphens", func() reply {
			return w.get(1, "/api/orders/"+strings.ReplaceAll(mine, "-", ""))
		}, 400, malformedRequest},
		{"id of the right length", func() reply {
			return w.get(1, "/api/orders/"+strings.Repeat("g", 36))
		}, 400, malformedRequest},
		{"id with a NUL", func() reply { return w.get(1, "/api/orders/%00") }, 400, malformedRequest},
		{"wait of nothing known", func() reply {
			return w.get(1, "/api/orders/"+mine+"?wait=long")
		}, 400, malformedRequest},
		{"wait without unit", func() reply { return w.get(1, "/api/orders/"+mine+"?wait=10") }, 400, malformedRequest},
		{"wait negative", func() reply { return w.get(1, "/api/orders/"+mine+"?wait=-1s") }, 400, malformedRequest},
		{"wait too long", func() reply { return w.get(1, "/api/orders/"+mine+"?wait=20001ms") }, 400, malformedRequest},
		{"wait overflows", func() reply {
			return w.get(1, "/api/orders/"+mine+"?wait=9999999h")
		}, 400, malformedRequest},
		{"cursor that is no base64", func() reply { return w.get(1, "/api/orders?cursor=!") }, 400, malformedRequest},
		{"cursor too short", func() reply { return w.get(1, "/api/orders?cursor=AAAA") }, 400, malformedRequest},
		{"cursor of products", func() reply {
			return w.get(1, "/api/orders?cursor="+base64.RawURLEncoding.EncodeToString(make([]byte, 8)))
		}, 400, malformedRequest},
		{"products cursor that is no base64", func() reply {
			return w.get(1, "/api/products?cursor=%25")
		}, 400, malformedRequest},
		{"products cursor of orders", func() reply {
			return w.get(1, "/api/products?cursor="+base64.RawURLEncoding.EncodeToString(make([]byte, 16)))
		}, 400, malformedRequest},

		{"cursor without signature", func() reply {
			return w.get(1, "/api/products?cursor="+base64.RawURLEncoding.EncodeToString([]byte{0, 0, 0, 0, 0, 0, 0,
				50}))
		}, 400, malformedRequest},
		{"products cursor signed for orders", func() reply {
			return w.get(1, "/api/products?cursor="+testCursors.order(order.NewID()))
		},
			400, malformedRequest},

		{"1 MB", func() reply { return body(string(big)) }, 413, bodyTooLarge},
		{"1 MB at once", func() reply {
			return w.exchange(fmt.Appendf(nil, "%sContent-Length: %d\r\n\r\n%s", head, len(big), big))
		}, 413, bodyTooLarge},
		{"1 MB in one chunk", func() reply {
			return w.exchange(fmt.Appendf(nil, "%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", head,
				len(big), big))
		}, 413, bodyTooLarge},
		{"1 MB in chunks", func() reply {
			chunk := fmt.Sprintf("%x\r\n%s\r\n", 1000, big[:1000])
			return w.exchange([]byte(head + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat(chunk, 1000) +
				"0\r\n\r\n"))
		}, 413, bodyTooLarge},
		{"1 MB after 100 Continue", func() reply {
			return w.exchange(fmt.Appendf(nil, "%sExpect: 100-continue\r\nContent-Length: %d\r\n\r\n%s", head, len(big),
				big))
		}, 413, bodyTooLarge},
		{"1 MB that would be sent after 100 Continue", func() reply {
			return w.exchange(fmt.Appendf(nil, "%sExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", head, len(big)))
		}, 413, bodyTooLarge},
		{"one byte too many", func() reply {
			return body(good + strings.Repeat(" ", maxBodyBytes+1-len(good)))
		}, 413, bodyTooLarge},
		{"a huge header", func() reply {
			return w.send("GET", "/api/orders", "", "Authorization", bearer, "X-Big", string(big[:300_000]))
		}, 431, headersTooLarge},
		{"many headers", func() reply {
			return w.exchange([]byte("GET /healthz HTTP/1.1\r\nHost: edge\r\n" +
				strings.Repeat("X-Header: value\r\n", 50_000) + "\r\n"))
		}, 431, headersTooLarge},
		{"a huge path", func() reply { return w.get(1, "/"+string(big[:300_000])) }, 431, headersTooLarge},
		{"no HTTP", func() reply {
			return w.exchange([]byte("hello, is anybody there?\r\n\r\n"))
		}, 400, malformedRequest},
		{"TLS", func() reply {
			return w.exchange([]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"))
		}, 400, malformedRequest},
		{"zeros", func() reply { return w.exchange(append(make([]byte, 5000), "\r\n\r\n"...)) }, 400, malformedRequest},
		{"two lengths", func() reply {
			return w.exchange([]byte(head + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + good))
		}, 400, malformedRequest},
		{"negative length", func() reply {
			return w.exchange([]byte(head + "Content-Length: -5\r\n\r\n" + good))
		}, 400, malformedRequest},
		{"broken chunk", func() reply {
			return w.exchange([]byte(head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n" + good))
		}, 400, malformedRequest},
		{"half a request line", func() reply { return w.exchange([]byte("POST /api/ord")) }, 408, requestTimeout},
		{"half the headers", func() reply { return w.exchange([]byte(head)) }, 408, requestTimeout},
		{"half a body", func() reply {
			return w.exchange([]byte(head + "Content-Length: 40\r\n\r\n{"))
		}, 408, requestTimeout},
		{"nothing at all", func() reply { return w.exchange(nil) }, 408, requestTimeout},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := c.got()
			wantProblem(t, r, c.status, c.code)
			if c.status == 401 && r.header.Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("WWW-Authenticate: %q", r.header)
			}
			if r.took > 10*time.Second {
				t.Errorf("the answer took %v", r.took)
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
			r := w.send(method, path, "", "Authorization", bearer)
			wantProblem(t, r, 405, methodNotAllowed)
			if got := r.header.Get("Allow"); got != allow {
				t.Errorf("%s %s: Allow is %q, want %q", method, path, got, allow)
			}
		}
		if r := w.send("OPTIONS", path, ""); r.status != 200 || r.header.Get("Allow") != allow || r.body != "" {
			t.Errorf("OPTIONS %s: %v, %q", path, r, r.header)
		}
	}

	after := w.dump()
	if !maps.Equal(before, after) {
		t.Errorf("bad input has changed Redis:\nbefore %v\nafter  %v", slices.Sorted(maps.Keys(before)),
			slices.Sorted(maps.Keys(after)))
	}
	if n := len(w.orders()); n != 1 {
		t.Errorf("%d orders are on the queue, want the good one", n)
	}
	if lines := logs.take(); len(lines) > 0 {
		t.Errorf("bad input was logged as our failure: %q", lines)
	}
	if got := w.requests("none", "413", bodyTooLarge); got == 0 {
		t.Error("requests that could not be read were not counted")
	}

	// What is unusual, and good.
	for name, got := range map[string]reply{
		"a good order":                body(good),
		"content type with charset":   typed("application/json; charset=utf-8"),
		"content type in capitals":    typed("Application/JSON"),
		"scheme in small letters":     as("bearer" + strings.TrimPrefix(bearer, "Bearer")),
		"unknown fields":              body(fmt.Sprintf(`{"product_id":%d,"quantity":1,"x":[{}]}`, p.ID)),
		"white space":                 body(" \n" + good + "\n\t"),
		"the largest body":            body(good + strings.Repeat(" ", maxBodyBytes-len(good))),
		"key of 255 bytes":            keyed(strings.Repeat("k", 255)),
		"the largest quantity but 50": body(fmt.Sprintf(`{"product_id":%d,"quantity":%d}`, p.ID, order.MaxQuantity-50)),
		"after 100 Continue": w.exchange(fmt.Appendf(nil,
			"%sExpect: 100-continue\r\nContent-Length: %d\r\n\r\n%s", head, len(good), good)),
		"in chunks": w.exchange(fmt.Appendf(nil, "%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", head,
			len(good), good)),
	} {
		if got.status != 202 {
			t.Errorf("%s: %v", name, got)
		}
	}
	if r := w.get(1, "/api/orders/"+strings.ToUpper(mine)); r.status != 200 {
		t.Errorf("an id in capitals: %v", r)
	}
}

// A client that is still sending when it is answered is not reset.
func TestLingering(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	connection, err := net.Dial("tcp", w.addr)
	w.must(err)
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(20 * time.Second))
	piece := make([]byte, 50_000) // more than the edge reads before it knows better
	_, err = fmt.Fprintf(connection, "POST /api/orders HTTP/1.1\r\nHost: edge\r\nContent-Length: %d\r\n\r\n%s",
		21*len(piece), piece)
	w.must(err)
	answer := bufio.NewReader(connection)
	_, err = answer.Peek(1)
	w.must(err)
	for range 20 {
		time.Sleep(10 * time.Millisecond) // as slow as a client may be
		if _, err := connection.Write(piece); err != nil {
			t.Fatalf("the client cannot go on: %v", err)
		}
	}
	wantProblem(t, readReply(answer), 413, bodyTooLarge)
}

// The connection of a client that sends for ever is not kept for long either.
func TestLingeringIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	connection, err := net.Dial("tcp", w.addr)
	w.must(err)
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(20 * time.Second))
	_, err = connection.Write([]byte("POST /api/orders HTTP/1.1\r\nHost: edge\r\nContent-Length: 1000000000\r\n\r\n"))
	w.must(err)
	wantProblem(t, readReply(connection), 413, bodyTooLarge)
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
		e.products = newCache(func(context.Context, int64) (order.Product, error) { panic("a bug") }, productBytes)
	})
	p := w.addProduct(5)
	logs.take()
	path := fmt.Sprintf("/api/products/%d", p.ID)
	wantProblem(t, w.send("GET", path, ""), 500, internalError)
	for range 20 {
		wantProblem(t, w.send("GET", path, ""), 500, internalError)
	}
	w.mustPost(1, p.ID, 1)
	if lines := logs.take(); len(lines) != 21 || !strings.Contains(lines[0], "panic=string ") ||
		strings.Contains(lines[0], "a bug") || !strings.Contains(lines[0], "input_test.go") {
		t.Errorf("logged: %q", lines)
	}
	if got := w.requests("GET /api/products/{id}", "500", internalError); got != 21 {
		t.Errorf("%v panics were counted", got)
	}
}

// Requests that follow each other on one connection at once get their answers in order.
func TestPipelining(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.addProduct(3)
	connection, err := net.Dial("tcp", w.addr)
	w.must(err)
	defer connection.Close()
	_ = connection.SetDeadline(time.Now().Add(20 * time.Second))
	good := fmt.Sprintf(`{"product_id":%d,"quantity":1}`, p.ID)
	one := fmt.Sprintf("POST /api/orders HTTP/1.1\r\nHost: edge\r\nAuthorization: %s\r\nContent-Type: "+
		"application/json\r\nContent-Length: %d\r\n\r\n%s", w.bearer(1), len(good), good)
	_, err = connection.Write([]byte(strings.Repeat(one, 4) +
		"GET /nowhere HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n"))
	w.must(err)
	var all bytes.Buffer
	_, err = all.ReadFrom(connection)
	w.must(err)
	text := all.String()
	if strings.Count(text, "HTTP/1.1 202") != 3 || strings.Count(text, "HTTP/1.1 409") != 1 ||
		strings.Count(text, "HTTP/1.1 404") != 1 ||
		strings.Count(text, http.StatusText(http.StatusConflict)) != 1 {
		t.Errorf("got %s", text)
	}
}
