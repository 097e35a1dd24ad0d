package main

import (
	"bytes"
	"encoding/json"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/valyala/fasthttp"

	"stampede/internal/account"
	"stampede/internal/order"
	"stampede/internal/password"
	"stampede/internal/token"
)

// What clients send is either read as something in its bounds or refused with a 4xx; nothing makes the edge panic
// or fail.

func FuzzOrder(f *testing.F) {
	for _, body := range []string{
		"", "null", "[]", "{}", "1", `{"product_id":1,"quantity":1}`,
		`{"product_id":9223372036854775807,"quantity":1000}`,
		`{"product_id":-1,"quantity":0}`, `{"product_id":1.0,"quantity":1e0}`, `{"product_id":"1","quantity":null}`,
		`{"product_id":1,"product_id":2,"quantity":1}`, `{"PRODUCT_ID":1,"Quantity":1}`,
		`{"product_id": 01,"quantity":-0}`,
		"{\"product_id\":1,\"quantity\":1}\x00", `{"product_id":999999999999999999,"quantity":1}`,
		`{"product_id":1,"quantity":01}`,
		`{"product_id":1000000000000000000,"quantity":1}`, `{"product_id":1,"quantity":1001}`,
		`{"product_id":1,"quantity":}`, `{"product_id":[],"quantity":{}}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		productID, quantity, c, detail := parseOrder(body)
		if p, q, c2, _ := decodeOrder(body); p != productID || q != quantity || c2 != c {
			t.Errorf("read as %d of product %d, %q, in any form as %d of product %d, %q", quantity, productID, c, q, p,
				c2)
		}
		if c != "" {
			if !slices.Contains([]code{malformedRequest, productNotFound, invalidQuantity}, c) || detail == "" {
				t.Errorf("refused with %q, %q", c, detail)
			}
			return
		}
		if productID <= 0 || quantity < 1 || quantity > order.MaxQuantity || !json.Valid(body) {
			t.Errorf("read as %d of product %d", quantity, productID)
		}
	})
}

func FuzzIdempotencyKey(f *testing.F) {
	f.Add([]byte("5e0a9d0c-0f5e-4a55-8c0f-2f0a8f9c1d11"), []byte(nil), 1)
	f.Add([]byte(""), []byte(nil), 1)
	f.Add([]byte("a"), []byte("a"), 2)
	f.Add(bytes.Repeat([]byte("k"), 255), []byte(nil), 1)
	f.Add(bytes.Repeat([]byte("k"), 256), []byte(nil), 1)
	f.Add([]byte("a b"), []byte("\x7f"), 1)
	f.Add([]byte("schlüssel"), []byte("\r\n"), 0)
	f.Fuzz(func(t *testing.T, first, second []byte, times int) {
		var ctx fasthttp.RequestCtx
		for _, value := range [][]byte{first, second}[:min(max(times, 0), 2)] {
			ctx.Request.Header.AddBytesV("Idempotency-Key", value)
		}
		key, detail := idempotencyKey(&ctx)
		switch {
		case detail != "" && key != "":
			t.Errorf("%q is refused and read", key)
		case detail == "" && key == "" && times > 0:
			t.Error("a header was overlooked")
		case len(key) > order.MaxIdempotencyKeyBytes,
			strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }):
			t.Errorf("read as %q", key)
		case key != "" && (times != 1 || key != string(first)):
			t.Errorf("%q is read as %q", first, key)
		}
	})
}

// FuzzClientAddress: the address is the connection's, or one that a chain of trusted proxies has told.
func FuzzClientAddress(f *testing.F) {
	trusted, err := parseProxies("10.0.0.0/8,2001:db8::/32")
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{10, 0, 0, 1}, "203.0.113.7", "")
	f.Add([]byte{203, 0, 113, 9}, "198.51.100.1", "")
	f.Add([]byte{10, 0, 0, 1}, "198.51.100.1, 203.0.113.7, 10.1.2.3", "10.0.0.2")
	f.Add([]byte{10, 0, 0, 1}, "unknown, 10.0.0.9", "fe80::1%eth0")
	f.Add(netip.MustParseAddr("2001:db8::1").AsSlice(), "::ffff:10.0.0.3,::ffff:203.0.113.7", " , ")
	f.Add([]byte{}, strings.Repeat("10.0.0.1,", 100), "")
	f.Add([]byte{10, 0, 0, 1}, "198.51.100.1", "2001:db9::6%\", 203.0.113.7")
	f.Fuzz(func(t *testing.T, from []byte, first, second string) {
		var request fasthttp.Request
		request.Header.Add("X-Forwarded-For", first)
		request.Header.Add("X-Forwarded-For", second)
		var ctx fasthttp.RequestCtx
		ctx.Init(&request, &net.TCPAddr{IP: from}, nil)
		by := proxies{trusted, "X-Forwarded-For"}
		got, ok := by.client(&ctx)
		if !ok {
			return
		}

		remote, _ := netip.AddrFromSlice(from)
		remote = remote.Unmap()
		if got.Is4In6() || got.Zone() != "" {
			t.Errorf("%v is in no form that bans are compared in", got)
		}
		if got == remote || !by.trust(remote) {
			if got != remote {
				t.Errorf("%v was told by %v, who is not trusted", got, remote)
			}
			return
		}
		// Whoever was nearer than the client is trusted.
		var hops []string
		for _, field := range ctx.Request.Header.PeekAll("X-Forwarded-For") {
			hops = append(hops, strings.Split(string(field), ",")...)
		}
		for i, hop := range slices.Backward(hops) {
			if strings.TrimSpace(hop) == "" {
				continue
			}
			addr, ok := parseHop(hop)
			if !ok {
				t.Fatalf("%v is behind %q", got, hop)
			}
			if addr == got {
				break
			}
			if !by.trust(addr) || i == 0 {
				t.Fatalf("%v is behind %v, or nowhere in %q", got, addr, hops)
			}
		}
	})
}

var testCursors = cursors{token.NewKeeper(secret)}

func FuzzOrderCursor(f *testing.F) {
	for _, text := range []string{
		"", "!", "AAAA", "AaH42HWLc7qdGZkwkpSgPQ", "AaH42HWLc7qdGZkwkpSgPR", "AaH42HWLc7qdGZkw\nkpSgPQ",
		"AaH42HWLc7qdGZkwkpSgPQ==",
	} {
		f.Add([]byte(text))
	}
	f.Add([]byte(testCursors.order(order.NewID())))
	f.Fuzz(func(t *testing.T, text []byte) {
		id, ok := testCursors.readOrder(text)
		if ok && len(text) > 0 && testCursors.order(id) != string(text) || ok && len(text) == 0 && id != uuid.Nil {
			t.Errorf("%q is read as %v", text, id)
		}
	})
}

func FuzzProductCursor(f *testing.F) {
	for _, text := range []string{
		"", "!", "AAAA", "AAAAAAAAADI", "AAAAAAAAADJ", "AAAAAAAAAAA", "__________8", "AAAA\nAAAAADI",
	} {
		f.Add([]byte(text))
	}
	f.Add([]byte(testCursors.product(7)))
	f.Fuzz(func(t *testing.T, text []byte) {
		id, ok := testCursors.readProduct(text)
		if ok && len(text) > 0 && (id <= 0 || testCursors.product(id) != string(text)) || ok && len(text) == 0 &&
			id != 0 {
			t.Errorf("%q is read as %d", text, id)
		}
	})
}

func FuzzWait(f *testing.F) {
	for _, text := range []string{
		"", "0", "10", "10s", "20s", "20001ms", "-1s", "1h", "9999999h", "0.5s", "1s500ms", "+1s", "1e1s", "NaNs",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if wait, ok := parseWait(text); ok && (wait < 0 || wait > maxStatusWait) {
			t.Errorf("%q is read as %v", text, wait)
		}
	})
}

// FuzzAccountBodies sends a body to what reads the bodies of register, login and refresh.
func FuzzAccountBodies(f *testing.F) {
	for _, body := range []string{
		"", "null", "[]", "{}", `{"email":"ada@example.org","name":"Ada","password":"seven quiet otters knit"}`,
		`{"email":1}`, `{"email":"a@b","name":"","password":""}`, "{\"name\":\"\xff\",\"email\":\"ada@example.org\"}",
		`{"refresh_token":"mJ0tWq1N5bq0cY8mXo2Dq8xw3F4S6uVn0aRkEzPjGhI"}`, `{"refresh_token":"mJ0t"}`,
		`{"email":"ada@example.org","name":"\u202e","password":"\ud800aaaaaaaaaa"}`, `{"refresh_token":[]}`,
		`{"email":"ADA@EXAMPLE.ORG","Name":" A ","PASSWORD":"          a"}`,
	} {
		f.Add("application/json", []byte(body))
	}
	f.Add("application/json; charset=utf-8", []byte("{}"))
	f.Add("text/plain", []byte("{}"))
	f.Add(";", []byte("{}"))
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		refused := func(ctx *fasthttp.RequestCtx, ok bool, codes ...code) {
			c, _ := ctx.UserValue(codeValue).(code)
			status := ctx.Response.StatusCode()
			if ok && c == "" || !ok && status >= 400 && status <= 499 && slices.Contains(codes, c) {
				return
			}
			t.Errorf("read: %v, and answered with %d %s", ok, status, c)
		}
		request := func() *fasthttp.RequestCtx {
			ctx := &fasthttp.RequestCtx{}
			ctx.Request.Header.SetContentType(contentType)
			ctx.Request.SetBody(body)
			return ctx
		}
		ctx := request()
		in, ok := readRegistration(ctx)
		refused(ctx, ok, unsupportedMediaType, malformedRequest, invalidEmail, invalidName, weakPassword)
		if name, chars := utf8.RuneCountInString(in.Name),
			utf8.RuneCountInString(password.Normalize(in.Password)); ok &&
			(len(in.Email) < 3 || len(in.Email) > account.MaxEmailBytes ||
				name < 1 || name > account.MaxUserNameChars ||
				chars < password.MinChars || chars > password.MaxChars ||
				!utf8.ValidString(in.Email+in.Name+in.Password)) {
			t.Errorf("read as %+v", in)
		}
		ctx = request()
		raw, ok := readRefreshToken(ctx)
		refused(ctx, ok, unsupportedMediaType, malformedRequest, invalidRefreshToken)
		if ok && len(raw) != refreshTokenBytes {
			t.Errorf("read as a token of %d bytes", len(raw))
		}
		ctx = request()
		var login struct{ Email, Password string }
		refused(ctx, readFields(ctx, &login, "{}"), unsupportedMediaType, malformedRequest)
	})
}
