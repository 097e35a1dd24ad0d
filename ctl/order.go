package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"stampede/internal/ledger"
	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/internal/plaintext"
	"stampede/internal/queue"
	"stampede/internal/reconcile"
	"stampede/internal/stock"
	"stampede/internal/till"
)

const (
	// storyLetters bounds the dead letters that are looked at for one order, and with them the time that it takes.
	storyLetters = 1_000
	// storyHidden is how long others do not see these letters, should this process die before it gives them back.
	storyHidden = 30 * time.Second
	// storyTime is the form of times, with the milliseconds by which the steps of an order differ.
	storyTime = "2006-01-02T15:04:05.000Z07:00"
)

// orderStory is all that is known of an order.
type orderStory struct {
	ID      order.OrderID `json:"order_id"`
	Summary string        `json:"summary"`
	Events  []event       `json:"events"` // in the order of time
	// State is the order while it is reserved, Places what Redis holds of it with its product.
	State  *order.Record `json:"redis_state"`
	Places []orderPlace  `json:"redis_places"`
	// Queue cannot be searched, so that only its length is known.
	Queue           queue.Depth     `json:"queue"`
	DeadLetters     []storyLetter   `json:"dead_letters"`
	DeadLettersSeen int             `json:"dead_letters_seen"`
	Decision        *order.Record   `json:"mysql_decision"`
	Ledger          []ledgerEntry   `json:"ledger"`
	Redrives        []orderRedriven `json:"redrives"`
	// Hold is what has become of an order that must be paid, with the attempts to pay it and what goes back.
	Hold     *orderHold      `json:"hold,omitempty"`
	Payments []paymentReport `json:"payments,omitempty"`
	Refunds  []refundReport  `json:"refunds,omitempty"`
}

// orderHold is what has become of an order that must be paid.
type orderHold struct {
	State     order.Status        `json:"state"`
	PayBy     time.Time           `json:"pay_by"`
	Attempts  int64               `json:"open_attempts"` // that may yet be paid
	PaidBy    string              `json:"paid_by,omitempty"`
	Reason    ledger.CancelReason `json:"cancel_reason,omitempty"`
	Returned  int64               `json:"returned_version,omitempty"` // of the product, which took the units back
	ChangedAt time.Time           `json:"changed_at"`
}

// event is something that has happened to an order.
type event struct {
	At    time.Time `json:"at"`
	Where string    `json:"where"`
	What  string    `json:"what"`
}

// orderPlace is what Redis holds of an order with its product.
type orderPlace struct {
	ProductID     order.ProductID `json:"product_id"`
	Bucket        int             `json:"bucket,omitempty"`
	ReservedUnits int64           `json:"reserved_units"`
	InOutbox      bool            `json:"in_outbox"`
	ReservedAt    time.Time       `json:"reserved_at,omitzero"`
	ClaimedAt     time.Time       `json:"claimed_at,omitzero"`
	Marked        bool            `json:"settled_by_another"`
}

// storyLetter is a dead letter that holds the order.
type storyLetter struct {
	ID       string    `json:"message_id"`
	Reason   string    `json:"reason"`
	Attempts int       `json:"attempts"`
	SentAt   time.Time `json:"sent_at"`

	order order.Order
}

// ledgerEntry is a change of the stock by the order.
type ledgerEntry struct {
	ProductID order.ProductID `json:"product_id"`
	Bucket    int             `json:"bucket,omitempty"`
	Version   int64           `json:"version"`
	Delta     int64           `json:"delta"`
	Balance   int64           `json:"balance"`
	At        time.Time       `json:"at"`
}

// orderRedriven is a failure that an operator took back.
type orderRedriven struct {
	FailedAt   time.Time `json:"failed_at"`
	RedrivenAt time.Time `json:"redriven_at"`
}

type orderShowCmd struct {
	ID order.OrderID `arg:"" help:"Id of the order."`
	jsonFlag
	needsAll
}

func (c *orderShowCmd) Run(ctx context.Context) error {
	p, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer p.close()
	return p.showOrder(ctx, os.Stdout, c.ID, c.JSON)
}

