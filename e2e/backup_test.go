package e2e

import (
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"stampede/localstack"
	"stampede/localstack/stacktest"
)

// backups runs scripts/backup and scripts/restore as an operator does, and holds them to leaving nothing behind.
type backups struct {
	t         *testing.T
	dsn       string // of the database to back up or to restore into
	password  string // MYSQL_PASSWORD
	path      string // PATH
	temporary string
	directory string
}

func newBackups(t *testing.T, dsn string) *backups {
	return &backups{t: t, dsn: dsn, path: os.Getenv("PATH"), temporary: t.TempDir(), directory: t.TempDir()}
}

func (b *backups) command(script string, args ...string) *exec.Cmd {
	// Longer than anything here takes; the script is told to end and then ends what it has started.
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	b.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "../scripts/"+script, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Env = []string{"PATH=" + b.path, "TMPDIR=" + b.temporary, "MYSQL_DSN=" + b.dsn, "MYSQL_PASSWORD=" + b.password,
		"CTL=" + filepath.Join(bin, "ctl")}
	return cmd
}

func (b *backups) run(script string, args ...string) (output string, err error) {
	b.t.Helper()
	raw, err := b.command(script, args...).CombinedOutput()
	b.mustBeTidy()
	return strings.TrimSpace(string(raw)), err
}

// mustBeTidy demands that no file is left that held a password, and no part of a backup.
func (b *backups) mustBeTidy() {
	b.t.Helper()
	for _, pattern := range []string{b.temporary + "/*", b.directory + "/.*.new*"} {
		if left, err := filepath.Glob(pattern); err != nil || len(left) > 0 {
			b.t.Errorf("left behind: %v %v", left, err)
		}
	}
}

// backup makes a backup and returns its file.
func (b *backups) backup() string {
	b.t.Helper()
	file, err := b.run("backup", b.directory)
	if err != nil {
		b.t.Fatalf("backup: %v: %s", err, file)
	}
	for _, name := range []string{file, file + ".sha256"} {
		if info, err := os.Stat(name); err != nil || info.Mode() != 0o600 {
			b.t.Fatalf("%s: %v %v", name, info, err)
		}
	}
	return file
}

// mustFail runs a script that must refuse for a reason.
func (b *backups) mustFail(reason, script string, args ...string) {
	b.t.Helper()
	out, err := b.run(script, args...)
	if err == nil || !strings.Contains(out, reason) {
		b.t.Errorf("%s %q: %v: %s; want %q", script, args, err, out, reason)
	}
}

