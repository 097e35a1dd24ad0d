package stock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"stampede/internal/order"
)

// lookPage is how many fields or members a call asks for: Redis serves nobody else meanwhile. Of a hash of 400,000
// these cost it 0.6 ms on two shared processors, and all at once 150 ms.
const lookPage = 500

// Look is all that Redis holds of a product, but for what its buyers have.
type Look struct {
	// Loaded is false if Redis does not know the product's stock.
	Loaded    bool
	Available int64
	// Reserved are the units of the orders that are reserved.
	Reserved map[order.OrderID]int64
	// Outbox are the orders that are in the outbox, all of them reserved.
	Outbox map[order.OrderID]bool
	// Transfers are the units that are on their way to other buckets, or being taken out.
	Transfers map[Transfer]int64
	// Version is the product's version in MySQL of which Redis knows for sure that the stock holds it, and
	// Revision the one of its settings.
	Version, Revision int64
	// Seen is the newest version in MySQL of which Redis has heard, before anything else was read. Who reads an older
	// one in MySQL after that sees that commits are lost. LostCommits is true if that was noted before.
	Seen        int64
	LostCommits bool
	// Restocks are the ids of those that were applied after it was loaded.
	Restocks map[string]bool
	// Now is the time by the clock of Redis.
	Now time.Time
	// Still is true if nothing has moved while it was read, so that it is of one moment. Otherwise what came or went
	// meanwhile may be in it or not; what was there all the time is.
	Still bool

	epoch   string
	changes int64
	counted int64 // the number of changes at which what the buyers have was compared with MySQL
}

// SameAs reports whether nothing has moved between two looks, and while they were taken.
func (l Look) SameAs(other Look) bool {
	return l.Still && other.Still && l.epoch == other.epoch && l.changes == other.changes
}

// Counted reports whether nothing has moved since LowerBought was told that all buyers have been compared.
func (l Look) Counted() bool { return l.Still && l.counted == l.changes }

// Look reads a product, in many small calls.
func (s *Stock) Look(ctx context.Context, stockID order.StockID) (Look, error) {
	l, err := s.look(ctx, keysOf(stockID))
	if err != nil {
		return Look{}, fmt.Errorf("look at product %d: %w", stockID, err)
	}
	return l, nil
}

func (s *Stock) look(ctx context.Context, k productKeys) (Look, error) {
	l := Look{Reserved: map[order.OrderID]int64{}, Outbox: map[order.OrderID]bool{}, Transfers: map[Transfer]int64{},
		Restocks: map[string]bool{}}

	// The settings come first: a restock that is newer than the version is then found among the restocks, if it was
	// applied.
	if err := s.readSale(ctx, k, &l); err != nil {
		return l, err
	}

	if err := s.readReserved(ctx, k, &l); err != nil {
		return l, err
	}

	err := s.hashPages(ctx, k.lent, func(name, units string) error {
		transfer, err := parseTransfer(name)
		if err == nil {
			l.Transfers[transfer], err = strconv.ParseInt(units, 10, 64)
		}
		return err
	})
	if err != nil {
		return l, fmt.Errorf("transfers: %w", err)
	}

	err = pages(ctx, s.rdb.SScan, k.settled, func(members []string) error {
		for _, member := range members {
			if id, ok := strings.CutPrefix(member, restockMark); ok {
				l.Restocks[id] = true
			}
		}
		return nil
	})
	if err != nil {
		return l, fmt.Errorf("restocks: %w", err)
	}

	now := Look{}
	if err := s.readSale(ctx, k, &now); err != nil {
		return l, err
	}
	l.Still = l.epoch == now.epoch && l.changes == now.changes && l.Loaded == now.Loaded
	return l, nil
}

// readReserved reads the reservations, and which of them are in the outbox.
func (s *Stock) readReserved(ctx context.Context, k productKeys, l *Look) error {
	batches := make(map[string][]order.OrderID)
	err := s.hashPages(ctx, k.reserved, func(text, value string) error {
		id, err := order.ParseID(text)
		if err != nil {
			return err
		}
		r, err := parseReservation(0, id, value)
		if err != nil {
			return err
		}
		l.Reserved[id] = r.units
		name := cmp.Or(r.batch, text)
		batches[name] = append(batches[name], id)
		return nil
	})
	if err != nil {
		return fmt.Errorf("reservations: %w", err)
	}

	// A batch that is gone by now is on the queue.
	names, err := s.rdb.HKeys(ctx, k.outbox).Result()
	if err != nil {
		return fmt.Errorf("outbox: %w", err)
	}
	for _, name := range names {
		for _, id := range batches[name] {
			l.Outbox[id] = true
		}
	}
	return nil
}

// readSale reads what is not a collection.
func (s *Stock) readSale(ctx context.Context, k productKeys, l *Look) error {
	var available *goredis.StringCmd
	var sale *goredis.SliceCmd
	var now *goredis.TimeCmd
	_, err := s.rdb.Pipelined(ctx, func(p goredis.Pipeliner) error {
		sale = p.HMGet(ctx, k.sale, fieldVersion, fieldRevision, fieldChanges, fieldCounted, fieldSeen,
			fieldLostCommits, fieldEpoch)
		available = p.Get(ctx, k.stock)
		now = p.Time(ctx)
		return nil
	})
	if err != nil && !errors.Is(err, goredis.Nil) {
		return err
	}

	// Fields that are not there count as 0.
	l.Now = now.Val()
	var d decoder
	var lost int64
	numbers := []*int64{&l.Version, &l.Revision, &l.changes, &l.counted, &l.Seen, &lost}
	for i, field := range sale.Val() {
		switch {
		case field == nil:
		case i < len(numbers):
			*numbers[i] = d.Int(field)
		default:
			l.epoch = d.Text(field)
		}
	}

	l.LostCommits = lost > 0
	if l.Loaded = available.Err() == nil; l.Loaded {
		l.Available = d.Int(available.Val())
	}
	return d.Err
}
