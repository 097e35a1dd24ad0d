package main

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"unicode/utf8"

	"stampede/internal/account"
	"stampede/internal/password"
	"stampede/internal/problem"
)

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
		refused := func(err error, codes ...problem.Code) bool {
			refusal, ok := errors.AsType[*problem.Error](err)
			if err != nil && (!ok || refusal.Code.Status() < 400 || refusal.Code.Status() > 499 ||
				!slices.Contains(codes, refusal.Code)) {
				t.Errorf("refused with %v", err)
			}
			return err != nil
		}
		request := func() *http.Request {
			r := httptest.NewRequest("POST", "/", bytes.NewReader(body))
			r.Header["Content-Type"] = []string{contentType}
			return r
		}
		r := request()
		in, err := readRegistration(r)
		ok := !refused(err, problem.UnsupportedMediaType, problem.MalformedRequest,
			problem.InvalidEmail, problem.InvalidName, problem.WeakPassword)
		if name, chars := utf8.RuneCountInString(in.Name),
			utf8.RuneCountInString(password.Normalize(in.Password)); ok &&
			(len(in.Email) < 3 || len(in.Email) > account.MaxEmailBytes ||
				name < 1 || name > account.MaxUserNameChars ||
				chars < password.MinChars || chars > password.MaxChars ||
				!utf8.ValidString(in.Email+in.Name+in.Password)) {
			t.Errorf("read as %+v", in)
		}
		r = request()
		raw, err := readRefreshToken(r)
		if !refused(err, problem.UnsupportedMediaType, problem.MalformedRequest,
			problem.InvalidRefreshToken) && len(raw) != refreshTokenBytes {
			t.Errorf("read as a token of %d bytes", len(raw))
		}
		r = request()
		var login struct{ Email, Password string }
		refused(readFields(r, &login, "{}"), problem.UnsupportedMediaType, problem.MalformedRequest)
	})
}
