package room

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"stampede/internal/mysql"
	"stampede/internal/order"
)

// Room is the waiting room of a product, as MySQL has it.
type Room struct {
	Product order.ProductID
	// Buckets is the number of buckets of the product, 0 if it is not split. Only Live reads it.
	Buckets int64
	Settings
	Seed Seed
	// Loaded reports whether Redis has been given the room.
	Loaded bool
	// Early is how many had joined before the start, or -1 before it.
	Early int64
	// Joined is how many had joined a moment ago, and Front the place up to which all were called then. Turns are those
	// that were out when places were called last, with these.
	Joined, Front, Turns int64
	// ClosedAt is zero if it is not closed.
	OpenedAt, ClosedAt time.Time
}

// The bounds of the settings of a room.
const (
	MaxRate     = 100_000
	MinOverbook = 1_000
	MaxOverbook = 10_000
	MinWait     = time.Second // of grace and passes
	MaxWait     = time.Hour
	// maxLive bounds the rooms that are not closed.
	maxLive = 1_000
	// closing is for how long workers go on with a room that was closed, so that Redis, and all who ask, learn of it.
	closing = time.Hour
)

// The actions of the staff log that concern rooms. Who reads it may search for these words, so they stay as they are.
const (
	actOpen   = "room.open"
	actChange = "room.change"
)

// ErrTooManyRooms: some must be closed before another is opened.
var ErrTooManyRooms = mysql.OwnError("there are too many waiting rooms")

// ErrClosed: a room that was closed stays closed, since its seed is public.
var ErrClosed = mysql.OwnError("the waiting room is closed")

// roomRow is a row of the table rooms.
type roomRow struct {
	Product  order.ProductID `db:"product_id"`
	Buckets  int64           `db:"buckets"`
	State    State           `db:"state"`
	Seed     []byte          `db:"seed"`
	Rate     int64           `db:"rate"`
	Overbook int64           `db:"overbook"`
	Grace    int64           `db:"grace_ms"`
	PassTTL  int64           `db:"pass_ttl_ms"`
	Loaded   bool            `db:"loaded"`
	Early    sql.NullInt64   `db:"early"`
	Joined   int64           `db:"joined"`
	Front    int64           `db:"front"`
	Turns    int64           `db:"turns"`
	OpenedAt time.Time       `db:"opened_at"`
	ClosedAt sql.NullTime    `db:"closed_at"`
}

const roomColumns = `product_id, state, seed, rate, overbook, grace_ms, pass_ttl_ms, loaded, early, joined, front,
	turns, opened_at, closed_at`

func (r *roomRow) room() Room {
	room := Room{
		Product: r.Product, Buckets: r.Buckets, Loaded: r.Loaded, Early: -1, Joined: r.Joined, Front: r.Front,
		Turns: r.Turns, OpenedAt: r.OpenedAt, ClosedAt: r.ClosedAt.Time,
		Settings: Settings{
			State: r.State, Rate: r.Rate, Overbook: r.Overbook, Grace: time.Duration(r.Grace) * time.Millisecond,
			PassTTL: time.Duration(r.PassTTL) * time.Millisecond,
		},
	}
	copy(room.Seed[:], r.Seed)
	if r.Early.Valid {
		room.Early = r.Early.Int64
	}
	return room
}

// Books are the rooms in MySQL. They are safe for concurrent use.
type Books struct{ db *mysql.DB }

// NewBooks are the rooms in a database, whose schema is current.
func NewBooks(db *mysql.DB) *Books { return &Books{db} }

// check returns ErrInvalid, with the reason, unless a room can be set like this.
func (s Settings) check() error {
	switch {
	case s.State != Open && s.State != Paused && s.State != Closed:
		return mysql.Invalidf("state must be %q, %q or %q", Open, Paused, Closed)
	case s.Rate < 1 || s.Rate > MaxRate:
		return mysql.Invalidf("rate must be 1 to %d places per second", MaxRate)
	case s.Overbook < MinOverbook || s.Overbook > MaxOverbook:
		return mysql.Invalidf("overbook must be %d to %d", MinOverbook/1000, MaxOverbook/1000)
	case s.Grace < MinWait || s.Grace > MaxWait:
		return mysql.Invalidf("grace must be %s to %s", MinWait, MaxWait)
	case s.PassTTL < MinWait || s.PassTTL > MaxWait:
		return mysql.Invalidf("a pass must be good for %s to %s", MinWait, MaxWait)
	}
	return nil
}

func (s Settings) values() mysql.Values {
	return mysql.Values{
		"state": s.State, "rate": s.Rate, "overbook": s.Overbook, "grace_ms": s.Grace.Milliseconds(),
		"pass_ttl_ms": s.PassTTL.Milliseconds(),
	}
}

// Set opens the waiting room of a product, with a seed of its own, or changes its settings. Staff's change is logged.
// ErrNotFound: there is no such product. ErrInvalid: it cannot be set like this.
func (b *Books) Set(ctx context.Context, id order.ProductID, change func(s *Settings)) (room Room, err error) {
	err = b.db.InTx(ctx, func(tx *sqlx.Tx) error {
		row, isNew, err := lockRoom(ctx, tx, id)
		if err != nil {
			return err
		}
		room = row.room()
		before := room.Settings
		if change(&room.Settings); room.Settings == before && !isNew {
			return nil
		}
		if err := room.Settings.check(); err != nil {
			return err
		}
		if before.State == Closed {
			return ErrClosed
		}
		return write(ctx, tx, &room, before, isNew)
	})
	if err != nil {
		return Room{}, fmt.Errorf("set the waiting room of product %d: %w", id, err)
	}
	return room, nil
}

