package payment

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// fake is a provider that takes whole dollars of Taiwan, and gives back what was paid by card.
type fake struct{ Provider }

func (fake) Name() string { return "fake" }

func (fake) Offers(method, currency string) (Offer, bool) {
	return Offer{Refunds: method == "card", Multiple: 100}, currency == "TWD" && method != "cash"
}

func TestCheck(t *testing.T) {
	good := Refund{
		Number: strings.Repeat("R", 32), Amount: 100,
		Of: Attempt{Number: strings.Repeat("a", 20), Method: "card", Amount: 49900, Currency: "TWD"},
	}
	if offer, err := good.Of.Check(fake{}); err != nil || offer.Multiple != 100 {
		t.Errorf("%+v, error %v", offer, err)
	}
	if err := good.Check(fake{}); err != nil {
		t.Error(err)
	}

	for what, test := range map[string]struct {
		change func(*Refund)
		only   bool // the refund, and not the attempt
	}{
		"another method":       {func(r *Refund) { r.Of.Method = "cash" }, false},
		"another currency":     {func(r *Refund) { r.Of.Currency = "EUR" }, false},
		"no number":            {func(r *Refund) { r.Of.Number = "" }, false},
		"a long number":        {func(r *Refund) { r.Of.Number += "a" }, false},
		"an odd number":        {func(r *Refund) { r.Of.Number = "a_1" }, false},
		"a part of a dollar":   {func(r *Refund) { r.Of.Amount++ }, false},
		"nothing":              {func(r *Refund) { r.Of.Amount = 0 }, false},
		"less than nothing":    {func(r *Refund) { r.Of.Amount = -100 }, false},
		"a refund by hand":     {func(r *Refund) { r.Of.Method = "" }, true},
		"no refund's number":   {func(r *Refund) { r.Number = "" }, true},
		"a long refund number": {func(r *Refund) { r.Number += "R" }, true},
		"too much back":        {func(r *Refund) { r.Amount = 50000 }, true},
		"nothing back":         {func(r *Refund) { r.Amount = 0 }, true},
		"cents back":           {func(r *Refund) { r.Amount = 150 }, true},
	} {
		r := good
		test.change(&r)
		if _, err := r.Of.Check(fake{}); errors.Is(err, ErrRefused) == test.only {
			t.Errorf("%s: the attempt: error %v", what, err)
		}
		if err := r.Check(fake{}); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: the refund: error %v", what, err)
		}
	}
}

// TestPostForm: a provider's secrets follow no redirect, and an answer has an end.
func TestPostForm(t *testing.T) {
	elsewhere := 0
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere++ }))
	t.Cleanup(other.Close)
	body, status := strings.Repeat("x", maxAnswer), http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", other.URL)
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(server.Close)

	if got, err := PostForm(t.Context(), nil, server.URL, url.Values{"a": {"1"}}); err != nil || string(got) != body {
		t.Errorf("%d bytes, error %v", len(got), err)
	}
	body += "x"
	if got, err := PostForm(t.Context(), nil, server.URL, nil); err == nil || got != nil {
		t.Errorf("a byte more: %d bytes", len(got))
	}
	body = ""
	for _, status = range []int{http.StatusFound, http.StatusTemporaryRedirect, http.StatusInternalServerError} {
		if got, err := PostForm(t.Context(), nil, server.URL, nil); err == nil || got != nil {
			t.Errorf("status %d: %q", status, got)
		}
	}
	if elsewhere > 0 {
		t.Errorf("a redirect was followed %d times", elsewhere)
	}
}
