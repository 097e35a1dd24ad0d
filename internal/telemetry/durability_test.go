package telemetry

import (
	"bytes"
	"log/slog"
	"stampede/internal/mysql"
	"strings"
	"testing"
)

// The log says how bad a server's settings are, and only Galera ends a start.
func TestDurabilityIsJudged(t *testing.T) {
	was := slog.Default()
	defer slog.SetDefault(was)
	safe := mysql.Durability{FlushLog: "1", LogBin: "ON", SyncBinlog: "1"}
	lazy := mysql.Durability{FlushLog: "2", LogBin: "OFF", SyncBinlog: "0"}
	node := mysql.Durability{FlushLog: "1", LogBin: "OFF", SyncBinlog: "0", WsrepOn: "ON"}
	for name, test := range map[string]struct {
		watch      Durability
		says       mysql.Durability
		log        string // of the only line
		ends, lose bool
	}{
		"safe": {Durability{}, safe, "", false, false},
		"lazy": {Durability{}, lazy, "level=ERROR innodb_flush_log_at_trx_commit=2", false, true},
		"lazy and local": {Durability{Local: true}, lazy, "level=INFO MYSQL_LOCAL innodb_flush_log_at_trx_commit=2",
			false, false},
		"says nothing":  {Durability{}, mysql.Durability{}, "level=WARN not known sync_binlog", false, false},
		"node":          {Durability{}, node, "", true, true},
		"node, local":   {Durability{Local: true}, node, "", true, true},
		"node, allowed": {Durability{AllowGalera: true}, node, "level=WARN Galera MYSQL_ALLOW_GALERA", false, false},
	} {
		var log bytes.Buffer
		slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
		err := test.watch.judge(test.says)
		if (err != nil) != test.ends || err != nil && !strings.Contains(err.Error(), "MYSQL_ALLOW_GALERA=true") {
			t.Errorf("%s: error %v", name, err)
		}
		if got := test.watch.may(test.says); got != test.lose {
			t.Errorf("%s: may lose commits: %v", name, got)
		}
		if lines := strings.Count(log.String(), "\n"); lines != min(len(test.log), 1) {
			t.Errorf("%s: %d lines in the log: %s", name, lines, &log)
		}
		for word := range strings.FieldsSeq(test.log) {
			if !strings.Contains(log.String(), word) {
				t.Errorf("%s: the log does not say %q: %s", name, word, &log)
			}
		}
	}
}