// showOrder prints all that is known of an order. If that is nothing it is an error as well.
func (p parts) showOrder(ctx context.Context, w io.Writer, id order.OrderID, asJSON bool) error {
	s, err := p.story(ctx, id)
	if err != nil {
		return err
	}
	if asJSON {
		err = writeJSON(w, s)
	} else {
		err = s.print(w)
	}
	if err == nil && !s.known() {
		err = fmt.Errorf("nothing is known of order %s", id)
	}
	return err
}

// story reads what is known of an order, in the direction in which orders move, so that one that moves meanwhile is
// seen twice rather than nowhere.
func (p parts) story(ctx context.Context, id order.OrderID) (orderStory, error) {
	s := orderStory{
		ID: id, Places: []orderPlace{}, DeadLetters: []storyLetter{}, Ledger: []ledgerEntry{},
		Redrives: []orderRedriven{},
	}

	// Redis: what is with each product.
	products, err := p.stock.Products(ctx)
	if err != nil {
		return s, err
	}
	slices.Sort(products)

	places, err := p.stock.Places(ctx, slices.Compact(products), id)
	if err != nil {
		return s, err
	}

	// The queue, of which only the dead letters can be searched.
	if s.Queue, err = p.queue.Depth(ctx); err != nil {
		return s, err
	}
	if err := s.readLetters(ctx, p.queue.DeadLetters()); err != nil {
		return s, err
	}

	// MySQL: the decision, and what it did to the stock of the products that are concerned.
	var concerned []order.StockID
	for _, place := range places {
		concerned = append(concerned, place.StockID)
	}
	for _, l := range s.DeadLetters {
		concerned = append(concerned, l.order.StockID)
	}
	slices.Sort(concerned)

	history, err := p.ledger.History(ctx, id, slices.Compact(concerned))
	if err != nil {
		return s, err
	}
	if err := s.readPayments(ctx, p.db); err != nil {
		return s, err
	}
	s.fill(places, history)
	return s, nil
}

// readPayments reads what has become of an order that must be paid.
func (s *orderStory) readPayments(ctx context.Context, db *mysql.DB) error {
	hold, err := ledger.New(db).Hold(ctx, s.ID)
	if errors.Is(err, mysql.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	s.Hold = &orderHold{
		State: hold.State, PayBy: hold.PayBy, Attempts: hold.Attempts, PaidBy: hold.PaidBy, Reason: hold.Reason,
		Returned: hold.ReturnedVersion, ChangedAt: hold.ChangedAt,
	}

	payments := &till.Till{DB: db}
	attempts, err := payments.OfOrder(ctx, s.ID)
	if err != nil {
		return err
	}
	for i := range attempts {
		report, err := reportPayment(ctx, payments, &attempts[i], false)
		if err != nil {
			return err
		}
		s.Payments = append(s.Payments, report)
	}
	refunds, err := payments.RefundsOf(ctx, s.ID)
	for i := range refunds {
		s.Refunds = append(s.Refunds, newRefundReport(&refunds[i]))
	}
	return err
}

// readLetters looks for the order in the dead-letter queue, at its first storyLetters letters.
func (s *orderStory) readLetters(ctx context.Context, dead *queue.Queue) error {
	var receipts []string
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), redriveTimeout)
		defer cancel()
		// Those that are gone cannot be given back, and others come back by themselves.
		_ = dead.ChangeVisibility(ctx, receipts, 0)
	}()

	for int64(s.DeadLettersSeen) < min(s.Queue.Dead, storyLetters) {
		messages, err := dead.Receive(ctx, time.Second, storyHidden)
		if err != nil {
			return err
		}
		if len(messages) == 0 {
			return nil // somebody else looks at the rest
		}

		for _, m := range messages {
			receipts = append(receipts, m.Receipt)
			s.DeadLettersSeen++
			orders, _ := order.Decode([]byte(m.Body)) // what cannot be decoded holds no order
			for _, o := range orders {
				if o.ID == s.ID {
					l := storyLetter{ID: m.ID, Reason: m.Attributes[queue.ReasonAttribute], SentAt: m.SentAt, order: o}
					l.Attempts, _ = strconv.Atoi(m.Attributes[queue.FailuresAttribute])
					s.DeadLetters = append(s.DeadLetters, l)
				}
			}
		}
	}
	return nil
}

