package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jmoiron/sqlx"

	"stampede/internal/failpoint"
	"stampede/internal/mysql"
	"stampede/internal/order"
)

// Move is units that go from one bucket of a product to another or, of a correction, out of a product.
type Move struct {
	// ID is a UUIDv7.
	ID uuid.UUID
	// Donor and Receiver are the ids of the buckets. A correction has a product as its donor, and 0 as its receiver.
	Donor, Receiver, Units int64
	// DonorVersion and ReceiverVersion are the versions that the move made. They are 0 if it was cancelled.
	DonorVersion, ReceiverVersion int64
	// Fresh reports whether this call has decided the move, and not an earlier one.
	Fresh bool
}

// Moved reports whether the units were moved, and the move not cancelled.
func (m Move) Moved() bool { return m.DonorVersion > 0 }

// moveRow is a row of the table moves.
type moveRow struct {
	ID              mysql.UUID `db:"id"`
	Donor           int64      `db:"donor"`
	Receiver        int64      `db:"receiver"`
	Units           int64      `db:"units"`
	DonorVersion    int64      `db:"donor_version"`
	ReceiverVersion int64      `db:"receiver_version"`
	DecidedAt       time.Time  `db:"decided_at"`
}

func (r moveRow) move() Move {
	return Move{
		ID: uuid.UUID(r.ID), Donor: r.Donor, Receiver: r.Receiver, Units: r.Units,
		DonorVersion: r.DonorVersion, ReceiverVersion: r.ReceiverVersion,
	}
}

// Move moves units from one bucket to another, once: it returns what was decided under its id before, if something was.
// It is cancelled if the donor has too few units or the two are not buckets in use of one product. Undone reports of an
// error whether that leaves the decision open.
func (l *Ledger) Move(ctx context.Context, m Move) (Move, error) { return l.decideMove(ctx, m, false) }

// CancelMove decides that a move is not made, unless it was decided before, and returns what the decision is.
func (l *Ledger) CancelMove(ctx context.Context, m Move) (Move, error) {
	return l.decideMove(ctx, m, true)
}

func (l *Ledger) decideMove(ctx context.Context, m Move, cancel bool) (decided Move, err error) {
	if err := failpoint.Before(failpoint.Move); err != nil {
		return Move{}, fmt.Errorf("move %s: %w", m.ID, err)
	}

	err = l.db.InTx(ctx, func(tx *sqlx.Tx) error {
		var rows []productRow
		if !cancel {
			var err error
			if rows, err = lockRows(ctx, tx, []int64{m.Donor, m.Receiver}); err != nil {
				return err
			}
		}

		var known moveRow
		err := tx.GetContext(ctx, &known, `SELECT id, donor, receiver, units, donor_version, receiver_version, decided_at
			FROM moves WHERE id = ?`, mysql.UUID(m.ID))
		switch {
		case err == nil:
			decided = known.move()
			return nil
		case !errors.Is(err, sql.ErrNoRows):
			return fmt.Errorf("read move: %w", err)
		}

		row := moveRow{
			ID: mysql.UUID(m.ID), Donor: m.Donor, Receiver: m.Receiver, Units: m.Units, DecidedAt: mysql.Now(),
		}
		if !cancel && possible(m, rows) {
			if err := move(ctx, tx, &row, rows); err != nil {
				return err
			}
		}
		if err := insertMove(ctx, tx, row); err != nil {
			return err
		}
		decided = row.move()
		decided.Fresh = true
		return failpoint.Before(failpoint.MoveCommit)
	})

	if err == nil {
		if err = failpoint.After(failpoint.MoveCommit); err != nil {
			err = fmt.Errorf("%w: %w", mysql.ErrCommit, err)
		}
	}
	if err != nil {
		return Move{}, fmt.Errorf("move %s: %w", m.ID, err)
	}
	return decided, nil
}

// possible reports whether units can be moved between these rows.
func possible(m Move, rows []productRow) bool {
	if m.Units <= 0 || m.Donor == m.Receiver || len(rows) != 2 ||
		order.ProductOf(m.Donor) != order.ProductOf(m.Receiver) {
		return false
	}
	for _, row := range rows {
		if b := order.BucketOf(row.ID); b == 0 || row.Buckets < int64(b) || row.ID == m.Donor && row.Stock < m.Units {
			return false
		}
	}
	return true
}

// move changes the stock of both buckets, which are locked.
func move(ctx context.Context, tx *sqlx.Tx, m *moveRow, rows []productRow) error {
	for _, row := range rows {
		delta, version := m.Units, &m.ReceiverVersion
		if row.ID == m.Donor {
			delta, version = -m.Units, &m.DonorVersion
		}
		*version = row.Version + 1
		err := changeStock(ctx, tx, &row, []ledgerRow{{
			ProductID: row.ID, Version: *version, Delta: delta, Balance: row.Stock + delta,
			Reason: ledgerMove, Ref: []byte(uuid.UUID(m.ID).String()), CreatedAt: m.DecidedAt,
		}})
		if err != nil {
			return err
		}
	}
	return nil
}

// insertMove returns ErrLostRace if the move was decided since this transaction looked.
func insertMove(ctx context.Context, tx *sqlx.Tx, row moveRow) error {
	_, err := tx.NamedExecContext(ctx, `INSERT INTO moves (id, donor, receiver, units, donor_version, receiver_version, decided_at)
		VALUES (:id, :donor, :receiver, :units, :donor_version, :receiver_version, :decided_at)`, row)
	switch {
	case mysql.ErrorNumber(err) == mysql.DuplicateEntry:
		return fmt.Errorf("insert move: %w: %w", mysql.ErrLostRace, err)
	case err != nil:
		return fmt.Errorf("insert move: %w", err)
	}
	return nil
}
