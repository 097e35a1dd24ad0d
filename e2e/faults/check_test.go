package main

import (
	"go/parser"
	"go/token"
	"net/http"
	"strings"
	"testing"
	"time"
)

const (
	first  = "01a1f8d8-758b-73ba-9d19-99309294a03d"
	second = "01a1f8d8-758b-73ba-9d19-99309294a03e"
	third  = "01a1f8d8-758b-73ba-9d19-99309294a03f"
)

// sale is a small sale that went well: two orders of product 1, one completed and one failed.
func sale() ([]*intent, []product, *books) {
	accepted := func(id string) answer {
		return answer{status: http.StatusAccepted, orderID: id, body: `{"order_id":"` + id + `"}`, got: time.Second}
	}
	intents := []*intent{
		{user: 1, product: 1, quantity: 2, key: "a", answers: []answer{
			{status: 503, code: "outcome_unknown", orderID: first}, accepted(first), accepted(first),
		}},
		{user: 2, product: 1, quantity: 1, answers: []answer{accepted(second)}},
		{user: 3, product: 1, quantity: 1, key: "c", answers: []answer{{status: 409, code: "sold_out"}}},
	}
	sold := []product{{id: 1, stock: 10, limit: 3, restocked: 5}}
	b := &books{
		orders: map[string][]orderRow{
			first:  {{id: first, user: 1, product: 1, quantity: 2, status: "completed", key: "a"}},
			second: {{id: second, user: 2, product: 1, quantity: 1, status: "failed", reason: "dead_letter"}},
		},
		ledger: []ledgerRow{
			{product: 1, version: 1, delta: 10, balance: 10, reason: "initial", ref: "initial"},
			{product: 1, version: 2, delta: -2, balance: 8, reason: "order", ref: first},
			{product: 1, version: 3, delta: 5, balance: 13, reason: "restock", ref: "d"},
		},
		stock: map[int64]int64{1: 13},
		redis: map[int64]stockLevel{1: {loaded: true, available: 13, reserved: map[string]int64{},
			bought: map[int64]int64{1: 2}}},
		shown: map[string]string{first: "completed", second: "failed"},
	}
	return intents, sold, b
}

