package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
)

// The checker compares what the buyers were told with what MySQL, Redis and the queue hold. It shares no code with
// what it checks: the keys and columns are those of docs/design.md.

// books are everything that the system holds when it is said to be quiet.
type books struct {
	orders map[string][]orderRow // by id
	ledger []ledgerRow
	stock  map[int64]int64      // in MySQL, by product or bucket
	redis  map[int64]stockLevel // by product or bucket
	queue  queueBooks
	// shown is what GET /api/orders/{id} says of accepted orders: the status, or what went wrong.
	shown map[string]string
	// money is what became of payments; nil if nothing must be paid.
	money *moneyBooks
}

type orderRow struct {
	id                      string
	bucket                  int64 // of the product, or 0
	user, product, quantity int64
	unitPrice               int64
	status, reason, key     string
	returned                bool // its units came back, though they had been taken
}

// took reports whether the order's decision has taken units, and keeps whether it still has them.
func (o orderRow) took() bool { return o.status != "failed" }

func (o orderRow) keeps() bool { return o.took() && o.status != "cancelled" && !o.returned }

type ledgerRow struct {
	product, version, delta, balance int64
	reason, ref                      string // ref is the id of an order, or of a restock
}

// stockLevel is what Redis holds of a product.
type stockLevel struct {
	loaded    bool
	available int64
	reserved  map[string]int64 // by order
	lent      map[string]int64 // to other buckets, by move
	outbox    []string         // orders
	bought    map[int64]int64  // by user
}

// queueBooks are what the queues say they hold, and what a receive finds.
type queueBooks struct {
	waiting, dead   int
	found, foundDLQ []string // bodies
}

// rules say what a run may do that others may not.
type rules struct {
	// forgetful: Redis has lost data, and with it which order a key belongs to and what buyers have.
	forgetful bool
	// deadLetters are expected.
	deadLetters bool
}

// finding is a promise that is broken.
type finding struct {
	promise string // P1 to P8, or DLQ
	n       int64  // how often, or how many units
	text    string
}

// ends are the states in which an order may stay.
var ends = []string{"completed", "failed", "cancelled", "refunded"}

