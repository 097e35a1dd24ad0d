package paypal

import (
	"context"
	"encoding/json"
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
// of the order, to be captured; else that of the capture or the refund. Events that no attempt depends on are
// payment.Other. The errors are those of Verify.
func (w *Webhooks) ReadNotice(ctx context.Context, header http.Header, body []byte) (payment.Notice, error) {
	if err := w.Verify(ctx, header, body); err != nil {
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

	switch kind, known := kinds[event.Type]; {
	case !known:
		return payment.Notice{Kind: payment.Other, EventKey: event.ID}, nil
	case kind == payment.Approved || event.Type == "CHECKOUT.PAYMENT-APPROVAL.REVERSED":
		return readOrder(event.ID, kind, event.Resource)
	default:
		var told capture
		if err := json.Unmarshal(event.Resource, &told); err != nil {
			return payment.Notice{}, payment.Forged("it has no capture")
		}
		return told.notice(kind)
	}
}

// readOrder reads an event of an order that is not captured yet.
func readOrder(eventID string, kind payment.Kind, resource json.RawMessage) (payment.Notice, error) {
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
	reference := told.ID
	if told.OrderID != "" {
		reference = told.OrderID
	}
	return payment.Notice{
		Kind: kind, Attempt: unit.Number, Reference: reference, EventKey: eventID, Merchant: unit.Payee.Merchant,
		Amount: amount, Currency: unit.Amount.Currency,
	}, nil
}
