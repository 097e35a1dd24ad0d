package mysql

import (
	"context"
	"fmt"
	"strings"
)

// Durability is what a server says of whether its commits last. An order's message is deleted after the commit that
// decides it, so a commit that is lost later is lost for good. What the server does not say is "".
type Durability struct {
	FlushLog   string // innodb_flush_log_at_trx_commit
	LogBin     string // log_bin
	SyncBinlog string // sync_binlog
	WsrepOn    string // wsrep_on, which only servers with Galera have
}

// Durability asks the server. SHOW VARIABLES needs no privilege, and leaves out what a server does not have.
func (db *DB) Durability(ctx context.Context) (Durability, error) {
	var rows []struct {
		Name  string `db:"Variable_name"`
		Value string `db:"Value"`
	}
	err := db.SelectContext(ctx, &rows, `SHOW GLOBAL VARIABLES WHERE Variable_name IN
		('innodb_flush_log_at_trx_commit', 'log_bin', 'sync_binlog', 'wsrep_on')`)
	if err != nil {
		return Durability{}, fmt.Errorf("ask for mysql's settings: %w", err)
	}

	var d Durability
	for _, row := range rows {
		switch strings.ToLower(row.Name) {
		case "innodb_flush_log_at_trx_commit":
			d.FlushLog = row.Value
		case "log_bin":
			d.LogBin = row.Value
		case "sync_binlog":
			d.SyncBinlog = row.Value
		case "wsrep_on":
			d.WsrepOn = row.Value
		}
	}
	return d, nil
}

// Unsafe are the settings with which a power cut may take commits back, as name=value.
func (d Durability) Unsafe() []string {
	var unsafe []string
	if d.FlushLog != "" && d.FlushLog != "1" {
		unsafe = append(unsafe, "innodb_flush_log_at_trx_commit="+d.FlushLog)
	}
	// After a crash InnoDB takes back what a binary log that is on does not hold.
	if !isOff(d.LogBin) && d.SyncBinlog != "" && d.SyncBinlog != "1" {
		unsafe = append(unsafe, "sync_binlog="+d.SyncBinlog)
	}
	return unsafe
}

// Unknown are the settings that the server does not say and on which it depends whether commits last.
func (d Durability) Unknown() []string {
	var unknown []string
	if d.FlushLog == "" {
		unknown = append(unknown, "innodb_flush_log_at_trx_commit")
	}
	if d.LogBin == "" {
		unknown = append(unknown, "log_bin")
	}
	if !isOff(d.LogBin) && d.SyncBinlog == "" {
		unknown = append(unknown, "sync_binlog")
	}
	return unknown
}

// Galera reports whether the server is a node of a Galera cluster. A server that does not know the setting is none.
func (d Durability) Galera() bool { return d.WsrepOn != "" && !isOff(d.WsrepOn) }

func isOff(value string) bool { return strings.EqualFold(value, "OFF") || value == "0" }