// fill makes the story of what was read.
func (s *orderStory) fill(places []stock.Place, h ledger.History) {
	s.Decision = shown(h.Record)
	for _, p := range places {
		if p.Record != nil {
			s.State = shown(p.Record)
		}
		s.Places = append(s.Places, orderPlace{
			ProductID: p.StockID.Product(), Bucket: p.StockID.Bucket(), ReservedUnits: p.Reserved,
			InOutbox: p.InOutbox, ReservedAt: p.ReservedAt, ClaimedAt: p.ClaimedAt, Marked: p.Marked,
		})
	}
	for _, c := range h.Changes {
		s.Ledger = append(s.Ledger, ledgerEntry{
			ProductID: c.StockID.Product(), Bucket: c.StockID.Bucket(), Version: c.Version,
			Delta:   c.Delta,
			Balance: c.Balance, At: c.At,
		})
	}
	for _, r := range h.Redrivals {
		s.Redrives = append(s.Redrives, orderRedriven(r))
	}
	s.Events = s.events()
	s.Summary = s.summary(time.Now())
}

// shown is a record with the product that clients know in the place of a bucket of it.
func shown(r *order.Record) *order.Record {
	if r == nil {
		return nil
	}
	whole := *r
	whole.StockID = r.StockID.Product().Stock()
	return &whole
}

// known reports whether anything is known of the order.
func (s *orderStory) known() bool {
	return s.State != nil || s.Decision != nil || len(s.Places)+len(s.DeadLetters)+len(s.Ledger)+len(s.Redrives) > 0
}

// events are what has happened, in the order of time. Clocks of several machines are in it.
func (s *orderStory) events() []event {
	events := []event{}
	tell := func(at time.Time, where, format string, args ...any) {
		if !at.IsZero() {
			events = append(events, event{at.UTC(), where, fmt.Sprintf(format, args...)})
		}
	}

	tell(s.ID.MadeAt(), "edge", "made the order's id")
	if r := cmp.Or(s.Decision, s.State); r != nil {
		key := "without an idempotency key"
		if r.IdempotencyKey != "" {
			key = fmt.Sprintf("under the idempotency key %q", r.IdempotencyKey)
		}
		tell(r.ReservedAt, "redis", "reserved %d of product %d for user %d, at %s each, %s",
			r.Quantity, r.StockID, r.UserID, order.Money(r.UnitPrice, r.Currency), key)
	}

	for _, p := range s.Places {
		if s.Decision == nil && s.State == nil {
			tell(p.ReservedAt, "redis", "reserved %d of product %d", p.ReservedUnits, p.ProductID)
		}
		tell(p.ClaimedAt, "redis", "claimed by whoever sends it from the outbox")
	}

	for _, l := range s.DeadLetters {
		tell(l.SentAt, "queue", "sent the message that is dead letter %s now", l.ID)
	}
	for _, r := range s.Redrives {
		tell(r.FailedAt, "mysql", "failed: %s", order.DeadLetter)
		tell(r.RedrivenAt, "operator", "took the failure back, to have it decided anew (ctl dlq redrive)")
	}

	if r := s.Decision; r != nil {
		decided := outcome(r)
		if s.Hold != nil {
			decided = fmt.Sprintf("its units are held until it is paid, which it must be by %s", s.Hold.PayBy.UTC().
				Format(time.RFC3339))
		}
		tell(r.DecidedAt, "mysql", "decided: %s", decided)
	}
	for _, l := range s.Ledger {
		tell(l.At, "mysql", "changed the stock of product %d%s by %+d to %d, its version %d",
			l.ProductID, inBucket(l.Bucket), l.Delta, l.Balance, l.Version)
	}

	s.tellPayments(tell)

	slices.SortStableFunc(events, func(a, b event) int { return a.At.Compare(b.At) })
	return events
}

