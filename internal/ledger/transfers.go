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

// Transfer is units that go from one bucket of a product to another or, of a correction, out of a product.
type Transfer struct {
	// ID is a UUIDv7.
	ID uuid.UUID
	// Donor and Receiver are the ids of the buckets. A correction has a product as its donor, and 0 as its receiver.
	Donor, Receiver order.StockID
	Units           int64
	// DonorVersion and ReceiverVersion are the versions that the transfer made. They are 0 if it was cancelled.
	DonorVersion, ReceiverVersion int64
	// Fresh reports whether this call has decided the transfer, and not an earlier one.
	Fresh bool
}

// Made reports whether the units were transferred, and the transfer not cancelled.
func (t Transfer) Made() bool { return t.DonorVersion > 0 }

// transferRow is a row of the table moves.
type transferRow struct {
	ID              mysql.UUID    `db:"id"`
	Donor           order.StockID `db:"donor"`
	Receiver        order.StockID `db:"receiver"`
	Units           int64         `db:"units"`
	DonorVersion    int64         `db:"donor_version"`
	ReceiverVersion int64         `db:"receiver_version"`
	DecidedAt       time.Time     `db:"decided_at"`
}

func (r transferRow) transfer() Transfer {
	return Transfer{
		ID: uuid.UUID(r.ID), Donor: r.Donor, Receiver: r.Receiver, Units: r.Units,
		DonorVersion: r.DonorVersion, ReceiverVersion: r.ReceiverVersion,
	}
}

// Transfer moves units from one bucket to another, once: it returns what was decided under its id before, if something
// was. It is cancelled if the donor has too few units or the two are not buckets in use of one product. Undone reports
// of an error whether that leaves the decision open.
func (l *Ledger) Transfer(ctx context.Context, t Transfer) (Transfer, error) {
	return l.decideTransfer(ctx, t, false)
}

// CancelTransfer decides that a transfer is not made, unless it was decided before, and returns what the decision is.
func (l *Ledger) CancelTransfer(ctx context.Context, t Transfer) (Transfer, error) {
	return l.decideTransfer(ctx, t, true)
}

func (l *Ledger) decideTransfer(ctx context.Context, t Transfer, cancel bool) (decided Transfer, err error) {
	if err := failpoint.Before(failpoint.Move); err != nil {
		return Transfer{}, fmt.Errorf("transfer %s: %w", t.ID, err)
	}

	err = l.db.InTx(ctx, func(tx *sqlx.Tx) error {
		// The buckets come first, as in every transaction. Who only cancels need not lock them.
		var rows []productRow
		if !cancel {
			var err error
			if rows, err = lockRows(ctx, tx, []order.StockID{t.Donor, t.Receiver}); err != nil {
				return err
			}
		}

		var known transferRow
		err := tx.GetContext(ctx, &known, `SELECT id, donor, receiver, units, donor_version, receiver_version,
			decided_at FROM moves WHERE id = ?`, mysql.UUID(t.ID))
		switch {
		case err == nil:
			decided = known.transfer()
			return nil
		case !errors.Is(err, sql.ErrNoRows):
			return fmt.Errorf("read transfer: %w", err)
		}

		// A transfer that is not possible is stored as well, as cancelled.
		row := transferRow{
			ID: mysql.UUID(t.ID), Donor: t.Donor, Receiver: t.Receiver, Units: t.Units, DecidedAt: mysql.Now(),
		}
		if !cancel && possible(t, rows) {
			if err := transfer(ctx, tx, &row, rows); err != nil {
				return err
			}
		}
		if err := insertTransfer(ctx, tx, row); err != nil {
			return err
		}
		decided = row.transfer()
		decided.Fresh = true
		return failpoint.Before(failpoint.MoveCommit)
	})

	// As if the answer of the commit were lost.
	if err == nil {
		if err = failpoint.After(failpoint.MoveCommit); err != nil {
			err = fmt.Errorf("%w: %w", mysql.ErrCommit, err)
		}
	}
	if err != nil {
		return Transfer{}, fmt.Errorf("transfer %s: %w", t.ID, err)
	}
	return decided, nil
}

// possible reports whether units can be moved between these rows.
func possible(t Transfer, rows []productRow) bool {
	if t.Units <= 0 || t.Donor == t.Receiver || len(rows) != 2 ||
		t.Donor.Product() != t.Receiver.Product() {
		return false
	}
	for _, row := range rows {
		if b := row.ID.Bucket(); b == 0 || row.Buckets < int64(b) || row.ID == t.Donor && row.Stock < t.Units {
			return false
		}
	}
	return true
}

// transfer changes the stock of both buckets, which are locked.
func transfer(ctx context.Context, tx *sqlx.Tx, t *transferRow, rows []productRow) error {
	for _, row := range rows {
		delta, version := t.Units, &t.ReceiverVersion
		if row.ID == t.Donor {
			delta, version = -t.Units, &t.DonorVersion
		}
		*version = row.Version + 1
		err := changeStock(ctx, tx, &row, []ledgerRow{{
			StockID: row.ID, Version: *version, Delta: delta, Balance: row.Stock + delta,
			Reason: ledgerTransfer, Ref: []byte(uuid.UUID(t.ID).String()), CreatedAt: t.DecidedAt,
		}})
		if err != nil {
			return err
		}
	}
	return nil
}

// insertTransfer returns ErrLostRace if the transfer was decided since this transaction looked.
func insertTransfer(ctx context.Context, tx *sqlx.Tx, row transferRow) error {
	_, err := tx.NamedExecContext(ctx, `INSERT INTO moves
			(id, donor, receiver, units, donor_version, receiver_version, decided_at)
		VALUES (:id, :donor, :receiver, :units, :donor_version, :receiver_version, :decided_at)`, row)
	switch {
	case mysql.ErrorNumber(err) == mysql.DuplicateEntry:
		return fmt.Errorf("insert transfer: %w: %w", mysql.ErrLostRace, err)
	case err != nil:
		return fmt.Errorf("insert transfer: %w", err)
	}
	return nil
}