// judge says which promises are broken.
func judge(intents []*intent, sold []product, b *books, r rules) (broken []finding) {
	find := func(promise string, n int64, format string, args ...any) {
		broken = append(broken, finding{promise, n, fmt.Sprintf(format, args...)})
	}
	completed := map[int64]int64{}     // units by product
	bought := map[[2]int64]int64{}     // units by product and user
	homes := map[[2]int64]int64{}      // bucket by product and user
	byKey := map[string][]orderRow{}   // completed orders by user and key
	booked := map[string][]ledgerRow{} // ledger rows by order
	named := map[string]*intent{}      // intents by the order ids that were named to their buyers
	wanted := map[string]*intent{}     // intents by user and key
	anonymous := map[[3]int64]int{}    // requests without a key that may have placed an order, by what they want
	userKey := func(user int64, key string) string { return fmt.Sprint(user, " ", key) }

	for _, row := range b.ledger {
		if row.reason == "order" {
			booked[row.ref] = append(booked[row.ref], row)
		}
	}

	// What the buyers were told.
	for _, in := range intents {
		if in.key != "" {
			wanted[userKey(in.user, in.key)] = in
		}
		var first *answer
		for i := range in.answers {
			a := &in.answers[i]
			if a.orderID != "" {
				named[a.orderID] = in
			}
			if in.key == "" && (a.orderID != "" || open(*a)) {
				anonymous[[3]int64{in.user, in.product, in.quantity}]++
			}
			rows := b.orders[a.orderID]
			switch {
			case a.status == http.StatusAccepted:
				switch {
				case a.orderID == "":
					find("P2", 1, "a 202 without an order id: %s", a.body)
				case len(rows) == 0:
					find("P2", 1, "order %s of product %d was accepted by edge %d after %.1f s and is not decided%s",
						a.orderID, in.product, a.edge+1, a.got.Seconds(), b.whereabouts(in.product, a.orderID))
				case !slices.Contains(ends, rows[0].status):
					find("P2", 1, "order %s was accepted and is %q", a.orderID, rows[0].status)
				case b.shown != nil && b.shown[a.orderID] != rows[0].status:
					find("P2", 1, "order %s is %s, and its buyer is shown %q", a.orderID, rows[0].status,
						b.shown[a.orderID])
				}
				if first != nil && !r.forgetful && (first.orderID != a.orderID || first.body != a.body) {
					find("P8", 1, "user %d, key %s: one 202 says %s, another %s", in.user, in.key, first.body, a.body)
				}
				if first == nil {
					first = a
				}
			case a.code == "outcome_unknown" && a.orderID == "":
				find("P2", 1, "an unknown outcome without an order id: %s", a.body)
			case a.code == "outcome_unknown":
				// Placed or not, but not on its way any more: the checks of Redis and the queue say so of all orders.
			case a.status != 0 && a.status < 500 && a.orderID != "":
				find("P8", 1, "a refusal with status %d names order %s", a.status, a.orderID)
			}
		}
	}

	// What MySQL says.
	for id, rows := range b.orders {
		if len(rows) > 1 {
			find("P3", int64(len(rows)-1), "order %s has %d rows", id, len(rows))
		}
		row := rows[0]
		if row.keeps() {
			completed[row.product] += row.quantity
			bought[[2]int64{row.product, row.user}] += row.quantity
			home := [2]int64{row.product, row.user}
			if at, ok := homes[home]; ok && at != row.bucket {
				find("P7", 1, "user %d has bought from buckets %d and %d of product %d", row.user, at, row.bucket,
					row.product)
			}
			homes[home] = row.bucket
		}
		if row.took() && row.key != "" {
			byKey[userKey(row.user, row.key)] = append(byKey[userKey(row.user, row.key)], row)
		}
		moved := booked[id]
		switch {
		case row.took() && len(moved) == 0:
			find("P3", 1, "order %s is %s and not in the ledger", id, row.status)
		case row.took() && len(moved) == 1 && moved[0].delta != -row.quantity:
			find("P3", 1, "order %s has %d units, the ledger %d", id, row.quantity, -moved[0].delta)
		case !row.took() && len(moved) > 0:
			find("P3", int64(len(moved)), "order %s is failed, and the ledger has units of it", id)
		}
		// An order that nobody placed is as bad as one that is lost. One whose answer was lost is known by its key.
		in := named[id]
		if in == nil {
			in = wanted[userKey(row.user, row.key)]
		}
		what := [3]int64{row.user, row.product, row.quantity}
		switch {
		case in != nil && what != [3]int64{in.user, in.product, in.quantity}:
			find("P2", 1, "order %s is %v (user, product, units) and was placed as %v", id, what,
				[3]int64{in.user, in.product, in.quantity})
		case in == nil && row.key != "":
			find("P2", 1, "order %s has key %q, which nobody used", id, row.key)
		case in == nil && row.key == "" && row.took() && anonymous[what] == 0:
			find("P2", 1, "order %s of user %d was placed by nobody", id, row.user)
		}
	}
	for ref, rows := range booked {
		if len(rows) > 1 {
			find("P3", int64(len(rows)-1), "the ledger has order %s %d times", ref, len(rows))
		}
		if len(b.orders[ref]) == 0 {
			find("P3", 1, "the ledger has order %s, which does not exist", ref)
		}
	}
	for key, rows := range byKey {
		if len(rows) > 1 {
			find("P8", int64(len(rows)-1), "user and key %s have %d completed orders", key, len(rows))
		}
	}

	// Each product, in MySQL and in Redis.
	for _, p := range sold {
		supply := p.stock + p.restocked
		if over := completed[p.id] - supply; over > 0 {
			find("P1", over, "product %d: %d units sold of %d", p.id, completed[p.id], supply)
		}
		var stock int64
		for _, id := range p.rows() {
			if b.stock[id] < 0 {
				find("P1", -b.stock[id], "product %d: the stock in MySQL is %d", id, b.stock[id])
			}
			stock += b.stock[id]
		}
		if got := stock + completed[p.id]; got != supply {
			find("P4", abs(got-supply), "product %d: stock %d + completed %d is %d, not initial %d + restocked %d",
				p.id, stock, completed[p.id], got, p.stock, p.restocked)
		}
		b.judgeLedger(p, find)
		if p.limit > 0 {
			for who, units := range bought {
				if who[0] == p.id && units > p.limit {
					find("P7", units-p.limit, "user %d has %d units of product %d, the limit is %d", who[1], units,
						p.id, p.limit)
				}
			}
		}
		counted := map[int64]int64{} // by Redis, in all buckets
		loaded := false
		for _, id := range p.rows() {
			b.judgeStock(id, find)
			s := b.redis[id]
			loaded = loaded || s.loaded
			for user, n := range s.bought {
				counted[user] += n
			}
		}
		if !r.forgetful && loaded {
			for user := range int64(users) {
				if want := bought[[2]int64{p.id, user + 1}]; counted[user+1] != want {
					find("P7", abs(counted[user+1]-want),
						"Redis counts %d units of product %d for user %d, who has %d",
						counted[user+1], p.id, user+1, want)
				}
			}
		}
	}
	if n := b.queue.waiting + len(b.queue.found); n > 0 {
		find("P2", int64(n), "the queue still has %d messages: %s", n, excerpt(b.queue.found))
	}
	if n := max(b.queue.dead, len(b.queue.foundDLQ)); n > 0 && !r.deadLetters {
		find("DLQ", int64(n), "there are %d dead letters: %s", n, excerpt(b.queue.foundDLQ))
	}
	return broken
}