// TestJudge damages the record or the books in one place after the other: the checker must find it, and say which
// promise it breaks.
func TestJudge(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, promise, says string
		damage              func(in []*intent, sold []product, b *books)
	}{
		{"nothing", "", "", func([]*intent, []product, *books) {}},
		{"oversold", "P1", "2 units sold of 1",
			func(_ []*intent, sold []product, _ *books) { sold[0].stock, sold[0].restocked = 1, 0 }},
		{"negative stock", "P1", "is -1", func(_ []*intent, _ []product, b *books) { b.stock[1] = -1 }},
		{"an accepted order is gone", "P2", "and is nowhere",
			func(_ []*intent, _ []product, b *books) { delete(b.orders, second) }},
		{"an accepted order is stuck", "P2", "reserved and in the outbox", func(_ []*intent, _ []product, b *books) {
			delete(b.orders, second)
			s := b.redis[1]
			s.reserved[second], s.outbox = 1, []string{second}
			b.redis[1] = s
		}},
		{"an accepted order is neither", "P2", `is "odd"`,
			func(_ []*intent, _ []product, b *books) { b.orders[second][0].status = "odd" }},
		{"an accepted order awaits its payment for ever", "P2", `is "awaiting_payment"`,
			func(_ []*intent, _ []product, b *books) { b.orders[first][0].status = "awaiting_payment" }},
		{"a cancelled order was never booked", "P3", "is cancelled and not in the ledger",
			func(_ []*intent, _ []product, b *books) { b.orders[second][0].status = "cancelled" }},
		{"a cancelled order still has its units", "P4", "stock 13 + completed 0",
			func(_ []*intent, _ []product, b *books) { b.orders[first][0].status = "cancelled" }},
		{"Redis counts a buyer's units that came back", "P7", "Redis counts 2",
			func(_ []*intent, _ []product, b *books) { b.orders[first][0].returned = true }},
		{"its buyer is shown another state", "P2", `shown "pending"`,
			func(_ []*intent, _ []product, b *books) { b.shown[first] = "pending" }},
		{"an order of nobody", "P2", "nobody used", func(_ []*intent, _ []product, b *books) {
			b.orders[third] = []orderRow{{id: third, user: 9, product: 1, quantity: 1, status: "failed", key: "z"}}
		}},
		{"an order of nobody without a key", "P2", "placed by nobody", func(_ []*intent, _ []product, b *books) {
			b.orders[third] = []orderRow{{id: third, user: 9, product: 1, quantity: 1, status: "completed"}}
		}},
		{"an order with other units", "P2", "was placed as",
			func(_ []*intent, _ []product, b *books) { b.orders[second][0].quantity = 3 }},
		{"a message is left", "P2", "queue still has 1",
			func(_ []*intent, _ []product, b *books) { b.queue.found = []string{"{}"} }},
		{"two rows", "P3", "has 2 rows", func(_ []*intent, _ []product, b *books) {
			b.orders[first] = append(b.orders[first], b.orders[first][0])
		}},
		{"booked twice", "P3", "2 times", func(_ []*intent, _ []product, b *books) {
			b.ledger = append(b.ledger,
				ledgerRow{product: 1, version: 4, delta: -2, balance: 11, reason: "order", ref: first})
		}},
		{"not booked", "P3", "not in the ledger",
			func(_ []*intent, _ []product, b *books) { b.ledger[1].reason = "restock" }},
		{"booked with other units", "P3", "the ledger 1",
			func(_ []*intent, _ []product, b *books) { b.ledger[1].delta = -1 }},
		{"a failed order is booked", "P3", "is failed, and",
			func(_ []*intent, _ []product, b *books) { b.orders[first][0].status = "failed" }},
		{"a booked order does not exist", "P3", "does not exist",
			func(_ []*intent, _ []product, b *books) { b.ledger[1].ref = third }},
		{"units from nowhere", "P4", "not initial 10 + restocked 5",
			func(_ []*intent, _ []product, b *books) { b.stock[1]++ }},
		{"Redis has too many", "P4", "Redis has 14 available", func(_ []*intent, _ []product, b *books) {
			s := b.redis[1]
			s.available++
			b.redis[1] = s
		}},
		{"a gap in the ledger", "P4", "is version 4",
			func(_ []*intent, _ []product, b *books) { b.ledger[2].version = 4 }},
		{"a wrong balance", "P4", "with balance 14",
			func(_ []*intent, _ []product, b *books) { b.ledger[2].balance = 14 }},
		{"another restock", "P4", "were restocked",
			func(_ []*intent, _ []product, b *books) { b.ledger[2].reason = "initial" }},
		{"a reservation is left", "P5", "which is completed",
			func(_ []*intent, _ []product, b *books) { b.redis[1].reserved[first] = 2 }},
		{"an outbox entry is left", "P5", "in the outbox", func(_ []*intent, _ []product, b *books) {
			s := b.redis[1]
			s.outbox = []string{first}
			b.redis[1] = s
		}},
		{"over the limit", "P7", "the limit is 1", func(_ []*intent, sold []product, _ *books) { sold[0].limit = 1 }},
		{"Redis counts a buyer's units wrong", "P7", "Redis counts 1",
			func(_ []*intent, _ []product, b *books) { b.redis[1].bought[1] = 1 }},
		{"Redis counts a failed order", "P7", "Redis counts 1",
			func(_ []*intent, _ []product, b *books) { b.redis[1].bought[2] = 1 }},
		{"one key, two orders", "P8", "2 completed orders", func(in []*intent, _ []product, b *books) {
			in[0].answers = append(in[0].answers, answer{status: 503, code: "outcome_unknown", orderID: third})
			b.orders[third] = []orderRow{{id: third, user: 1, product: 1, quantity: 2, status: "completed", key: "a"}}
		}},
		{"one key, two answers", "P8", "one 202 says",
			func(in []*intent, _ []product, _ *books) { in[0].answers[2].body = "{}" }},
		{"a dead letter", "DLQ", "1 dead letters", func(_ []*intent, _ []product, b *books) { b.queue.dead = 1 }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			intents, sold, b := sale()
			test.damage(intents, sold, b)
			broken := judge(intents, sold, b, rules{})
			if test.promise == "" {
				if len(broken) > 0 {
					t.Errorf("found %v", broken)
				}
				return
			}
			for _, f := range broken {
				if f.promise == test.promise && strings.Contains(f.text, test.says) && f.n > 0 {
					return
				}
			}
			t.Errorf("found %+v, not that %q", broken, test.says)
		})
	}
}

// TestJudgeForgetful: what Redis has forgotten it may not know, but MySQL still must.
func TestJudgeForgetful(t *testing.T) {
	t.Parallel()
	intents, sold, b := sale()
	intents[0].answers[2] = answer{status: http.StatusAccepted, orderID: second, body: "other"}
	b.redis[1].bought[1] = 0
	if broken := judge(intents, sold, b, rules{forgetful: true}); len(broken) != 0 {
		t.Errorf("found %v", broken)
	}
	if broken := judge(intents, sold, b, rules{}); len(broken) != 2 {
		t.Errorf("found %v", broken)
	}
}

// TestIndependence: the checker and the record share no code with what they check.
func TestIndependence(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"check.go", "load.go", "money.go", "payers.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range file.Imports {
			if strings.Contains(i.Path.Value, "stampede") {
				t.Errorf("%s imports %s", name, i.Path.Value)
			}
		}
	}
}
