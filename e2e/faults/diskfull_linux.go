package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// fillerBytes are written at a time to use up what room MariaDB's file still has.
	fillerBytes = 100_000
	// diskFull is how long no file of MariaDB can grow.
	diskFull = 8 * time.Second
)

// full is what MariaDB says of a table of orders that cannot grow.
var full = regexp.MustCompile(`The table '(orders|stock_ledger)' is full`)

// diskRows need Linux, where the limit of a file's size can be set from outside the process.
func diskRows() []row {
	// The server would be killed by the signal that comes with the limit; ignored here, it is ignored there.
	signal.Ignore(syscall.SIGXFSZ)
	return []row{{
		name: "mariadb has no room on its disk", span: 14 * time.Second, fault: fillDisk,
		// All tables in one file, which is larger than the log, so that the limit is met by tables alone. A log that
		// cannot be written ends the server, which is another row.
		mariadbArgs: []string{"--innodb-file-per-table=OFF", "--innodb-log-file-size=8M",
			"--innodb-autoextend-increment=1"},
		also: func(r *run) []finding {
			content, err := os.ReadFile(filepath.Join(r.dir, "stack", "mariadb", "mariadb.log"))
			if err != nil || !full.Match(content) {
				return []finding{{"process", 1, fmt.Sprintf("the disk was not full for any order (%v)", err)}}
			}
			return nil
		},
	}}
}

// fillDisk lets MariaDB's files grow no further for a time.
func fillDisk(ctx context.Context, r *run) error {
	m := r.system.stack.MariaDB
	db, err := sql.Open("mysql", "root@tcp("+m.Addr()+")/stampede")
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.ExecContext(ctx,
		"CREATE TABLE filler (id INT AUTO_INCREMENT PRIMARY KEY, bytes LONGBLOB)"); err != nil {
		return err
	}
	file, err := os.Stat(filepath.Join(r.dir, "stack", "mariadb", "data", "ibdata1"))
	if err != nil {
		return err
	}
	limit := func(bytes uint64) error {
		return unix.Prlimit(m.Pid(), unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: bytes, Max: unix.RLIM_INFINITY}, nil)
	}
	if err := limit(uint64(file.Size())); err != nil {
		return err
	}
	for err == nil { // at most what the file has room for
		_, err = db.ExecContext(ctx, "INSERT INTO filler (bytes) VALUES (REPEAT('x', ?))", fillerBytes)
	}
	err = sleep(ctx, diskFull)
	return errors.Join(err, limit(unix.RLIM_INFINITY))
}