// judgeStock compares what Redis holds of a product or bucket with MySQL.
func (b *books) judgeStock(id int64, find func(string, int64, string, ...any)) {
	s := b.redis[id]
	var reserved, lent int64
	for _, n := range s.reserved {
		reserved += n
	}
	for _, n := range s.lent {
		lent += n
	}
	if len(s.reserved) > 0 {
		some := slices.Sorted(maps.Keys(s.reserved))[0]
		find("P5", reserved, "product %d: %d units of %d orders are still reserved, such as %s%s",
			id, reserved, len(s.reserved), some, b.rowOf(some))
	}
	if len(s.lent) > 0 {
		find("P5", lent, "product %d: %d units are still lent to other buckets, such as by %s", id, lent,
			slices.Sorted(maps.Keys(s.lent))[0])
	}
	if len(s.outbox) > 0 {
		find("P5", int64(len(s.outbox)), "product %d: %d orders are still in the outbox, such as %s%s",
			id, len(s.outbox), s.outbox[0], b.rowOf(s.outbox[0]))
	}
	if s.loaded && s.available+reserved+lent != b.stock[id] {
		find("P4", abs(s.available+reserved+lent-b.stock[id]),
			"product %d: Redis has %d available + %d reserved + %d lent, MySQL %d",
			id, s.available, reserved, lent, b.stock[id])
	}
}

// judgeLedger follows the stock of a product, or of each of its buckets, from change to change.
func (b *books) judgeLedger(p product, find func(string, int64, string, ...any)) {
	var restocked, moved int64
	for _, id := range p.rows() {
		var version, balance int64
		for _, row := range b.ledger { // sorted by product and version
			if row.product != id {
				continue
			}
			version++
			balance += row.delta
			if row.version != version || row.balance != balance {
				find("P4", 1, "product %d: change %d of the ledger is version %d with balance %d, not %d", id, version,
					row.version, row.balance, balance)
				return
			}
			switch row.reason {
			case "restock", "correction":
				restocked += row.delta
			case "move", "split":
				moved += row.delta
			}
		}
		if balance != b.stock[id] {
			find("P4", 1, "product %d: the ledger ends with %d units, MySQL has %d", id, balance, b.stock[id])
		}
	}
	if restocked != p.restocked || moved != 0 {
		find("P4", 1, "product %d: by the ledger %d units were restocked and moves made %d, of %d that were restocked",
			p.id, restocked, moved, p.restocked)
	}
}

// whereabouts says where an order is that is not decided.
func (b *books) whereabouts(product int64, id string) string {
	var places []string
	for row, s := range b.redis {
		if row&(1<<40-1) != product {
			continue
		}
		if _, reserved := s.reserved[id]; reserved {
			places = append(places, "reserved")
		}
		if slices.Contains(s.outbox, id) {
			places = append(places, "in the outbox")
		}
	}
	for _, body := range slices.Concat(b.queue.found, b.queue.foundDLQ) {
		if strings.Contains(body, id) {
			places = append(places, "in a message")
		}
	}
	if len(places) == 0 {
		return ", and is nowhere"
	}
	return ", and is " + strings.Join(places, " and ")
}

func (b *books) rowOf(id string) string {
	if rows := b.orders[id]; len(rows) > 0 {
		return " (which is " + rows[0].status + ")"
	}
	return " (which is not decided)"
}

func abs(n int64) int64 { return max(n, -n) }

func excerpt(bodies []string) string {
	if len(bodies) == 0 {
		return "none could be received"
	}
	return bodies[0][:min(len(bodies[0]), 300)]
}

// count adds up the findings of some promises.
func count(broken []finding, promises ...string) (n int64) {
	for _, f := range broken {
		if slices.Contains(promises, f.promise) {
			n += f.n
		}
	}
	return n
}

// places are where the books are.
type places struct {
	db   *sql.DB
	rdb  redis.UniversalClient
	sqs  *awssqs.Client
	edge string // URL of an edge, or empty: then what buyers are shown is not read
	// provider is the URL of what plays the providers of payments, or empty.
	provider string
	secret   string
}