func openDB(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func mustExec(t *testing.T, db *sql.DB, statements ...string) {
	t.Helper()
	for _, statement := range statements {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

func number(t *testing.T, db *sql.DB, query string) (n int64) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), query).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

// TestBackup backs up the database while orders are decided and when all is quiet, and restores it: what was one moment
// of the sale is one again, and every row comes back.
func TestBackup(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.mustCtl("product", "add", "--name", "Jürgens „Kärtchen“ 🎫 'n\\", "--price", "100", "--stock", "100000",
		"--limit", "4")
	s.startServers()
	s.startWorker()
	account := `{"email":"ada@example.org","name":"Ada","password":"seven quiet otters knit"}`
	for _, path := range []string{"/api/register", "/api/login"} {
		if status, body := request(t, "POST", s.front+path, "", account); status != http.StatusCreated &&
			status != http.StatusOK {
			t.Fatalf("%s: %d %v", path, status, body)
		}
	}

	// A user who may read, and whose password has every character that somebody could trip over.
	server := openDB(t, s.stack.MariaDB.DSN(""))
	const password = `p@ss/w:ord"x\y #z'; =(1)`
	mustExec(t, server, `CREATE USER backup@'%' IDENTIFIED BY '`+
		strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(password)+`'`,
		"GRANT SELECT ON stampede.* TO backup@'%'", "CREATE DATABASE busy", "CREATE DATABASE quiet",
		"CREATE DATABASE empty")
	b := newBackups(t, "backup:"+password+"@tcp("+s.stack.MariaDB.Addr()+")/stampede?timeout=5s&tls=false")
	apart := *b
	apart.dsn, apart.password = strings.Replace(b.dsn, ":"+password, "", 1), password
	root := func(database string) *backups {
		c := *b
		c.dsn = s.stack.MariaDB.DSN(database)
		return &c
	}

	// While a sale goes on, and slowly, so that orders are decided between one table and the next.
	slow := *b
	slow.path = t.TempDir() + ":" + b.path
	real, err := exec.LookPath("mariadb-dump")
	if err != nil {
		t.Fatal(err)
	}
	standIn(t, &slow, "mariadb-dump", `if [[ $1 == --version ]]; then exec `+real+` --version; fi
		exec `+real+` "$1" --where="SLEEP(0.002) = 0" "${@:2}"`)
	c := newCrowd()
	onSale, end := context.WithCancel(t.Context())
	defer end()
	sale := make(chan struct{})
	go func() {
		defer close(sale)
		s.rush(onSale, c, 1, 100_000, 200)
	}()
	db := openDB(t, s.stack.MariaDB.DSN("stampede"))
	stacktest.Eventually(t, 10*time.Second, func() error {
		if decided := number(t, db, "SELECT COUNT(*) FROM orders"); decided < 100 {
			return fmt.Errorf("%d orders are decided", decided)
		}
		return nil
	})
	before := number(t, db, "SELECT COUNT(*) FROM orders")
	busy := slow.backup()
	after := number(t, db, "SELECT COUNT(*) FROM orders")
	end()
	<-sale
	if out, err := root("busy").run("restore", busy); err != nil {
		t.Fatalf("restore: %v: %s", err, out)
	}
	restored := openDB(t, s.stack.MariaDB.DSN("busy"))
	if n := number(t, restored, "SELECT COUNT(*) FROM orders"); n < before || n > after {
		t.Errorf("the backup has %d orders; there were %d before and %d after it", n, before, after)
	}
	auditBooks(t, s.stack.MariaDB, "busy")
	if after <= before {
		t.Errorf("no order was decided while the backup was made: %d", after)
	}
	s.mustBeClean(c, 30*time.Second, c.accepted())

	// When all is quiet.
	quiet := apart.backup()
	if out, err := apart.run("restore", "--verify", quiet); err != nil || !strings.Contains(out, "audit: ok") {
		t.Fatalf("verify: %v: %s", err, out)
	}
	if out, err := root("quiet").run("restore", quiet); err != nil {
		t.Fatalf("restore: %v: %s", err, out)
	}
	restored = openDB(t, s.stack.MariaDB.DSN("quiet"))
	for table, sum := range checksums(t, db) {
		if got := checksums(t, restored)[table]; (got != sum) != (table == "sessions") {
			t.Errorf("table %s: checksum %d, restored %d", table, sum, got)
		}
	}
	if all, live := number(t, restored, "SELECT COUNT(*) FROM sessions"),
		number(t, restored, "SELECT COUNT(*) FROM sessions WHERE revoked_at IS NULL"); all != 1 || live != 0 {
		t.Errorf("of %d restored sessions %d are live", all, live)
	}
	mustExec(t, restored, "INSERT INTO product_ids () VALUES ()")
	if id := number(t, restored, "SELECT MAX(id) FROM product_ids"); id < 1_000_000 {
		t.Errorf("the next product is number %d, which another one may have been", id)
	}

	// What must be refused, without a change of the database.
	content, err := os.ReadFile(quiet)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := os.ReadFile(quiet + ".sha256")
	if err != nil {
		t.Fatal(err)
	}
	damaged := filepath.Join(t.TempDir(), "damaged.sql.gz")
	damage := func(content, sum []byte) string {
		os.Remove(damaged + ".sha256")
		for name, content := range map[string][]byte{damaged: content, damaged + ".sha256": sum} {
			if content == nil {
				continue
			}
			if err := os.WriteFile(name, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return damaged
	}
	flipped := append([]byte{}, content...)
	flipped[len(flipped)/2] ^= 1
	root("empty").mustFail("is damaged", "restore", damage(flipped, sum))
	root("empty").mustFail("is damaged", "restore", damage(content[:len(content)/2], sum))
	root("empty").mustFail("is damaged", "restore", "--verify", damage(content[:len(content)/2], sum))
	root("empty").mustFail("cannot be read", "restore", damage(content, nil))
	root("quiet").mustFail("not empty", "restore", quiet)
	root("nowhere").mustFail("cannot be reached, or is not there", "restore", quiet)
	root("empty").mustFail("no tables of Stampede", "backup", b.directory)
	apart.dsn = b.dsn
	apart.mustFail("has a password as well", "backup", b.directory)
	wrong := *b
	wrong.dsn = "backup:hunter2@tcp(" + s.stack.MariaDB.Addr() + ")/stampede"
	out, err := wrong.run("backup", wrong.directory)
	if err == nil || strings.Contains(out, "hunter2") {
		t.Errorf("a wrong password: %v: %s", err, out)
	}
	if n := number(t, openDB(t, s.stack.MariaDB.DSN("empty")),
		"SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE()"); n != 0 {
		t.Errorf("what was refused has made %d tables", n)
	}

	// Books that do not add up, in tables as MySQL makes them.
	mustExec(t, restored, "UPDATE products SET stock = stock + 1")
	root("").mustFail("the stock is", "restore", "--verify", asOfMySQL(t, root("quiet").backup()))
}

// asOfMySQL makes the tables of a backup have the collation that those of MySQL have by default.
func asOfMySQL(t *testing.T, file string) string {
	t.Helper()
	script := `set -euo pipefail
		cd "$(dirname "$1")"
		gzip -dc "$1" | sed '/^) ENGINE=/s/utf8mb4_unicode_ci/utf8mb4_0900_ai_ci/' | gzip >mysql.sql.gz
		gzip -dc mysql.sql.gz | grep '^) ENGINE=.*COLLATE=utf8mb4_0900_ai_ci;$'
		sha256sum mysql.sql.gz >mysql.sql.gz.sha256`
	if out, err := exec.CommandContext(t.Context(), "bash", "-c", script, "bash", file).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return filepath.Join(filepath.Dir(file), "mysql.sql.gz")
}

// auditBooks audits a database without Redis and without a queue.
func auditBooks(t *testing.T, m *localstack.MariaDB, database string) {
	t.Helper()
	out, err := runCtl(t.Context(), bin, t.TempDir(), []string{"MYSQL_DSN=" + m.DSN(database)}, "audit", "books")
	if err != nil || !strings.Contains(out, "audit: ok") {
		t.Errorf("audit of %s: %v: %s", database, err, out)
	}
}

// checksums returns the checksum of the rows of each table.
func checksums(t *testing.T, db *sql.DB) map[string]int64 {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "SHOW TABLES")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	sums := map[string]int64{}
	for rows.Next() {
		var table string
		if err := rows.Scan(&table); err != nil {
			t.Fatal(err)
		}
		var name string
		var sum int64
		if err := db.QueryRowContext(t.Context(), "CHECKSUM TABLE "+table).Scan(&name, &sum); err != nil {
			t.Fatal(err)
		}
		sums[table] = sum
	}
	if err := rows.Err(); err != nil || len(sums) < 12 {
		t.Fatalf("%d tables: %v", len(sums), err)
	}
	return sums
}

// standIn puts a program into the first directory of PATH.
func standIn(t *testing.T, b *backups, name, body string) {
	t.Helper()
	directory, _, _ := strings.Cut(b.path, ":")
	if err := os.WriteFile(filepath.Join(directory, name), []byte("#!/usr/bin/env bash\nset -eu\n"+body+"\n"),
		0o700); err != nil {
		t.Fatal(err)
	}
}

// TestBackupPrograms puts stand-ins in the way of the client programs, to see how they are called and what becomes of a
// dump that fails or is stopped.
func TestBackupPrograms(t *testing.T) {
	t.Parallel()
	server := stacktest.NewMariaDB(t, localstack.MariaDBOptions{})
	if err := server.CreateDatabase(t.Context(), "stampede"); err != nil {
		t.Fatal(err)
	}
	if _, err := runCtl(t.Context(), bin, t.TempDir(), []string{"MYSQL_DSN=" + server.DSN("stampede")},
		"migrate"); err != nil {
		t.Fatal(err)
	}
	mustExec(t, openDB(t, server.DSN("")), "CREATE USER u@'%' IDENTIFIED BY 'hunter2'",
		"GRANT SELECT ON stampede.* TO u@'%'")
	b := newBackups(t, "u:hunter2@tcp("+server.Addr()+")/stampede")

	// Only these are on PATH, so that nothing of MariaDB's is there by its own name.
	b.path = t.TempDir()
	for _, name := range []string{"bash", "cat", "cut", "date", "dirname", "gzip", "mkfifo", "mktemp", "mv", "rm",
		"sha256sum", "sync", "timeout", "touch"} {
		found, err := exec.LookPath(name)
		if err != nil {
			t.Skipf("there is no %s", name)
		}
		if err := os.Symlink(found, filepath.Join(b.path, name)); err != nil {
			t.Fatal(err)
		}
	}
	log := filepath.Join(t.TempDir(), "log")
	real := func(name string) string {
		found, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}

	b.mustFail("install mariadb-client", "backup", b.directory)

	// MySQL's own programs have options that MariaDB's refuse.
	standIn(t, b, "mysql", `echo "$0 $*" >>`+log+"\nexec "+real("mariadb")+` "$@"`)
	mysqldump := func(dump string) {
		standIn(t, b, "mysqldump", `
			if [[ $1 == --version ]]; then echo "mysqldump  Ver 8.4.6 for Linux on x86_64 (MySQL Community Server - GPL)"; exit; fi
			echo "$0 $*" >>`+log+`
			defaults=$1 options=()
			shift
			for option; do
				case $option in --set-gtid-purged=OFF | --column-statistics=0) ;; *) options+=("$option") ;; esac
			done
			(( $# == ${#options[@]} + 2 ))
			`+dump)
	}
	mysqldump("exec " + real("mariadb-dump") + ` "$defaults" "${options[@]}"`)
	b.backup()
	calls, err := os.ReadFile(log)
	if err != nil || strings.Count(string(calls), " --defaults-file=") != 2 ||
		strings.Contains(string(calls), "hunter2") {
		t.Errorf("the programs were called so: %s %v", calls, err)
	}

	if err := os.RemoveAll(b.directory); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(b.directory, 0o700); err != nil {
		t.Fatal(err)
	}
	mysqldump("echo '-- half a dump'; exit 3")
	b.mustFail("there is no backup", "backup", b.directory)

	mysqldump("echo '-- half a dump'; touch " + log + ".dumping; exec " + real("sleep") + " 20")
	stopped := b.command("backup", b.directory)
	if err := stopped.Start(); err != nil {
		t.Fatal(err)
	}
	stacktest.Eventually(t, 10*time.Second, func() error {
		_, err := os.Stat(log + ".dumping")
		return err
	})
	if err := stopped.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if err := stopped.Wait(); err == nil || time.Since(begun) > 10*time.Second {
		t.Errorf("a backup that was stopped ended after %v with %v", time.Since(begun), err)
	}
	b.mustBeTidy()
	if made, err := os.ReadDir(b.directory); err != nil || len(made) != 0 {
		t.Errorf("what failed has made %v %v", made, err)
	}
}
