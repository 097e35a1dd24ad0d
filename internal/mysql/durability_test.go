package mysql

import (
	"slices"
	"strings"
	"testing"

	"stampede/localstack"
	"stampede/localstack/stacktest"
)

// What a real server says is understood, also while it is changed.
func TestDurabilityOfAServer(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args   []string
		unsafe string
	}{
		"safe, without a binary log": {[]string{"--innodb-flush-log-at-trx-commit=1", "--sync-binlog=0"}, ""},
		"safe, with one": {[]string{"--innodb-flush-log-at-trx-commit=1", "--log-bin", "--sync-binlog=1"},
			""},
		"a log that is not synced": {[]string{"--innodb-flush-log-at-trx-commit=1", "--log-bin", "--sync-binlog=0"},
			"sync_binlog=0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := stacktest.NewMariaDB(t, localstack.MariaDBOptions{Args: test.args})
			db := open(t, server.DSN("mysql"))
			mustBeDurable(t, db, test.unsafe)

			exec(t, db, "SET GLOBAL innodb_flush_log_at_trx_commit = 2")
			want := "innodb_flush_log_at_trx_commit=2"
			if test.unsafe != "" {
				want += " " + test.unsafe
			}
			mustBeDurable(t, db, want)
		})
	}
}

func mustBeDurable(t *testing.T, db *DB, unsafe string) {
	t.Helper()
	d, err := db.Durability(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(d.Unsafe(), " "); got != unsafe || len(d.Unknown()) != 0 || d.Galera() {
		t.Errorf("unsafe %q, want %q; unknown %v; Galera %v", got, unsafe, d.Unknown(), d.Galera())
	}
}

// What other servers say, or do not say.
func TestDurability(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		says            Durability
		unsafe, unknown []string
		galera          bool
	}{
		"MySQL 8.4, which knows no Galera": {Durability{"1", "ON", "1", ""}, nil, nil, false},
		"MySQL, synced now and then": {Durability{"0", "ON", "1000", ""},
			[]string{"innodb_flush_log_at_trx_commit=0", "sync_binlog=1000"}, nil, false},
		"no binary log to sync":       {Durability{"1", "OFF", "0", "OFF"}, nil, nil, false},
		"a node of Galera":            {Durability{"1", "OFF", "0", "ON"}, nil, nil, true},
		"a node of Galera, by number": {Durability{"1", "0", "0", "1"}, nil, nil, true},
		"nothing is said": {Durability{}, nil,
			[]string{"innodb_flush_log_at_trx_commit", "log_bin", "sync_binlog"}, false},
		"not whether there is a log": {Durability{"1", "", "0", ""}, []string{"sync_binlog=0"}, []string{"log_bin"},
			false},
		"not whether the log is synced": {Durability{"1", "ON", "", ""}, nil, []string{"sync_binlog"}, false},
	} {
		if got := test.says.Unsafe(); !slices.Equal(got, test.unsafe) {
			t.Errorf("%s: unsafe %v, want %v", name, got, test.unsafe)
		}
		if got := test.says.Unknown(); !slices.Equal(got, test.unknown) {
			t.Errorf("%s: unknown %v, want %v", name, got, test.unknown)
		}
		if got := test.says.Galera(); got != test.galera {
			t.Errorf("%s: Galera %v", name, got)
		}
	}
}
