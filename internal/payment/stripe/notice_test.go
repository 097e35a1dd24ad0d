package stripe

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"stampede/internal/payment"
)

// signed are the headers of an event, by the rule as it is documented, without the code under test.
func signed(at time.Time, body, secret string) http.Header {
	mac := hmac.New(sha256.New, []byte(secret))
	_, _ = fmt.Fprintf(mac, "%d.%s", at.Unix(), body)
	h := http.Header{}
	h.Set("Stripe-Signature", fmt.Sprintf("t=%d,v1=%s,v1=%s", at.Unix(), strings.Repeat("00", 32),
		hex.EncodeToString(mac.Sum(nil))))
	return h
}

func event(kind, object string) string {
	return `{"id":"evt_1","object":"event","api_version":"2020-01-01","created":1795860005,"livemode":true,` +
		`"type":"` + kind + `","data":{"object":` + object + `,"previous_attributes":{"amount_refunded":100}}}`
}

const charge = `{"id":"ch_1","amount":8888,"amount_refunded":980,"currency":"eur","livemode":true,` +
	`"metadata":{"attempt":"A1"}}`

func TestReadNotice(t *testing.T) {
	at := time.Unix(1795860005, 0).UTC()
	of := func(kind payment.Kind) payment.Notice {
		n := paidNotice
		n.Kind, n.EventKey, n.At = kind, "cs_1:"+string(kind), at
		return n
	}
	other := payment.Notice{Kind: payment.Other, EventKey: "evt_1"}
	simulated := of(payment.Paid)
	simulated.Simulated = true
	paid := session("complete", "paid")
	c := &Client{WebhookSecret: "whsec_1"}
	for _, test := range []struct {
		body string
		want payment.Notice
	}{
		{event("checkout.session.completed", paid), of(payment.Paid)},
		// Another event of the same change has the same key.
		{event("checkout.session.async_payment_succeeded", paid), of(payment.Paid)},
		{event("checkout.session.completed", session("complete", "unpaid")), of(payment.Issued)},
		{event("checkout.session.async_payment_failed", session("complete", "unpaid")), of(payment.Failed)},
		{event("checkout.session.expired", session("expired", "unpaid")), of(payment.Closed)},
		{event("checkout.session.completed", strings.Replace(paid, `"livemode":true`, `"livemode":false`, 1)),
			simulated},
		{event("charge.refunded", charge), payment.Notice{
			Kind: payment.Refunded, Attempt: "A1", Reference: "ch_1", EventKey: "ch_1:refunded:980", Amount: 880,
			Currency: "EUR", At: at,
		}},
		{event("charge.refunded", strings.Replace(charge, "A1", "", 1)), other},
		{event("charge.dispute.created", `{"id":"dp_1"}`), other},
		// Of somebody else who uses the same account.
		{event("checkout.session.completed", strings.Replace(paid, `"client_reference_id":"A1",`, "", 1)), other},
		{event("checkout.session.completed", strings.Replace(paid, `{"attempt":"A1"}`, "{}", 1)), other},
		{event("checkout.session.completed", strings.Replace(paid, `"mode":"payment"`, `"mode":"setup"`, 1)), other},
	} {
		got, err := c.ReadNotice(t.Context(), signed(time.Now(), test.body, "whsec_1"), []byte(test.body))
		if err != nil || got != test.want {
			t.Errorf("%s:\n\t%+v, error %v, want\n\t%+v", test.body, got, err, test.want)
		}
	}
}

func TestReadNoticeRefuses(t *testing.T) {
	c := &Client{WebhookSecret: "whsec_1"}
	paid := session("complete", "paid")
	body := event("checkout.session.completed", paid)
	for what, test := range map[string]struct {
		header http.Header
		body   string
	}{
		"no signature":     {http.Header{}, body},
		"another's":        {signed(time.Now(), body, "whsec_2"), body},
		"another body":     {signed(time.Now(), body, "whsec_1"), strings.Replace(body, "8888", "8889", 1)},
		"a byte more":      {signed(time.Now(), body, "whsec_1"), body + " "},
		"an old one":       {signed(time.Now().Add(-6*time.Minute), body, "whsec_1"), body},
		"no JSON":          {nil, "x"},
		"no event":         {nil, "{}"},
		"no session":       {nil, event("checkout.session.completed", "[]")},
		"no charge":        {nil, event("charge.refunded", "{}")},
		"no such currency": {nil, strings.Replace(body, `"eur"`, `"xxx"`, 1)},
	} {
		if test.header == nil {
			test.header = signed(time.Now(), test.body, "whsec_1")
		}
		n, err := c.ReadNotice(t.Context(), test.header, []byte(test.body))
		if !errors.Is(err, payment.ErrForged) || n != (payment.Notice{}) {
			t.Errorf("%s: %+v, error %v", what, n, err)
		}
	}
	if taken, not := c.Answer(true), c.Answer(false); taken.Status != 200 || not.Status != 400 {
		t.Errorf("answers %+v, %+v", taken, not)
	}
}
