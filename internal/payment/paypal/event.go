package paypal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"stampede/internal/payment"
)

// kinds are the events that an attempt depends on.
var kinds = map[string]payment.Kind{
	"CHECKOUT.ORDER.APPROVED":   payment.Approved,
	"PAYMENT.CAPTURE.COMPLETED": payment.Paid,
	"PAYMENT.CAPTURE.PENDING":   payment.Issued, // on its way: not paid, and not failed
	"PAYMENT.CAPTURE.DENIED":    payment.Failed,
	"PAYMENT.CAPTURE.DECLINED":  payment.Failed,
	"PAYMENT.CAPTURE.REFUNDED":  payment.Refunded,
	"PAYMENT.CAPTURE.REVERSED":  payment.Refunded,

	"CHECKOUT.PAYMENT-APPROVAL.REVERSED": payment.Failed,
}

// ReadNotice verifies a webhook and reads what it tells. Of an order that was approved the reference is PayPal's number
// of the order, to be captured. Of a payment it asks PayPal for the capture itself, which is then what is told: the
// signature binds the body by a CRC-32 only. Events that no attempt depends on are payment.Other.
func (c *Client) ReadNotice(ctx context.Context, header http.Header, body []byte) (payment.Notice, error) {
	verify := c.Webhooks.Verify
	if c.Postback {
		verify = c.verifyByPostback
	}
	if err := verify(ctx, header, body); err != nil {
		return payment.Notice{}, err
	}
	var event struct {
		ID       string          `json:"id"`
		Type     string          `json:"event_type"`
		Resource json.RawMessage `json:"resource"`
	}
	if err := json.Unmarshal(body, &event); err != nil || event.ID == "" {
		return payment.Notice{}, payment.Forged("it is no event")
	}

	kind, known := kinds[event.Type]
	if !known {
		return payment.Notice{Kind: payment.Other, EventKey: event.ID}, nil
	}
	if kind == payment.Approved || event.Type == "CHECKOUT.PAYMENT-APPROVAL.REVERSED" {
		return c.readOrder(event.ID, kind, event.Resource)
	}
	var told capture
	if err := json.Unmarshal(event.Resource, &told); err != nil {
		return payment.Notice{}, payment.Forged("it has no capture")
	}
	switch {
	case kind == payment.Paid:
		return c.readPayment(ctx, told.ID)
	case kind == payment.Refunded && told.Number == "": // one that was not made here may name no attempt
		return payment.Notice{Kind: payment.Other, EventKey: event.ID}, nil
	}
	return c.notice(&told, kind)
}

// readPayment asks for the capture of which a notice says that it has taken money.
func (c *Client) readPayment(ctx context.Context, id string) (payment.Notice, error) {
	if id == "" {
		return payment.Notice{}, payment.Forged("it has no capture")
	}
	found, err := c.capture(ctx, id)
	switch {
	case errors.Is(err, errNotFound):
		return payment.Notice{}, payment.Forged("PayPal knows no such capture")
	case err != nil:
		return payment.Notice{}, asUnknown(err)
	case !found.isTaken():
		return payment.Notice{}, payment.Forged("the capture is %.20q", found.Status)
	}
	return c.notice(&found, payment.Paid)
}

// verifyByPostback has PayPal verify a webhook. The event is sent as the bytes that came, as PayPal takes it for forged
// if it was read and written anew.
func (c *Client) verifyByPostback(ctx context.Context, header http.Header, body []byte) error {
	if event := bytes.TrimSpace(body); !json.Valid(event) || event[0] != '{' {
		return payment.Forged("it is no event")
	}
	if err := checkHeader(header); err != nil {
		return err
	}
	asked, err := json.Marshal(map[string]string{
		"auth_algo": header.Get(headerMethod), "cert_url": header.Get(headerCert), "webhook_id": c.Webhooks.ID,
		"transmission_id": header.Get(headerID), "transmission_sig": header.Get(headerSig),
		"transmission_time": header.Get(headerTime),
	})
	if err != nil {
		return err
	}
	asked = append(asked[:len(asked)-1], `,"webhook_event":`...)
	asked = append(append(asked, body...), '}')
	var told struct {
		Status string `json:"verification_status"`
	}
	switch err := c.call(ctx, http.MethodPost, verifyPath, "", asked, &told); {
	case err != nil:
		return asUnknown(err)
	case told.Status == "FAILURE":
		return payment.Forged("PayPal has not signed it")
	case told.Status != "SUCCESS":
		return fmt.Errorf("%w: the verification is %.20q", payment.ErrUnknown, told.Status)
	}
	return nil
}

// Answer is payment.Provider's: whatever is no success has PayPal repeat a notice up to 25 times in three days.
func (c *Client) Answer(taken bool) payment.Answer {
	if taken {
		return payment.Answer{Status: http.StatusOK, ContentType: "text/plain"}
	}
	return payment.Answer{Status: http.StatusBadRequest, ContentType: "text/plain"}
}

// readOrder reads an event of an order that is not captured yet.
func (c *Client) readOrder(eventID string, kind payment.Kind, resource json.RawMessage) (payment.Notice, error) {
	var told struct {
		ID      string `json:"id"`
		OrderID string `json:"order_id"` // where the order is named and not shown
		Units   []struct {
			Number string `json:"custom_id"`
			Amount money  `json:"amount"`
			Payee  payee  `json:"payee"`
		} `json:"purchase_units"`
	}
	if err := json.Unmarshal(resource, &told); err != nil || len(told.Units) != 1 || told.Units[0].Number == "" {
		return payment.Notice{}, payment.Forged("it has no order of an attempt")
	}
	unit := told.Units[0]
	amount, err := unit.Amount.minor()
	if err != nil {
		return payment.Notice{}, payment.Forged("it has no amount")
	}
	if err := c.checkPayee(unit.Payee); err != nil {
		return payment.Notice{}, err
	}
	reference := told.ID
	if told.OrderID != "" {
		reference = told.OrderID
	}
	return payment.Notice{
		Kind: kind, Attempt: unit.Number, Reference: reference, EventKey: eventID, Merchant: unit.Payee.Merchant,
		Amount: amount, Currency: unit.Amount.Currency,
	}, nil
}