// lockRoom locks the product, and reads its room, or a new one.
func lockRoom(ctx context.Context, tx *sqlx.Tx, id order.ProductID) (row roomRow, isNew bool, err error) {
	var found order.ProductID
	err = tx.GetContext(ctx, &found, `SELECT id FROM products WHERE id = ? FOR UPDATE`, id)
	if errors.Is(err, sql.ErrNoRows) {
		return row, false, mysql.ErrNotFound
	}
	if err != nil {
		return row, false, fmt.Errorf("lock the product: %w", err)
	}
	err = tx.GetContext(ctx, &row, `SELECT `+roomColumns+` FROM rooms WHERE product_id = ? FOR UPDATE`, id)
	if !errors.Is(err, sql.ErrNoRows) {
		return row, false, err
	}

	var live int64
	err = tx.GetContext(ctx, &live, `SELECT COUNT(*) FROM rooms WHERE state <> ?`, Closed)
	if err == nil && live >= maxLive {
		err = ErrTooManyRooms
	}
	seed := NewSeed()
	return roomRow{Product: id, Seed: seed[:], OpenedAt: mysql.Now()}, true, err
}

func write(ctx context.Context, tx *sqlx.Tx, room *Room, before Settings, isNew bool) error {
	if room.State == Closed {
		room.ClosedAt = mysql.Now()
	}
	s := &room.Settings
	_, err := tx.ExecContext(ctx, `INSERT INTO rooms (`+roomColumns+`)
		VALUES (?, ?, ?, ?, ?, ?, ?, 0, NULL, 0, 0, 0, ?, ?)
		ON DUPLICATE KEY UPDATE state = VALUES(state), rate = VALUES(rate), overbook = VALUES(overbook),
			grace_ms = VALUES(grace_ms), pass_ttl_ms = VALUES(pass_ttl_ms), closed_at = VALUES(closed_at)`,
		room.Product, s.State, room.Seed[:], s.Rate, s.Overbook, s.Grace.Milliseconds(), s.PassTTL.Milliseconds(),
		room.OpenedAt, sql.NullTime{Time: room.ClosedAt, Valid: !room.ClosedAt.IsZero()})
	if err != nil {
		return err
	}
	subject := fmt.Sprintf("product %d", room.Product)
	if isNew {
		return mysql.LogChange(ctx, tx, actOpen, subject, nil, s.values())
	}
	was, is := mysql.Changed(before.values(), s.values())
	return mysql.LogChange(ctx, tx, actChange, subject, was, is)
}

// Room reads the waiting room of a product. ErrNotFound: it has none.
func (b *Books) Room(ctx context.Context, id order.ProductID) (Room, error) {
	var row roomRow
	err := b.db.GetContext(ctx, &row, `SELECT `+roomColumns+` FROM rooms WHERE product_id = ?`, id)
	if errors.Is(err, sql.ErrNoRows) {
		err = mysql.ErrNotFound
	}
	if err != nil {
		return Room{}, fmt.Errorf("waiting room of product %d: %w", id, err)
	}
	return row.room(), nil
}

// Live reads all rooms that are not closed, or were not an hour ago.
func (b *Books) Live(ctx context.Context) ([]Room, error) {
	var rows []roomRow
	err := b.db.SelectContext(ctx, &rows, `SELECT p.buckets, r.*
		FROM rooms AS r JOIN products AS p ON p.id = r.product_id
		WHERE r.state IN (?, ?) OR r.state = ? AND r.closed_at > ? ORDER BY r.product_id LIMIT ?`,
		Open, Paused, Closed, mysql.Now().Add(-closing), 2*maxLive)
	if err != nil {
		return nil, fmt.Errorf("read waiting rooms: %w", err)
	}
	rooms := make([]Room, len(rows))
	for i := range rows {
		rooms[i] = rows[i].room()
	}
	return rooms, nil
}

// load notes that Redis is about to be given a room, and returns how many turns it has lost. If it had the room before,
// more may have joined than MySQL knows, and those who join now stand behind all of them.
func (b *Books) load(ctx context.Context, room *Room) (lost int64, err error) {
	if room.Loaded {
		room.Joined += lossGap
		return room.Turns, nil
	}
	_, err = b.db.ExecContext(ctx, `UPDATE rooms SET loaded = 1 WHERE product_id = ?`, room.Product)
	if err != nil {
		return 0, fmt.Errorf("load the waiting room of product %d: %w", room.Product, err)
	}
	room.Loaded = true
	return 0, nil
}

// lossGap is more than can join in the time between two checkpoints.
const lossGap = 1 << 17

// checkpoint notes how a room stands, for when Redis loses it, and how many turns are out. How many have joined and
// were called never falls.
func (b *Books) checkpoint(ctx context.Context, id order.ProductID, s *Standing, turns int64) error {
	early := sql.NullInt64{Int64: s.Early, Valid: s.Early >= 0}
	_, err := b.db.ExecContext(ctx, `UPDATE rooms SET early = COALESCE(early, ?), joined = GREATEST(joined, ?),
		front = GREATEST(front, ?), turns = ? WHERE product_id = ?`, early, s.Joined, s.Front, turns, id)
	if err != nil {
		return fmt.Errorf("checkpoint of the waiting room of product %d: %w", id, err)
	}
	return nil
}
