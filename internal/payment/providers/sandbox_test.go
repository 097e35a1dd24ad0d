package providers

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"os"
	"strconv"
	"testing"
	"time"

	"stampede/internal/payment"
)

// TestSandbox is for those who have credentials: of each provider whose variables are set, with PAYMENT_TEST_MODE=true,
// it begins an attempt, asks how it stands, closes it and asks again. No money moves. Without them there is nothing to
// test; the clients themselves are tested against the stand-ins.
//
//	set -a; . ./sandbox.env; set +a
//	go test ./internal/payment/providers -run TestSandbox -v -count=1
func TestSandbox(t *testing.T) {
	if os.Getenv(testMode) != "true" {
		t.Skip("no sandbox: set " + testMode + "=true and the variables of a provider's sandbox")
	}
	set, err := FromEnv(os.Getenv)
	if err != nil || len(set.All) == 0 {
		t.Fatalf("no provider is set up: %v", err)
	}
	for _, p := range set.All {
		t.Run(p.Name(), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			trySandbox(ctx, t, p)
		})
	}
}

func trySandbox(ctx context.Context, t *testing.T, p payment.Provider) {
	t.Helper()
	a := payment.Attempt{
		Number: "T" + strconv.FormatInt(time.Now().UnixMilli(), 36) + rand.Text()[:4], Amount: 10_000,
		Item: "Stampede sandbox test", Expires: time.Now().Add(time.Hour),
		NoticeURL: "https://shop.example/webhooks/" + p.Name(), BackURL: "https://shop.example/back",
	}
	for _, currency := range []string{"TWD", "EUR", "CNY"} {
		if _, ok := p.Offers("", currency); ok {
			a.Currency = currency
			break
		}
	}

	page, err := p.Start(ctx, a)
	if err != nil || page.URL == "" {
		t.Fatalf("begin: page %q, error %v", page.URL, err)
	}
	t.Logf("attempt %s of %d %s: pay at %s", a.Number, a.Amount, a.Currency, page.URL)
	a.Reference = page.Reference
	state, _, err := p.Query(ctx, a)
	if err != nil || state != payment.Open && state != payment.NotFound { // until its buyer comes
		t.Errorf("query: %s, error %v", state, err)
	}

	state, _, err = p.Close(ctx, a)
	t.Logf("close: %s, error %v", state, err)
	offer, _ := p.Offers("", a.Currency)
	if offer.Lapse == 0 && (err != nil || state != payment.Lapsed && state != payment.NotFound) {
		t.Errorf("close: %s, error %v", state, err)
	}
	if state == payment.Taken {
		t.Error("it is paid, and nobody has paid it")
	}
	if _, err := p.ReadNotice(ctx, http.Header{}, []byte("a=b")); !errors.Is(err, payment.ErrForged) {
		t.Errorf("a forged notice: %v", err)
	}
}
