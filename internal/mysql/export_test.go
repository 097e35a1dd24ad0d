package mysql

import "github.com/go-sql-driver/mysql"

// What those tests need which use products and accounts too, and so are outside of this package.
var (
	OpenForTest      = open
	NewForTest       = newDB
	ExecForTest      = exec
	WithoutStatement = withoutStatement
)

// Config is how the database was opened.
func (db *DB) Config() *mysql.Config { return db.config }
