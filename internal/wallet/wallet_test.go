package wallet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jmoiron/sqlx"
	"pgregory.net/rapid"

	"stampede/internal/mysql"
	"stampede/internal/order"
	"stampede/localstack/stacktest"
)

func TestMain(m *testing.M) { stacktest.Main(m, stacktest.MariaDB) }

func newWallets(t testing.TB) *Wallets {
	t.Helper()
	db, err := mysql.Open(stacktest.AnyDSN(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return New(db)
}

func mustTopUp(t testing.TB, w *Wallets, user order.UserID, points int64, ref string) {
	t.Helper()
	if _, applied, err := w.TopUp(t.Context(), user, points, ref); err != nil || !applied {
		t.Fatalf("TopUp: applied %v, error %v", applied, err)
	}
}

func mustBe(t testing.TB, w *Wallets, want Wallet) {
	t.Helper()
	if got, err := w.Get(t.Context(), want.UserID); err != nil || got != want {
		t.Errorf("wallet %+v, error %v, want %+v", got, err, want)
	}
}

func mustAddUp(t testing.TB, w *Wallets) {
	t.Helper()
	if problems, err := w.Audit(t.Context()); err != nil || len(problems) > 0 {
		t.Errorf("the audit finds %+v, error %v", problems, err)
	}
}

// spend pays an order in a transaction of its own.
func (w *Wallets) spend(ctx context.Context, user order.UserID, points int64, id order.OrderID) (paid bool, err error) {
	err = w.db.InTx(ctx, func(tx *sqlx.Tx) error {
		locked, err := Lock(ctx, tx, []order.UserID{user})
		if err != nil {
			return err
		}
		paid = locked.Spend(user, points, id)
		return locked.Write(ctx, tx)
	})
	return paid, err
}

func TestChanges(t *testing.T) {
	t.Parallel()
	w := newWallets(t)
	mustBe(t, w, Wallet{UserID: 1})

	mustTopUp(t, w, 1, 100, "p1")
	e, applied, err := w.TopUp(t.Context(), 1, 100, "p1")
	if err != nil || applied || e.Balance != 100 || e.Version != 1 {
		t.Errorf("again: %+v, applied %v, error %v", e, applied, err)
	}
	if _, _, err := w.TopUp(t.Context(), 1, 101, "p1"); !errors.Is(err, ErrMismatch) {
		t.Errorf("again with other points: error %v", err)
	}
	mustTopUp(t, w, 2, 7, "p1") // another user's

	ctx := mysql.WithActor(t.Context(), "user:9")
	if _, applied, err := w.Adjust(ctx, 1, -30, "a1", "a mistake"); err != nil || !applied {
		t.Errorf("Adjust: applied %v, error %v", applied, err)
	}
	if _, applied, err := w.Adjust(ctx, 1, -30, "a1", "a mistake"); err != nil || applied {
		t.Errorf("again: applied %v, error %v", applied, err)
	}
	if _, _, err := w.Adjust(ctx, 1, -71, "a2", "too much"); !errors.Is(err, ErrInsufficient) {
		t.Errorf("more than there is: error %v", err)
	}
	mustBe(t, w, Wallet{UserID: 1, Balance: 70, Earned: 100, Spent: 30, Version: 2})

	id := order.NewID()
	for _, step := range []struct {
		user   order.UserID
		points int64
		want   bool
	}{{1, 71, false}, {1, 0, false}, {1, -1, false}, {3, 1, false}, {1, 70, true}} {
		if paid, err := w.spend(t.Context(), step.user, step.points, id); err != nil || paid != step.want {
			t.Errorf("%+v: paid %v, error %v", step, paid, err)
		}
	}
	err = w.db.InTx(t.Context(), func(tx *sqlx.Tx) error {
		locked, err := Lock(t.Context(), tx, []order.UserID{1, 2})
		return errors.Join(err, locked.Refund(1, 70, id), locked.Write(t.Context(), tx))
	})
	if err != nil {
		t.Error(err)
	}
	mustBe(t, w, Wallet{UserID: 1, Balance: 70, Earned: 170, Spent: 100, Version: 4})
	mustBe(t, w, Wallet{UserID: 2, Balance: 7, Earned: 7, Version: 1})
	mustAddUp(t, w)

	entries, err := w.Ledger(t.Context(), 1, 0, 3)
	var got []string
	for _, e := range entries {
		got = append(got, fmt.Sprint(e.Version, e.Type, e.Delta, e.Balance, e.Note))
	}
	want := []string{"4refund70 70", "3spend-70 0", "2adjustment-30 70a mistake"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("ledger %q, error %v, want %q", got, err, want)
	}
	if entries, err := w.Ledger(t.Context(), 1, 2, 3); err != nil || len(entries) != 1 || entries[0].Type != TopUp {
		t.Errorf("the rest: %+v, error %v", entries, err)
	}

	log, err := w.db.StaffLog(t.Context(), "user 1", mysql.Now().AddDate(0, 0, -1), 10)
	if err != nil || len(log) != 1 || log[0].Actor != "user:9" {
		t.Errorf("staff log %+v, error %v", log, err)
	}
}

func TestBadChanges(t *testing.T) {
	t.Parallel()
	w := newWallets(t)
	mustTopUp(t, w, 1, MaxPoints, "all")
	topUp := func(user order.UserID, points int64, ref string) error {
		_, _, err := w.TopUp(t.Context(), user, points, ref)
		return err
	}
	adjust := func(points int64, reason string) error {
		_, _, err := w.Adjust(t.Context(), 1, points, "a", reason)
		return err
	}
	for what, err := range map[string]error{
		"no points":           topUp(1, 0, "a"),
		"points below zero":   topUp(1, -1, "a"),
		"too many points":     topUp(2, MaxPoints+1, "a"),
		"one more than fits":  topUp(1, 1, "a"),
		"no reference":        topUp(1, 1, ""),
		"a long reference":    topUp(1, 1, strings.Repeat("a", 65)),
		"no adjustment":       adjust(0, "x"),
		"no reason":           adjust(-1, ""),
		"a long reason":       adjust(-1, strings.Repeat("ü", 201)),
		"a reason of no text": adjust(-1, "\x00"),
	} {
		if !errors.Is(err, mysql.ErrInvalid) {
			t.Errorf("%s: error %v", what, err)
		}
	}
	mustBe(t, w, Wallet{UserID: 1, Balance: MaxPoints, Earned: MaxPoints, Version: 1})
}

// TestAThousandRedemptions: a crowd spends one wallet, while it is topped up by somebody who repeats himself. Nothing
// is spent that is not there, and nothing is left that could have been.
func TestAThousandRedemptions(t *testing.T) {
	t.Parallel()
	w := newWallets(t)
	const orders, points, has, comes = 1_000, 3, 1_000, 500
	mustTopUp(t, w, 1, has, "first")

	var paid atomic.Int64
	var all sync.WaitGroup
	turns := make(chan int, orders)
	for i := range orders {
		turns <- i
	}
	close(turns)
	for range 16 {
		all.Go(func() {
			for i := range turns {
				if i%100 == 0 {
					if _, _, err := w.TopUp(t.Context(), 1, comes, "second"); err != nil {
						t.Error(err)
					}
				}
				switch ok, err := w.spend(t.Context(), 1, points, order.NewID()); {
				case err != nil:
					t.Error(err)
				case ok:
					paid.Add(1)
				}
			}
		})
	}
	all.Wait()

	const want = (has + comes) / points
	if n := paid.Load(); n != want {
		t.Errorf("%d orders are paid, want %d", n, want)
	}
	mustBe(t, w, Wallet{UserID: 1, Earned: has + comes, Spent: want * points, Version: 2 + want})
	mustAddUp(t, w)
}

// TestAsTheReference plays changes of a few wallets in one transaction after the other, some of which are undone,
// against sums that are kept beside.
func TestAsTheReference(t *testing.T) {
	t.Parallel()
	w := newWallets(t)
	next := order.UserID(0)
	rapid.Check(t, func(rt *rapid.T) {
		first := next // each play has users of its own
		next += 3
		balances := map[order.UserID]int64{}
		applied := map[string]int64{}
		var spent []Entry

		user := func(t *rapid.T) order.UserID { return first + order.UserID(rapid.Int64Range(1, 3).Draw(t, "user")) }
		rt.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				for u := first + 1; u <= first+3; u++ {
					if got, err := w.Get(background, u); err != nil || got.Balance != balances[u] ||
						got.Earned-got.Spent != balances[u] {
						t.Fatalf("%+v, error %v, want %d", got, err, balances[u])
					}
				}
			},
			"top up": func(t *rapid.T) {
				u, n := user(t), rapid.Int64Range(1, 9).Draw(t, "points")
				ref := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "ref")
				key := fmt.Sprint(u, ref)
				before, known := applied[key]
				_, did, err := w.TopUp(background, u, n, ref)
				switch {
				case known && before != n:
					if !errors.Is(err, ErrMismatch) {
						t.Fatalf("error %v", err)
					}
				case err != nil || did == known:
					t.Fatalf("applied %v, error %v", did, err)
				case did:
					balances[u] += n
					applied[key] = n
				}
			},
			"transaction": func(t *rapid.T) {
				undo := errors.New("undone")
				after := map[order.UserID]int64{}
				for u, n := range balances {
					after[u] = n
				}
				var here []Entry
				err := w.db.InTx(background, func(tx *sqlx.Tx) error {
					locked, err := Lock(background, tx, []order.UserID{first + 3, first + 1, first + 2, first + 1})
					if err != nil {
						return err
					}
					for range rapid.IntRange(1, 4).Draw(t, "changes") {
						if len(spent) > 0 && rapid.Bool().Draw(t, "refund") {
							e := spent[0]
							spent = spent[1:]
							if err := locked.Refund(e.UserID, -e.Delta, order.OrderID(e.Ref)); err != nil {
								return err
							}
							after[e.UserID] -= e.Delta
							continue
						}
						u, n, id := user(t), rapid.Int64Range(1, 9).Draw(t, "points"), order.NewID()
						if paid := locked.Spend(u, n, id); paid != (after[u] >= n) {
							t.Fatalf("user %d with %d points pays %d: %v", u, after[u], n, paid)
						} else if paid {
							after[u] -= n
							here = append(here, Entry{UserID: u, Delta: -n, Ref: id[:]})
						}
					}
					if err := locked.Write(background, tx); err != nil {
						return err
					}
					if rapid.IntRange(0, 3).Draw(t, "undo") == 0 {
						return undo
					}
					return nil
				})
				switch {
				case err == nil:
					balances, spent = after, append(spent, here...)
				case !errors.Is(err, undo):
					t.Fatal(err)
				default:
					spent = nil // which of them were to be refunded is forgotten
				}
			},
		})
	})
	mustAddUp(t, w)
}

