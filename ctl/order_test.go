package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"stampede/internal/account"
	"stampede/internal/ledger"
	"stampede/internal/order"
	"stampede/internal/queue"
	"stampede/internal/stock"
	"stampede/localstack/stacktest"
)

// told is what ctl order show says, to people and as JSON.
func (p parts) told(t *testing.T, id order.OrderID) (text string, s orderStory, err error) {
	t.Helper()
	var people, machine bytes.Buffer
	err = p.showOrder(t.Context(), &people, id, false)
	if err2 := p.showOrder(t.Context(), &machine, id, true); (err == nil) != (err2 == nil) {
		t.Fatal(err, err2)
	}
	if err := json.Unmarshal(machine.Bytes(), &s); err != nil {
		t.Fatal(err)
	}
	for _, name := range regexp.MustCompile(`"([^"]*)":`).FindAllStringSubmatch(machine.String(), -1) {
		if !regexp.MustCompile(`^[a-z_]+$`).MatchString(name[1]) {
			t.Errorf("the name %q in JSON", name[1])
		}
	}
	for i := range s.Events[min(len(s.Events), 1):] {
		if s.Events[i+1].At.Before(s.Events[i].At) {
			t.Errorf("events are not in order: %+v", s.Events)
		}
	}
	return people.String(), s, err
}

// mustTell checks the story of an order: each word is in what people see.
func (p parts) mustTell(t *testing.T, id order.OrderID, step string, words ...string) orderStory {
	t.Helper()
	text, s, err := p.told(t, id)
	if err != nil {
		t.Errorf("%s: %v", step, err)
	}
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("%s: the story does not say %q:\n%s", step, word, text)
		}
	}
	return s
}

// TestOrderShow follows an order from its reservation through a dead letter and a redrive to its decision. It is not
// parallel, as it changes the environment.
func TestOrderShow(t *testing.T) {
	queues := stacktest.Queues(t)
	for _, variable := range queues.Env() {
		name, value, _ := strings.Cut(variable, "=")
		t.Setenv(name, value)
	}
	p, product := testParts(t, 10, 0)
	var err error
	if p.queue, err = queue.Open(t.Context(), os.Getenv("ORDERS_QUEUE"), os.Getenv("ORDERS_DLQ")); err != nil {
		t.Fatal(err)
	}
	nobodys := order.NewID()
	if text, _, err := p.told(t, nobodys); err == nil || !strings.Contains(text, "Nobody knows it") {
		t.Errorf("an order that there is not: %v\n%s", err, text)
	}

	request := stock.Request{OrderID: order.NewID(), UserID: 7, Quantity: 2, IdempotencyKey: "k\x1b[2J"}
	_, results, err := p.stock.Reserve(t.Context(), product.ID, 0, []stock.Request{request})
	if err != nil {
		t.Fatal(err)
	}
	o := results[0].Order
	s := p.mustTell(t, o.ID, "reserved", "The queue has not acknowledged it", "made the order's id",
		fmt.Sprintf("reserved 2 of product %d for user 7, at 1.00 EUR each", product.ID),
		`"k\x1b[2J"`, "2 units are reserved, it is in the outbox")
	if len(s.Places) != 1 || s.Places[0].ReservedUnits != 2 || !s.Places[0].InOutbox ||
		s.State.Status != order.Pending || s.Decision != nil {
		t.Errorf("reserved: %+v", s)
	}

	// A worker gives it up, and fails it.
	bodies, _ := order.Pack([]order.Order{o})
	if err := p.stock.Acknowledge(t.Context(), product.ID, []string{results[0].Batch}); err != nil {
		t.Fatal(err)
	}
	p.mustTell(t, o.ID, "sent", "Its units are reserved. The queue counts no message")
	if err := p.queue.DeadLetter(t.Context(), string(bodies[0]), "MySQL said no", 3); err != nil {
		t.Fatal(err)
	}
	s = p.mustTell(t, o.ID, "dead letter", "in a dead letter", "1 of them hold it; 1 of 1 were looked at",
		`after 3 attempts: "MySQL said no"`)
	if len(s.DeadLetters) != 1 || s.DeadLetters[0].Attempts != 3 {
		t.Errorf("dead letter: %+v", s.DeadLetters)
	}
	if _, err := p.ledger.Fail(t.Context(), o, order.DeadLetter); err != nil {
		t.Fatal(err)
	}
	p.mustTell(t, o.ID, "failed", "It is decided: failed (dead_letter). Redis still has it on its way",
		"its buyer is shown that it is pending", "It is in a dead letter as well")

	// An operator has it decided anew.
	if err := p.ledger.Redrive(t.Context(), o.ID); err != nil {
		t.Fatal(err)
	}
	decisions, err := p.ledger.Decide(t.Context(), product.ID, []order.Order{o})
	if err == nil {
		_, err = p.stock.Settle(t.Context(), product.ID, decisions)
	}
	if err != nil {
		t.Fatal(err)
	}
	s = p.mustTell(t, o.ID, "completed", "It is decided: completed. It is in a dead letter as well",
		"took the failure back",
		"decided: completed", fmt.Sprintf("changed the stock of product %d by -2 to 8, its version 2", product.ID),
		"neither a reservation nor an outbox entry")
	if len(s.Redrives) != 1 || len(s.Ledger) != 1 || s.Ledger[0].Balance != 8 || s.Decision.Status != order.Completed {
		t.Errorf("completed: %+v", s)
	}
	if depth, err := p.queue.Depth(t.Context()); err != nil || depth.Dead != 1 {
		t.Errorf("the dead letter is gone: %+v, %v", depth, err)
	}
	if messages, err := p.queue.DeadLetters().Receive(t.Context(), time.Second, time.Second); err != nil ||
		len(messages) != 1 {
		t.Errorf("others do not see the dead letter: %v, %v", messages, err)
	}
}

