package ledger

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/localstack"
	"stampede/localstack/stacktest"
)

// TestServerFaults has a server killed, stopped and started under a stream of orders: every error is the system's
// fault, and a repeated call finds out what became of the first.
func TestServerFaults(t *testing.T) {
	t.Parallel()
	server := stacktest.NewMariaDB(t, localstack.MariaDBOptions{})
	if err := server.CreateDatabase(t.Context(), "shop"); err != nil {
		t.Fatal(err)
	}
	l := open(t, server.DSN("shop")+"?readTimeout=2s&timeout=1s")
	if _, err := l.db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	product := addProduct(t, l, 1_000_000, 0)

	type answer struct {
		order order.Order
		err   error
	}
	// stream sends one order after the other until the fault has shown, and returns the orders it sent. The fault is
	// told when it has shown.
	stream := func(fault func(shown <-chan struct{}) error) (answers []answer) {
		t.Helper()
		const before = 20
		broken, shown := make(chan error, 1), make(chan struct{})
		deadline := time.Now().Add(time.Minute)
		for i := 0; ; i++ {
			if i == before {
				go func() { broken <- fault(shown) }()
			}
			if time.Now().After(deadline) {
				close(shown)
				t.Fatalf("the fault has not shown in %d orders", i)
			}
			o := newOrder(product.ID, 1, 1, "")
			_, err := l.Decide(t.Context(), product.ID, []order.Order{o})
			answers = append(answers, answer{o, err})
			if err != nil {
				if i < before {
					t.Fatalf("before the fault: %v", err)
				}
				close(shown)
				if err := <-broken; err != nil {
					t.Fatal(err)
				}
				return answers
			}
		}
	}
	settle := func(name string, answers []answer) {
		t.Helper()
		last := answers[len(answers)-1]
		if mysql.Classify(last.err) != mysql.Systemic {
			t.Errorf("%s: %s: %v", name, mysql.Classify(last.err), last.err)
		}
		for i, a := range answers {
			d := mustDecide(t, l, product.ID, a.order)[0]
			if d.Status != order.Completed || (a.err == nil && d.Fresh) {
				t.Fatalf("%s: order %d of %d, error %v, then %s", name, i, len(answers), a.err, short(d))
			}
		}
		mustBeSound(t, l)
	}

	// The store's connections are ended by the server until that meets a transaction: the pool replaces an idle one
	// without a word.
	other := open(t, server.DSN("shop"))
	answers := stream(func(shown <-chan struct{}) error {
		for {
			var ids []int64
			if err := other.db.Select(&ids,
				"SELECT id FROM information_schema.processlist WHERE id <> CONNECTION_ID() AND db = 'shop'"); err != nil {
				return err
			}
			for _, id := range ids {
				_, _ = other.db.Exec(fmt.Sprintf("KILL %d", id)) // it may be gone
			}
			select {
			case <-shown:
				return nil
			default:
			}
		}
	})
	settle("kill of the connection", answers)

	answers = stream(func(<-chan struct{}) error { return server.Kill() })
	if err := l.db.Ping(t.Context()); mysql.Classify(err) != mysql.Systemic {
		t.Errorf("ping of a dead server: %v", err)
	}
	_, err := l.Product(t.Context(), product.ID)
	if mysql.Classify(err) != mysql.Systemic || errors.Is(err, mysql.ErrNotFound) {
		t.Errorf("read from a dead server: %v", err)
	}
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	settle("kill of the server", answers)

	answers = stream(func(<-chan struct{}) error { return server.Signal(syscall.SIGSTOP) })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := l.db.Ping(ctx); !errors.Is(err, context.DeadlineExceeded) || mysql.Classify(err) != mysql.Systemic {
		t.Errorf("ping of a server that hangs: %v", err)
	}
	if err := server.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	settle("a server that hangs", answers)

	exec(t, other, "SET GLOBAL max_connections = 10")
	crowd := open(t, server.DSN("shop"))
	var crowded error
	for range 20 { // the server reserves some for administrators
		conn, err := crowd.db.Conn(t.Context())
		if err != nil {
			crowded = err
			break
		}
		defer conn.Close()
	}
	if mysql.ErrorNumber(crowded) != 1040 || mysql.Classify(crowded) != mysql.Systemic {
		t.Errorf("too many connections: %v", crowded)
	}
}

// TestLockWait holds a product's row for longer than a statement waits for it: the transaction is run again, and
// succeeds when the row is free.
func TestLockWait(t *testing.T) {
	t.Parallel()
	dsn := stacktest.AnyDSN(t)
	separator := "?"
	if strings.Contains(dsn, "?") {
		separator = "&"
	}
	l := open(t, dsn+separator+"innodb_lock_wait_timeout=1")
	if _, err := l.db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	product := addProduct(t, l, 10, 0)

	holder := l.db.MustBegin()
	defer func() { _ = holder.Rollback() }()
	var held int64
	if err := holder.Get(&held, "SELECT id FROM products WHERE id = ? FOR UPDATE", product.ID); err != nil {
		t.Fatal(err)
	}
	var attempts atomic.Int64
	done := make(chan error, 1)
	go func() {
		done <- l.db.InTx(t.Context(), func(tx *sqlx.Tx) error {
			attempts.Add(1)
			_, err := lockProduct(t.Context(), tx, product.ID)
			return err
		})
	}()
	stacktest.Eventually(t, 20*time.Second, func() error {
		if n := attempts.Load(); n < 2 {
			return fmt.Errorf("%d attempts", n)
		}
		return nil
	})
	if err := holder.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestDeadlock makes a real one, and expects the loser's error to be transient.
func TestDeadlock(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	a, b := addProduct(t, l, 10, 0), addProduct(t, l, 10, 0)
	lock := func(tx *sqlx.Tx, id order.StockID) error {
		_, err := lockProduct(t.Context(), tx, id)
		return err
	}
	first, second := l.db.MustBegin(), l.db.MustBegin()
	defer func() { _, _ = first.Rollback(), second.Rollback() }()
	if err := errors.Join(lock(first, a.ID), lock(second, b.ID)); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- lock(first, b.ID) }()
	err := lock(second, a.ID)
	_ = second.Rollback()
	err = errors.Join(err, <-done)
	if mysql.ErrorNumber(err) != 1213 || mysql.Classify(err) != mysql.Transient {
		t.Errorf("%s: %v", mysql.Classify(err), err)
	}
}
