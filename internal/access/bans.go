package access

import (
	"context"
	"database/sql"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"stampede/internal/mysql"
	"stampede/internal/order"
)

const (
	// bansInterval is how often the bans are read, so that a new one holds on every edge within a second.
	bansInterval = 500 * time.Millisecond
	// bansTimeout bounds one reading.
	bansTimeout = 3 * time.Second
	// maxBans bounds the bans that are held: twice as many as can be made (account.MaxBans), since bans that are made
	// at the same time may exceed that by a few.
	maxBans = 20_000
)

// Bans knows who is kept out, so that nobody has to be asked for a request.
type Bans struct {
	db      *mysql.DB
	current atomic.Pointer[banList]
}

// banList is what one reading found; it is not changed afterwards. Its size is bounded by maxBans.
type banList struct {
	users    map[order.UserID]time.Time // end of the ban, zero if it has none
	prefixes map[netip.Prefix]time.Time
	lengths  map[int][]int // of the prefixes, by the bits of an address: 32 or 128
}

func newBans(db *mysql.DB) *Bans {
	b := &Bans{db: db}
	b.current.Store(&banList{})
	return b
}

// poll reads the bans. If that fails, those that are known still hold. A row that names nobody is an error, since to
// pass over it would let somebody in.
func (b *Bans) poll(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bansTimeout)
	defer cancel()
	var rows []struct {
		ID        int64          `db:"id"`
		UserID    sql.NullInt64  `db:"user_id"`
		CIDR      sql.NullString `db:"cidr"`
		ExpiresAt sql.NullTime   `db:"expires_at"`
	}
	err := b.db.SelectContext(ctx, &rows, `SELECT id, user_id, cidr, expires_at FROM bans
		WHERE expires_at IS NULL OR expires_at > ? ORDER BY created_at DESC, id DESC LIMIT ?`,
		time.Now().UTC(), maxBans)
	if err != nil {
		return fmt.Errorf("read bans: %w", err)
	}

	list := &banList{users: map[order.UserID]time.Time{}, prefixes: map[netip.Prefix]time.Time{},
		lengths: map[int][]int{}}
	for _, row := range rows {
		if row.UserID.Valid == row.CIDR.Valid {
			return fmt.Errorf("read ban %d: it names a user and an address, or neither", row.ID)
		}
		if row.UserID.Valid {
			list.users[order.UserID(row.UserID.Int64)] = row.ExpiresAt.Time
			continue
		}
		prefix, err := netip.ParsePrefix(row.CIDR.String)
		if err != nil {
			return fmt.Errorf("read ban %d: %w", row.ID, err)
		}
		list.prefixes[prefix] = row.ExpiresAt.Time
		if bits := prefix.Addr().BitLen(); !slices.Contains(list.lengths[bits], prefix.Bits()) {
			list.lengths[bits] = append(list.lengths[bits], prefix.Bits())
		}
	}
	b.current.Store(list)
	return nil
}

// User reports whether a user is kept out.
func (b *Bans) User(id order.UserID) bool {
	until, banned := b.current.Load().users[id]
	return banned && holds(until)
}

// Address reports whether an address, unmapped, is kept out.
func (b *Bans) Address(addr netip.Addr) bool {
	list := b.current.Load()
	for _, bits := range list.lengths[addr.BitLen()] {
		prefix, err := addr.Prefix(bits)
		if err != nil {
			continue
		}
		if until, banned := list.prefixes[prefix]; banned && holds(until) {
			return true
		}
	}
	return false
}

func holds(until time.Time) bool { return until.IsZero() || time.Now().Before(until) }