// tellPayments tells of the attempts to pay an order, what providers have told of them, and refunds.
func (s *orderStory) tellPayments(tell func(at time.Time, where, format string, args ...any)) {
	for i := range s.Payments {
		p := &s.Payments[i]
		tell(p.CreatedAt, "mysql", "began payment %s of %s by %s", p.Number, sumText(p.Amount, p.Currency), p.Provider)
		for _, e := range p.Events {
			tell(e.At, p.Provider, "told of payment %s, by %s: %s", p.Number, e.Source, plaintext.Escape(e.Kind))
		}
	}
	for i := range s.Refunds {
		r := &s.Refunds[i]
		who := ""
		if r.Actor != "" {
			who = ", by " + plaintext.Escape(r.Actor)
		}
		tell(r.CreatedAt, "mysql", "noted refund %s of %s%s: %s", r.Number, sumText(r.Amount, r.Currency), who,
			r.Reason)
		tell(r.DoneAt, "mysql", "refund %s is done", r.Number)
	}
	if h := s.Hold; h != nil && h.State == order.Cancelled {
		tell(h.ChangedAt, "mysql", "cancelled: %s", h.Reason)
	}
}

// outcome is the status of an order, and why it failed.
func outcome(r *order.Record) string {
	if r.FailedReason != "" {
		return fmt.Sprintf("%s (%s)", r.Status, r.FailedReason)
	}
	return string(r.Status)
}

func inBucket(bucket int) string {
	if bucket == 0 {
		return ""
	}
	return fmt.Sprintf(", bucket %d,", bucket)
}

// onItsWay is what Redis holds of the order that is not settled, or nil.
func (s *orderStory) onItsWay() *orderPlace {
	i := slices.IndexFunc(s.Places, func(p orderPlace) bool { return p.ReservedUnits > 0 || p.InOutbox })
	if i < 0 {
		return nil
	}
	return &s.Places[i]
}

// summary says in a few sentences where the order is, and what happens next.
func (s *orderStory) summary(now time.Time) string {
	place := s.onItsWay()
	if s.Decision != nil {
		return s.summaryDecided(place)
	}

	switch {
	case !s.known() && !s.Queue.Empty():
		return "Nobody knows it. Only a message on the queue, which cannot be searched, might hold it."
	case !s.known():
		return "Nobody knows it: no such order was accepted, or it was cancelled before its buyer got an answer."
	case len(s.DeadLetters) > 0:
		return "It is not decided, and in a dead letter. A worker judges it alone, and fails it if it must (ctl " +
			"dlq list)."
	case place != nil && place.InOutbox:
		return "It is not decided. The queue has not acknowledged it: a worker sends it 30 s after it was last claimed."
	case place != nil && s.Queue.Empty() && now.Sub(s.ID.MadeAt()) > reconcile.LostAge:
		return "It is not decided, and its message is nowhere to be seen: reconcile sends it again (ctl reconcile)."
	case place != nil && s.Queue.Empty():
		return "It is not decided. Its units are reserved. The queue counts no message, which may be a minute old: " +
			"should it stay so, reconcile sends the order again after 30 minutes."
	case place != nil:
		return "It is not decided. Its units are reserved, and a message on the queue holds it until a worker " +
			"decides it."
	case s.Queue.Empty():
		return "It is not decided, and Redis has no reservation of it: Redis may have lost data (ctl reconcile, " +
			"ctl audit)."
	}
	return "It is not decided, and Redis has no reservation of it. If the queue holds it, it is decided all the same."
}

// summaryDecided is the summary of an order that is decided.
func (s *orderStory) summaryDecided(place *orderPlace) string {
	text := fmt.Sprintf("It is decided: %s.", outcome(s.Decision))
	if s.Hold != nil {
		text += s.summaryHeld()
	}
	text += s.wrongChanges()
	if place != nil {
		text += " Redis still has it on its way, and its buyer is shown that it is pending: its worker settles that " +
			"in a moment, or reconcile after 2 minutes."
	}
	if len(s.DeadLetters) > 0 {
		text += " It is in a dead letter as well (ctl dlq list)."
	}
	return text
}

// summaryHeld says what an order that must be paid waits for, and what has gone back.
func (s *orderStory) summaryHeld() string {
	h, text := s.Hold, ""
	switch h.State {
	case order.AwaitingPayment:
		text = fmt.Sprintf(" It is to be paid by %s.", h.PayBy.UTC().Format(time.RFC3339))
	case order.Closing:
		text = fmt.Sprintf(" It is being cancelled (%s), once %d attempts to pay it certainly cannot be paid any more.",
			h.Reason, h.Attempts)
	case order.Completed, order.Refunded:
		text = fmt.Sprintf(" It was paid by %s.", h.PaidBy)
	case order.Cancelled:
		text = fmt.Sprintf(" It was not paid (%s).", h.Reason)
	}
	if h.Returned > 0 {
		text += " Its units were taken back."
	}
	for i := range s.Refunds {
		if r := &s.Refunds[i]; r.State != till.RefundDone {
			text += fmt.Sprintf(" Refund %s of %s is %s.", r.Number, sumText(r.Amount, r.Currency),
				map[till.RefundState]string{till.RefundDue: "due", till.RefundManual: "to be made by hand"}[r.State])
		}
	}
	return text
}

