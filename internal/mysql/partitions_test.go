package mysql

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"stampede/localstack/stacktest"
)

// TestOrdersOfBeforeThePartitions migrates a database with orders, and each migration twice, as after a crash between
// its statement and the note of its version.
func TestOrdersOfBeforeThePartitions(t *testing.T) {
	t.Parallel()
	db := open(t, stacktest.AnyDSN(t))
	provider, err := newProvider(db.DB.DB)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := provider.UpTo(t.Context(), 20); err != nil {
		t.Fatal(err)
	}

	exec(t, db, `INSERT INTO products (id, name, description, price, currency, stock, limit_per_user, limit_ceiling,
			state, revision, version, created_at)
		VALUES (1, 'limited', '', 1, 'EUR', 10, 5, 5, 'on_sale', 1, 7, NOW()),
			(2, 'free', '', 1, 'EUR', 10, 0, 0, 'on_sale', 1, 7, NOW())`)
	now := time.Now().UTC().Truncate(time.Second)
	ids := []string{}
	insert := func(age time.Duration, user, product, quantity int, status, key string) {
		id := idBound(now.Add(-age))
		id = fmt.Sprintf("%s7000%012d%04d'", id[:14], len(ids), user)
		ids = append(ids, id)
		exec(t, db, `INSERT INTO orders (id, user_id, product_id, quantity, unit_price, currency, status, failed_reason,
				idempotency_key, reserved_at, decided_at)
			VALUES (`+id+`, ?, ?, ?, 1, 'EUR', ?, NULL, NULLIF(?, ''), ?, NOW())`, user, product, quantity, status, key,
			now.Add(time.Hour-age))
	}
	const day = 24 * time.Hour
	insert(400*day, 1, 1, 2, "completed", "old")
	insert(40*day, 1, 1, 1, "completed", "")
	insert(40*day, 2, 1, 1, "failed", "")
	insert(13*day, 1, 2, 3, "completed", "young")

	for _, source := range provider.ListSources() {
		if source.Version <= 20 {
			continue
		}
		if _, err := provider.UpTo(t.Context(), source.Version); err != nil {
			t.Fatal(err)
		}
		exec(t, db, "DELETE FROM goose_db_version WHERE version_id = ?", source.Version)
		if _, err := provider.UpTo(t.Context(), source.Version); err != nil {
			t.Fatalf("migration %d, again: %v", source.Version, err)
		}
	}

	want := func(query string, want ...string) {
		t.Helper()
		var got []string
		if err := db.Select(&got, query); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q, error %v", query, got, want, err)
		}
	}
	want(`SELECT CONCAT(product_id, ' ', user_id, ' ', units) FROM bought`, "1 1 3")
	want(`SELECT counted FROM products ORDER BY id`, "7", "0")
	want(`SELECT CONCAT(product_id, ' ', user_id, ' ', idempotency_key, ' ', order_id = `+ids[3]+`, ' ', used_at)
		FROM order_keys`, "2 1 young 1 "+now.Add(-13*day).Format("2006-01-02 15:04:05.000"))
	want(`SELECT COUNT(*) FROM orders WHERE idempotency_key IS NULL AND version = 0`, "4")

	// Each order is in the partition of its month, and that of the oldest is the first.
	names, err := orderPartitions(t.Context(), db)
	if err != nil || len(names) < monthsAhead+13 || partitionMonth(names[0]) != Month(now.Add(-400*day)) ||
		partitionMonth(names[len(names)-2]) != lastMonth() {
		t.Errorf("partitions %q, error %v", names, err)
	}
	for i, age := range []time.Duration{400 * day, 40 * day, 40 * day, 13 * day} {
		want(`SELECT COUNT(*) FROM orders PARTITION (`+partitionName(Month(now.Add(-age)))+`) WHERE id = `+ids[i], "1")
	}
}

// TestPartitionsAreMadeAhead has a database that was migrated long ago: its last partition is divided.
func TestPartitionsAreMadeAhead(t *testing.T) {
	t.Parallel()
	db := open(t, stacktest.AnyDSN(t))
	if _, err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	month := Month(time.Now())
	exec(t, db, `ALTER TABLE orders PARTITION BY RANGE COLUMNS (id) (`+
		partitionsBetween(month.AddDate(0, -5, 0), month.AddDate(0, -2, 0))+`)`)
	id := idBound(time.Now())
	exec(t, db, `INSERT INTO orders (id, user_id, product_id, quantity, unit_price, currency, status, reserved_at,
		decided_at, version) VALUES (`+id+`, 1, 1, 1, 1, 'EUR', 'completed', NOW(), NOW(), 2)`)

	for range 2 {
		if _, err := db.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		names, err := orderPartitions(t.Context(), db)
		if err != nil || len(names) != 5+monthsAhead+2 || names[len(names)-1] != lastPartition {
			t.Errorf("partitions %q, error %v", names, err)
		}
	}
	var found int
	err := db.Get(&found, `SELECT COUNT(*) FROM orders PARTITION (`+partitionName(month)+`) WHERE id = `+id)
	if err != nil || found != 1 {
		t.Errorf("the order is not in its month's partition (%d, %v)", found, err)
	}
}