// TestOrderSummary: what is said of an order that is nowhere as it should be.
func TestOrderSummary(t *testing.T) {
	t.Parallel()
	id := order.NewID()
	now := time.Now()
	record := func(status order.Status) *order.Record {
		return &order.Record{Order: order.Order{ID: id}, Status: status}
	}
	reserved := []orderPlace{{ProductID: 1, ReservedUnits: 1}}
	for want, test := range map[string]struct {
		s     orderStory
		after time.Duration
	}{
		"a message on the queue holds it until": {orderStory{Places: reserved,
			Queue: queue.Depth{Visible: 1}}, 0},
		"The queue counts no message":       {orderStory{Places: reserved}, 0},
		"its message is nowhere to be seen": {orderStory{Places: reserved}, time.Hour},
		"If the queue holds it, it is decided all the same": {orderStory{
			Redrives: make([]orderRedriven, 1), Queue: queue.Depth{InFlight: 1}}, 0},
		"Redis may have lost data":    {orderStory{Redrives: make([]orderRedriven, 1)}, 0},
		"Only a message on the queue": {orderStory{Queue: queue.Depth{Visible: 1}}, 0},
		"It has taken units 2 times": {orderStory{Decision: record(order.Completed),
			Ledger: []ledgerEntry{{Delta: -1}, {Delta: -1}}}, 0},
		"It has taken units 0 times": {orderStory{Decision: record(order.Completed)}, 0},
		"It has returned units 1 times, which must be 0 times": {orderStory{Decision: record(order.Completed),
			Ledger: []ledgerEntry{{Delta: -1}, {Delta: 1}}}, 0},
		"It was not paid (unpaid). Its units were taken back. It has returned units 0 times, which must be 1": {
			orderStory{Decision: record(order.Cancelled), Ledger: []ledgerEntry{{Delta: -1}},
				Hold: &orderHold{State: order.Cancelled, Reason: ledger.Unpaid, Returned: 3}}, 0},
		"It has not returned as many units as it took, but -1": {
			orderStory{Decision: record(order.Cancelled), Ledger: []ledgerEntry{{Delta: -2}, {Delta: 1}},
				Hold: &orderHold{State: order.Cancelled, Returned: 3}}, 0},
		"being cancelled (by_buyer), once 2 attempts": {
			orderStory{Decision: record(order.Closing), Ledger: []ledgerEntry{{Delta: -2}},
				Hold: &orderHold{State: order.Closing, Reason: ledger.ByBuyer, Attempts: 2}}, 0},
		"It has changed the stock though it failed": {orderStory{Decision: record(order.Failed),
			Ledger: make([]ledgerEntry, 1)}, 0},
		"Redis still has it on its way, and its buyer is shown that it is pending": {orderStory{
			Decision: record(order.Failed), Places: reserved}, 0},
	} {
		test.s.ID = id
		if got := test.s.summary(now.Add(test.after)); !strings.Contains(got, want) {
			t.Errorf("the summary is %q, want %q", got, want)
		}
	}
}

