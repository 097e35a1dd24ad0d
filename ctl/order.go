package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"stampede/internal/ledger"
	"stampede/internal/order"
	"stampede/internal/queue"
	"stampede/internal/reconcile"
	"stampede/internal/stock"
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
	s.fill(places, history)
	return s, nil
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
		tell(r.DecidedAt, "mysql", "decided: %s", outcome(r))
	}
	for _, l := range s.Ledger {
		tell(l.At, "mysql", "changed the stock of product %d%s by %+d to %d, its version %d",
			l.ProductID, inBucket(l.Bucket), l.Delta, l.Balance, l.Version)
	}

	slices.SortStableFunc(events, func(a, b event) int { return a.At.Compare(b.At) })
	return events
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
	switch {
	case s.Decision.Status == order.Completed && len(s.Ledger) != 1:
		text += fmt.Sprintf(" It has changed the stock %d times, which must be once (ctl audit).", len(s.Ledger))
	case s.Decision.Status == order.Failed && len(s.Ledger) > 0:
		text += " It has changed the stock though it failed (ctl audit)."
	}
	if place != nil {
		text += " Redis still has it on its way, and its buyer is shown that it is pending: its worker settles that " +
			"in a moment, or reconcile after 2 minutes."
	}
	if len(s.DeadLetters) > 0 {
		text += " It is in a dead letter as well (ctl dlq list)."
	}
	return text
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
