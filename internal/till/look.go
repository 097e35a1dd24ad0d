package till

import (
	"context"
	"fmt"
	"time"

	"stampede/internal/mysql"
)

// Event is something that a provider has told of an attempt, or has answered.
type Event struct {
	// Kind is what has happened, as package payment has it. A payment that completes nothing has the reason before it.
	Kind string
	// Key tells two events of one kind apart; it is empty where an attempt has one only.
	Key        string
	Source     Source
	ReceivedAt time.Time
	// Body is the notice as it came, or empty. There may be personal data of the buyer in it.
	Body []byte
}

// Events reads what a provider has told of an attempt, oldest first: at most mysql.MaxPage.
func (t *Till) Events(ctx context.Context, provider, number string) ([]Event, error) {
	var rows []struct {
		Kind       []byte    `db:"kind"`
		Key        []byte    `db:"event_key"`
		Source     Source    `db:"source"`
		ReceivedAt time.Time `db:"received_at"`
		Body       []byte    `db:"body"`
	}
	err := t.DB.SelectContext(ctx, &rows, `SELECT kind, event_key, source, received_at, body FROM payment_events
		WHERE provider = ? AND number = ? ORDER BY received_at, kind, event_key LIMIT ?`, provider, []byte(number),
		mysql.MaxPage)
	if err != nil {
		return nil, fmt.Errorf("read what %s has told of payment %.20q: %w", provider, number, err)
	}
	events := make([]Event, len(rows))
	for i, r := range rows {
		events[i] = Event{string(r.Kind), string(r.Key), r.Source, r.ReceivedAt, r.Body}
	}
	return events, nil
}

// RefundsOfAttempt reads the refunds of the money of one attempt, oldest first.
func (t *Till) RefundsOfAttempt(ctx context.Context, number string) ([]RefundRecord, error) {
	return selectRefunds(ctx, t.DB, `WHERE attempt = ? ORDER BY created_at, number`, []byte(number))
}

// CountByHand counts the refunds that an operator must make by hand.
func (t *Till) CountByHand(ctx context.Context) (refunds int64, err error) {
	err = t.DB.GetContext(ctx, &refunds, `SELECT COUNT(*) FROM refunds FORCE INDEX (refunds_state) WHERE state = ?`,
		RefundManual)
	if err != nil {
		return 0, fmt.Errorf("count refunds by hand: %w", err)
	}
	return refunds, nil
}

// RefundsByHand reads the refunds that an operator must make by hand, oldest first. It reads them in pages.
func (t *Till) RefundsByHand(ctx context.Context) (refunds []RefundRecord, err error) {
	last := RefundRecord{CreatedAt: time.Unix(0, 0).UTC()}
	for {
		page, err := selectRefunds(ctx, t.DB, `FORCE INDEX (refunds_state)
			WHERE state = ? AND created_at >= ? AND (created_at > ? OR number > ?)
			ORDER BY created_at, number LIMIT ?`, RefundManual, last.CreatedAt, last.CreatedAt, []byte(last.Number),
			mysql.MaxPage)
		if err != nil {
			return nil, err
		}
		refunds = append(refunds, page...)
		if len(page) < mysql.MaxPage {
			return refunds, nil
		}
		last = page[len(page)-1]
	}
}