func TestShowArguments(t *testing.T) {
	for _, name := range []string{"MYSQL_DSN", "REDIS_URL"} {
		t.Setenv(name, "x@tcp(127.0.0.1:1)/x")
	}
	t.Setenv("REDIS_URL", "redis://127.0.0.1:1")
	for _, args := range [][]string{
		{"order", "show"}, {"order", "show", "7"}, {"order", "show", "--json"},
		{"order", "show", uuid.NewString(), "more"},
		{"user", "show"}, {"user", "show", "7", "8"},
	} {
		err := dispatch(t.Context(), args)
		if _, ok := errors.AsType[*usageError](err); !ok {
			t.Errorf("ctl %q: %v", args, err)
		}
	}
}

// TestUserShow: all of an account that an operator asks for, found by address and by id, and nothing that is secret.
func TestUserShow(t *testing.T) {
	t.Parallel()
	p, product := testParts(t, 10, 0)
	const hash = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"
	user, err := p.accounts.AddUser(t.Context(), account.User{Email: "Ada@example.org", Name: "Ada", PasswordHash: hash,
		Role: account.Merchant})
	if err != nil {
		t.Fatal(err)
	}
	other, err := p.accounts.AddUser(t.Context(), account.User{Email: "bob@example.org", Name: "Bob",
		PasswordHash: hash, Role: account.Buyer})
	if err != nil {
		t.Fatal(err)
	}
	bought := p.buy(t, product, user.ID)
	p.buy(t, product, other.ID)
	session, err := p.accounts.StartSession(t.Context(), user, [32]byte{1}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range []account.Ban{{UserID: user.ID, Reason: "bots"}, {UserID: other.ID, Reason: "another's"}} {
		if err := p.accounts.Ban(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	show := func(who string, words ...string) {
		t.Helper()
		for _, asJSON := range []bool{false, true} {
			var out bytes.Buffer
			if err := showUser(t.Context(), &out, p.db, who, asJSON); err != nil {
				t.Fatal(err)
			}
			for _, word := range words {
				if !strings.Contains(out.String(), word) {
					t.Errorf("it does not say %q:\n%s", word, &out)
				}
			}
			if strings.Contains(out.String(), "argon2") || strings.Contains(out.String(), "another's") {
				t.Errorf("it says what is not asked for:\n%s", &out)
			}
		}
	}
	show("ada@example.org", "Ada@example.org", "merchant", "bots", session.ID.String(), bought.ID.String(), "completed")
	show(fmt.Sprint(user.ID), session.ID.String())

	if _, err := p.accounts.Disable(t.Context(), user.ID); err != nil {
		t.Fatal(err)
	}
	report, err := reportUser(t.Context(), p.db, "ada@example.org", time.Now())
	if err != nil || report.User.DisabledAt.IsZero() || len(report.Sessions) != 1 || report.Sessions[0].Live ||
		len(report.Orders) != 1 {
		t.Errorf("disabled: %+v, %v", report, err)
	}
	for _, who := range []string{"nobody@example.org", "9999", "no address"} {
		if err := showUser(t.Context(), &bytes.Buffer{}, p.db, who, false); err == nil ||
			!strings.Contains(err.Error(), "there is no user") {
			t.Errorf("user %q: %v", who, err)
		}
	}
}