// read reads all books. The queues are received from, which uses up an attempt of a message that should not be there.
func (p places) read(ctx context.Context, sold []product, intents []*intent) (*books, error) {
	b := &books{orders: map[string][]orderRow{}, stock: map[int64]int64{}, redis: map[int64]stockLevel{}}
	if err := p.readMySQL(ctx, b); err != nil {
		return nil, fmt.Errorf("read MySQL: %w", err)
	}
	for _, product := range sold {
		for _, id := range product.rows() {
			s, err := p.readStock(ctx, id)
			if err != nil {
				return nil, fmt.Errorf("read Redis: %w", err)
			}
			b.redis[id] = s
		}
	}
	var err error
	if b.queue.waiting, b.queue.found, err = p.readQueue(ctx, "orders"); err != nil {
		return nil, fmt.Errorf("read the queue: %w", err)
	}
	if b.queue.dead, b.queue.foundDLQ, err = p.readQueue(ctx, "orders-dlq"); err != nil {
		return nil, fmt.Errorf("read the dead-letter queue: %w", err)
	}
	if p.provider != "" {
		if b.money, err = p.readMoney(ctx); err != nil {
			return nil, fmt.Errorf("read what was paid: %w", err)
		}
	}
	if p.edge != "" {
		b.shown, err = p.readShown(ctx, intents)
	}
	return b, err
}

func (p places) readMySQL(ctx context.Context, b *books) error {
	rows, err := p.db.QueryContext(ctx, `SELECT o.id, o.user_id, o.product_id, o.quantity, o.unit_price,
		COALESCE(h.state, o.status), COALESCE(o.failed_reason, ''), COALESCE(k.idempotency_key, ''),
		COALESCE(h.returned_version, 0) > 0 FROM orders o LEFT JOIN holds h ON h.order_id = o.id
		LEFT JOIN order_keys k ON k.product_id = o.product_id AND k.user_id = o.user_id AND k.order_id = o.id`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var row orderRow
		var id []byte
		if err := rows.Scan(&id, &row.user, &row.product, &row.quantity, &row.unitPrice, &row.status, &row.reason,
			&row.key, &row.returned); err != nil {
			return err
		}
		row.id = asUUID(id)
		row.product, row.bucket = row.product&(1<<40-1), row.product>>40
		b.orders[row.id] = append(b.orders[row.id], row)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	ledger, err := p.db.QueryContext(ctx,
		`SELECT product_id, version, delta, balance, reason, ref FROM stock_ledger ORDER BY product_id, version`)
	if err != nil {
		return err
	}
	defer ledger.Close()
	for ledger.Next() {
		var row ledgerRow
		var ref []byte
		if err := ledger.Scan(&row.product, &row.version, &row.delta, &row.balance, &row.reason, &ref); err != nil {
			return err
		}
		row.ref = string(ref)
		if row.reason == "order" || row.reason == "return" {
			row.ref = asUUID(ref)
		}
		b.ledger = append(b.ledger, row)
	}
	if err := ledger.Err(); err != nil {
		return err
	}
	stocks, err := p.db.QueryContext(ctx, `SELECT id, stock FROM products`)
	if err != nil {
		return err
	}
	defer stocks.Close()
	for stocks.Next() {
		var id, stock int64
		if err := stocks.Scan(&id, &stock); err != nil {
			return err
		}
		b.stock[id] = stock
	}
	return stocks.Err()
}

func asUUID(raw []byte) string {
	id, err := uuid.FromBytes(raw)
	if err != nil {
		return fmt.Sprintf("%x", raw)
	}
	return id.String()
}

func (p places) readStock(ctx context.Context, productID int64) (s stockLevel, err error) {
	tag := fmt.Sprintf("{%d}", productID)
	available, err := p.rdb.Get(ctx, "stock:"+tag).Int64()
	if err != nil && !errors.Is(err, redis.Nil) {
		return s, err
	}
	s.loaded, s.available = err == nil, available
	s.reserved, s.bought = map[string]int64{}, map[int64]int64{}
	reserved, err := p.rdb.HGetAll(ctx, "reserved:"+tag).Result()
	if err != nil {
		return s, err
	}
	for id, reservation := range reserved {
		units, _, _ := strings.Cut(reservation, " ")
		if s.reserved[id], err = strconv.ParseInt(units, 10, 64); err != nil {
			return s, err
		}
	}
	lent, err := p.rdb.HGetAll(ctx, "lent:"+tag).Result()
	if err != nil {
		return s, err
	}
	s.lent = map[string]int64{}
	for move, units := range lent {
		if s.lent[move], err = strconv.ParseInt(units, 10, 64); err != nil {
			return s, err
		}
	}
	bought, err := p.rdb.HGetAll(ctx, "bought:"+tag).Result()
	if err != nil {
		return s, err
	}
	for user, units := range bought {
		id, err := strconv.ParseInt(user, 10, 64)
		if err != nil {
			return s, err
		}
		if s.bought[id], err = strconv.ParseInt(units, 10, 64); err != nil {
			return s, err
		}
	}
	batches, err := p.rdb.HVals(ctx, "outbox:"+tag).Result()
	for _, batch := range batches {
		const times = 2 // before the ids
		s.outbox = append(s.outbox, strings.Fields(batch)[times:]...)
	}
	return s, err
}

// readQueue counts what a queue says it holds, and receives what it gives.
func (p places) readQueue(ctx context.Context, name string) (n int, bodies []string, err error) {
	found, err := p.sqs.GetQueueUrl(ctx, &awssqs.GetQueueUrlInput{QueueName: &name})
	if err != nil {
		return 0, nil, err
	}
	if n, err = depth(ctx, p.sqs, aws.ToString(found.QueueUrl)); err != nil {
		return 0, nil, err
	}
	out, err := p.sqs.ReceiveMessage(ctx,
		&awssqs.ReceiveMessageInput{QueueUrl: found.QueueUrl, MaxNumberOfMessages: 10, VisibilityTimeout: 1})
	if err != nil {
		return 0, nil, err
	}
	for _, m := range out.Messages {
		bodies = append(bodies, aws.ToString(m.Body))
	}
	return n, bodies, nil
}

// depth adds up the messages of a queue, wherever they are.
func depth(ctx context.Context, client *awssqs.Client, url string) (n int, err error) {
	names := []types.QueueAttributeName{
		types.QueueAttributeNameApproximateNumberOfMessages,
		types.QueueAttributeNameApproximateNumberOfMessagesNotVisible,
		types.QueueAttributeNameApproximateNumberOfMessagesDelayed,
	}
	out, err := client.GetQueueAttributes(ctx, &awssqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: names})
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		part, err := strconv.Atoi(out.Attributes[string(name)])
		if err != nil {
			return 0, err
		}
		n += part
	}
	return n, nil
}