// wrongChanges says what an order has changed of the stock other than it must have: once it takes its units, unless it
// failed, and if they were taken back, it returns them once.
func (s *orderStory) wrongChanges() string {
	var taken, returned int
	var sum int64
	for _, l := range s.Ledger {
		if sum += l.Delta; l.Delta < 0 {
			taken++
		} else {
			returned++
		}
	}
	back := 0
	if s.Hold != nil && s.Hold.Returned > 0 {
		back = 1
	}
	switch {
	case s.Decision.Status == order.Failed && len(s.Ledger) > 0:
		return " It has changed the stock though it failed (ctl audit)."
	case s.Decision.Status == order.Failed || !s.Decision.Status.TookUnits():
		return ""
	case taken != 1:
		return fmt.Sprintf(" It has taken units %d times, which must be once (ctl audit).", taken)
	case returned != back:
		return fmt.Sprintf(" It has returned units %d times, which must be %d times (ctl audit).", returned, back)
	case back == 1 && sum != 0:
		return fmt.Sprintf(" It has not returned as many units as it took, but %+d (ctl audit).", sum)
	}
	return ""
}

// print writes the story for people.
func (s *orderStory) print(w io.Writer) error {
	fmt.Fprintf(w, "order %s\n%s\n\n", s.ID, s.Summary)
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, e := range s.Events {
		fmt.Fprintf(tab, "%s\t%s\t%s\n", e.At.Format(storyTime), e.Where, e.What)
	}
	fmt.Fprintln(tab)

	fmt.Fprintf(tab, "state in redis\t%s\n", orNothing(s.State != nil, func() string { return outcome(s.State) }))

	for _, p := range s.Places {
		fmt.Fprintf(tab, "product %d%s in redis\t%s\n", p.ProductID, inBucket(p.Bucket), p.text())
	}
	if len(s.Places) == 0 {
		fmt.Fprint(tab, "products in redis\tneither a reservation nor an outbox entry\n")
	}

	fmt.Fprintf(tab, "queue\t%d messages wait, %d are being worked, %d are delayed; it cannot be searched\n",
		s.Queue.Visible, s.Queue.InFlight, s.Queue.Delayed)
	fmt.Fprintf(tab, "dead letters\t%d of them hold it; %d of %d were looked at\n",
		len(s.DeadLetters), s.DeadLettersSeen, s.Queue.Dead)
	for _, l := range s.DeadLetters {
		fmt.Fprintf(tab, "\t%s, after %d attempts: %q\n", l.ID, l.Attempts, l.Reason)
	}

	fmt.Fprintf(tab, "decision in mysql\t%s\n", orNothing(s.Decision != nil, func() string {
		return outcome(s.Decision)
	}))
	fmt.Fprintf(tab, "ledger\t%d changes of the stock\n", len(s.Ledger))
	for i := range s.Payments {
		fmt.Fprintf(tab, "payment\t%s by %s: %s (ctl payment show)\n", s.Payments[i].Number, s.Payments[i].Provider,
			s.Payments[i].State)
	}
	for i := range s.Refunds {
		fmt.Fprintf(tab, "refund\t%s: %s\n", s.Refunds[i].Number, s.Refunds[i].State)
	}
	return tab.Flush()
}

func orNothing(known bool, text func() string) string {
	if !known {
		return "none"
	}
	return text()
}

// text says what Redis holds.
func (p orderPlace) text() string {
	var parts []string
	if p.ReservedUnits > 0 {
		parts = append(parts, fmt.Sprintf("%d units are reserved", p.ReservedUnits))
	}
	if p.InOutbox {
		parts = append(parts, "it is in the outbox")
	}
	if p.Marked {
		parts = append(parts, "it was settled by another than its decider")
	}
	return strings.Join(parts, ", ")
}
