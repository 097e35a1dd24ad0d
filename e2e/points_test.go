package e2e

import (
	"database/sql"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"stampede/localstack/stacktest"
)

// TestRedemption has a crowd redeem a gift for points, of whom some have too few, while others buy it for money.
func TestRedemption(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.mustCtl("product", "add", "--name", "gift", "--price", "100", "--points-price", "30", "--stock", "200",
		"--payment", "required")
	s.startEdge()
	s.startWorker()

	const crowd = 60
	db, err := sql.Open("mysql", s.stack.MariaDB.DSN("stampede"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for user := 1; user <= crowd; user++ {
		givePoints(t, db, user, 31-2*(user%3))
	}

	// Of each three users one has points for a unit, one has too few, and one buys for money.
	var buyers sync.WaitGroup
	for user := 1; user <= crowd; user++ {
		buyers.Go(func() {
			body, want, reason := `{"product_id":1,"quantity":1,"pay_with":"points"}`, "failed", "insufficient_points"
			switch user % 3 {
			case 0:
				want, reason = "completed", ""
			case 2:
				body, want, reason = `{"product_id":1,"quantity":1}`, "awaiting_payment", ""
			}
			status, accepted := request(t, "POST", s.url+"/api/orders", s.token(user), body)
			if status != http.StatusAccepted {
				t.Errorf("user %d: %d %v", user, status, accepted)
				return
			}
			path := s.url + "/api/orders/" + accepted["order_id"].(string)
			var shown map[string]any
			for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
				if _, shown = request(t, "GET", path+"?wait=10s", s.token(user), ""); shown["status"] != "pending" {
					break
				}
			}
			shownReason, _ := shown["failed_reason"].(string)
			if shown["status"] != want || shownReason != reason {
				t.Errorf("user %d is shown %v, want %s %s", user, shown, want, reason)
			}
			if byPoints := user%3 != 2; byPoints != (shown["pay_with"] == "points") ||
				byPoints != (shown["currency"] == "PTS") || byPoints != (shown["total_price"] == 30.0) {
				t.Errorf("user %d is shown %v", user, shown)
			}
		})
	}
	buyers.Wait()

	stacktest.Eventually(t, 30*time.Second, func() error {
		var balance, spent int
		err := db.QueryRowContext(t.Context(), `SELECT SUM(balance), SUM(spent) FROM wallets`).Scan(&balance, &spent)
		if want := crowd / 3 * 30; err == nil && (spent != want || balance+spent != crowd/3*(31+29+27)) {
			err = fmt.Errorf("%d points are left and %d are spent, want %d", balance, spent, want)
		}
		return err
	})
	if a := s.audit(time.Minute); !a.OK || a.Queue.Dead != 0 {
		t.Errorf("the audit found %v and %d dead letters", a.Problems, a.Queue.Dead)
	}
}

// givePoints has a user begin with points.
func givePoints(t *testing.T, db *sql.DB, user, points int) {
	t.Helper()
	for _, row := range []string{
		`INSERT INTO wallets (user_id, balance, earned, spent, version) SELECT ?, points, points, 0, 1`,
		`INSERT INTO wallet_ledger (user_id, version, type, delta, balance, ref, note, created_at)
			SELECT ?, 1, 'topup', points, points, 'first', '', NOW(6)`,
	} {
		if _, err := db.ExecContext(t.Context(), row+` FROM (SELECT ? AS points) AS given`, user, points); err != nil {
			t.Fatal(err)
		}
	}
}