// maxLooks bounds the orders that are looked up at a time.
const maxLooks = 16

// readShown asks an edge for every order that was accepted.
func (p places) readShown(ctx context.Context, intents []*intent) (map[string]string, error) {
	owners := map[string]int64{}
	for _, in := range intents {
		for _, a := range in.answers {
			if a.status == http.StatusAccepted && a.orderID != "" {
				owners[a.orderID] = in.user
			}
		}
	}
	shown := make(map[string]string, len(owners))
	client := &http.Client{Timeout: patience, Transport: &http.Transport{MaxIdleConnsPerHost: maxLooks}}
	defer client.CloseIdleConnections()
	var mu sync.Mutex
	var errs []error
	var looks sync.WaitGroup
	room := make(chan struct{}, maxLooks)
	for id, user := range owners {
		room <- struct{}{}
		looks.Go(func() {
			defer func() { <-room }()
			status, err := showOrder(ctx, client, p.edge+"/api/orders/"+id, accessToken(p.secret, user, ""))
			mu.Lock()
			defer mu.Unlock()
			shown[id] = status
			errs = append(errs, err)
		})
	}
	looks.Wait()
	return shown, errors.Join(errs...)
}

func showOrder(ctx context.Context, client *http.Client, url, token string) (status string, err error) {
	for since := time.Now(); ; { // a user who has many orders may be asked to wait, and a busy edge may give up
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return "", err
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := client.Do(req)
		if err != nil {
			return "", err
		}
		raw, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			return "", err
		}
		if resp.StatusCode == http.StatusTooManyRequests {
			continue
		}
		if resp.StatusCode == http.StatusServiceUnavailable {
			if time.Since(since) > patience {
				return "", fmt.Errorf("%s answers %s", url, resp.Status)
			}
			if err := sleep(ctx, minPause); err != nil {
				return "", err
			}
			continue
		}
		var fields struct{ Status, Code string }
		if err := json.Unmarshal(raw, &fields); err != nil {
			return "", fmt.Errorf("%s answers %s: %w", url, resp.Status, err)
		}
		if fields.Status == "" {
			fields.Status = fields.Code
		}
		return fields.Status, nil
	}
}