var background = context.Background()

func TestAuditFindsCorruption(t *testing.T) {
	t.Parallel()
	for what, statement := range map[string]string{
		"balance":     "UPDATE wallets SET balance = balance + 1, earned = earned + 1 WHERE user_id = 2",
		"earned":      "UPDATE wallets SET earned = earned + 1, spent = spent + 1 WHERE user_id = 2",
		"version":     "UPDATE wallets SET version = version + 1 WHERE user_id = 2",
		"a gap":       "UPDATE wallet_ledger SET version = 9 WHERE user_id = 2 AND version = 2",
		"a change":    "UPDATE wallet_ledger SET delta = delta + 1 WHERE user_id = 2 AND version = 1",
		"two changes": "UPDATE wallet_ledger SET balance = balance + 1 WHERE user_id = 2 AND version = 1",
		"no wallet":   "DELETE FROM wallets WHERE user_id = 2",
		"no ledger":   "DELETE FROM wallet_ledger WHERE user_id = 2",
	} {
		t.Run(what, func(t *testing.T) {
			w := newWallets(t)
			for user := range order.UserID(3) {
				mustTopUp(t, w, user+1, 5, "a")
				mustTopUp(t, w, user+1, 6, "b")
			}
			mustAddUp(t, w)
			if _, err := w.db.ExecContext(t.Context(), statement); err != nil {
				t.Fatal(err)
			}
			problems, err := w.Audit(t.Context())
			others := func(p Problem) bool { return p.UserID != 2 }
			if err != nil || len(problems) == 0 || slices.ContainsFunc(problems, others) {
				t.Errorf("found %+v, error %v", problems, err)
			}
		})
	}
}
