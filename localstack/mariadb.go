package localstack

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

// mariadbMaxConnections bounds the connections of all clients together: an edge, several workers, tests that run side
// by side.
const mariadbMaxConnections = 400

// MariaDBOptions say how to run MariaDB.
type MariaDBOptions struct {
	Dir  string   // holds the log and the data; made if missing, and used again if it is there
	Args []string // further arguments of mariadbd; they win over this package's own
}

// MariaDB is a MariaDB server on a free port of 127.0.0.1. Its user is root without a password.
type MariaDB struct {
	server
	data string
}

// StartMariaDB makes a data directory, unless Dir holds one, starts a server on it and returns when it answers. What
// was committed is kept across Kill and Start, and for the next StartMariaDB with the same Dir.
func StartMariaDB(ctx context.Context, o MariaDBOptions) (*MariaDB, error) {
	binary, err := findBinary("mariadbd")
	if err != nil {
		return nil, err
	}
	dir, err := makeDir(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("starting mariadb: %w", err)
	}
	if err := installMariaDB(ctx, dir); err != nil {
		return nil, err
	}
	m := &MariaDB{data: filepath.Join(dir, "data")}
	m.name = "mariadb"
	m.options = func(port int) (ProcessOptions, error) {
		args := append(mariadbBaseArgs(),
			"--datadir="+m.data,
			"--port="+strconv.Itoa(port),
			"--bind-address=127.0.0.1",
			// Relative to the data directory: a path in the address of a Unix socket is limited to about 100 bytes.
			"--socket=mariadbd.sock",
			"--pid-file=mariadbd.pid",
			// Everybody on this machine may connect as root, so keep SELECT ... INTO OUTFILE where it does no harm.
			"--secure-file-priv="+filepath.Join(dir, "tmp"),
			"--tmpdir="+filepath.Join(dir, "tmp"),
			"--max-connections="+strconv.Itoa(mariadbMaxConnections),
			"--skip-log-bin",
			"--skip-name-resolve",
			"--character-set-server=utf8mb4",
			"--collation-server=utf8mb4_unicode_ci",
			// With 2 a commit is written to the kernel and synced once a second. That survives a kill of the process,
			// which is what is tested here; only a crash of the machine could lose the last second. MYSQL_LOCAL tells
			// the programs that this is fine.
			"--innodb-flush-log-at-trx-commit=2",
			"--innodb-buffer-pool-size=128M",
			"--innodb-buffer-pool-dump-at-shutdown=OFF",
			"--innodb-buffer-pool-load-at-startup=OFF",
			"--performance-schema=OFF",
			"--key-buffer-size=1M",
			"--aria-pagecache-buffer-size=8M",
		)
		return ProcessOptions{
			Name:    "mariadb",
			Path:    binary,
			Args:    append(args, o.Args...),
			Dir:     dir,
			LogFile: filepath.Join(dir, "mariadb.log"),
		}, nil
	}
	m.ready = m.answers
	if err := m.Start(ctx); err != nil {
		return nil, err
	}
	return m, nil
}

// mariadbBaseArgs are the arguments that making the data directory and serving it have in common.
func mariadbBaseArgs() []string {
	// --no-defaults has to come first: nothing of the system's own server is to be used.
	args := []string{"--no-defaults", "--innodb-log-file-size=64M"}
	if os.Geteuid() == 0 {
		// The server refuses to run as root unless it is told to.
		args = append(args, "--user=root")
	}
	return args
}

// installMariaDB makes dir/data. It is made under another name and renamed, so that a data directory with this name is
// always a complete one.
func installMariaDB(ctx context.Context, dir string) error {
	data := filepath.Join(dir, "data")
	if err := os.MkdirAll(filepath.Join(dir, "tmp"), 0o700); err != nil {
		return fmt.Errorf("starting mariadb: %w", err)
	}
	if _, err := os.Stat(data); err == nil {
		return nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("starting mariadb: %w", err)
	}
	binary, err := findBinary("mariadb-install-db")
	if err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(dir, "new")); err != nil {
		return fmt.Errorf("starting mariadb: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	p, err := StartProcess(ProcessOptions{
		Path: binary,
		// The script breaks at blanks in a path, hence a relative one.
		Args: append(mariadbBaseArgs(), "--datadir=./new", "--auth-root-authentication-method=normal", "--skip-test-db",
			"--innodb-flush-log-at-trx-commit=0"),
		// A server that starts deletes the temporary tables that it finds, also those of another one at work.
		Env:     append(os.Environ(), "TMPDIR="+filepath.Join(dir, "tmp")),
		Dir:     dir,
		LogFile: filepath.Join(dir, "install.log"),
	})
	if err != nil {
		return err
	}
	select {
	case <-p.Done():
	case <-ctx.Done():
		_ = p.Kill()
		return fmt.Errorf("making MariaDB's data directory: %w", ctx.Err())
	}
	if err := p.Wait(); err != nil {
		return fmt.Errorf("making MariaDB's data directory: %w; the end of the log:\n%s", err, p.LogTail())
	}
	if err := os.Rename(filepath.Join(dir, "new"), data); err != nil {
		return fmt.Errorf("making MariaDB's data directory: %w", err)
	}
	return nil
}

// DSN returns what MYSQL_DSN takes for a database of this server; an empty name means none.
func (m *MariaDB) DSN(database string) string {
	c := mysql.NewConfig()
	c.User = "root"
	c.Net = "tcp"
	c.Addr = m.Addr()
	c.DBName = database
	return c.FormatDSN()
}

// CreateDatabase makes a database unless it is there.
func (m *MariaDB) CreateDatabase(ctx context.Context, name string) error {
	return m.exec(ctx, "CREATE DATABASE IF NOT EXISTS "+quoteName(name))
}

// DropDatabase removes a database if it is there.
func (m *MariaDB) DropDatabase(ctx context.Context, name string) error {
	return m.exec(ctx, "DROP DATABASE IF EXISTS "+quoteName(name))
}

func quoteName(name string) string { return "`" + strings.ReplaceAll(name, "`", "``") + "`" }

func (m *MariaDB) exec(ctx context.Context, statement string) error {
	db, err := sql.Open("mysql", m.DSN(""))
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.ExecContext(ctx, statement)
	return err
}

func (m *MariaDB) answers(ctx context.Context, port, _ int) error {
	c := mysql.NewConfig()
	c.User = "root"
	c.Net = "tcp"
	c.Addr = addr(port)
	c.Timeout = time.Second
	c.ReadTimeout = 5 * time.Second
	c.Logger = &mysql.NopLogger{} // a server that is just starting drops connections, which is no news
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return err
	}
	db := sql.OpenDB(connector)
	defer db.Close()

	// Any MariaDB could answer here; ours is the one with our data directory. It may spell the path differently.
	var data string
	if err := db.QueryRowContext(ctx, "SELECT @@datadir").Scan(&data); err != nil {
		return err
	}
	theirs, err := os.Stat(data)
	if err != nil {
		return err
	}
	ours, err := os.Stat(m.data)
	if err != nil {
		return err
	}
	if !os.SameFile(theirs, ours) {
		return fmt.Errorf("another MariaDB answers on %s", addr(port))
	}
	return nil
}
