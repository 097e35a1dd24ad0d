package mysql

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/go-sql-driver/mysql"
)

// maxUserName is MySQL's limit of a user's name, in characters; MariaDB has a longer one.
const maxUserName = 32

// EnsureUser makes a user of the server, who may connect from anywhere, unless it is there; gives it this password; and
// lets it read and write the rows of this database, and nothing else that this call would give. It is what edge and
// worker need, so that only migrations have the right to change the schema. Repeating it is harmless.
//
// The caller's user needs CREATE USER, and what it grants with GRANT OPTION. No error contains the password.
func (db *DB) EnsureUser(ctx context.Context, user, password string) error {
	switch {
	case user == "" || len(user) > maxUserName:
		return Invalidf("the name of a database user has 1 to %d characters", maxUserName)
	case user == db.config.User:
		return Invalidf("%q is the user that this connection has, and it would lose its password", user)
	case password == "":
		return Invalidf("the password of database user %q is empty", user)
	}
	// The driver writes the arguments into the text of the statements, where these take no others.
	for _, statement := range []string{
		`CREATE USER IF NOT EXISTS ?@'%' IDENTIFIED BY ?`,
		`ALTER USER ?@'%' IDENTIFIED BY ?`,
	} {
		if _, err := db.ExecContext(ctx, statement, user, password); err != nil {
			return fmt.Errorf("set the password of database user %q: %w", user, withoutStatement(err))
		}
	}
	// In the name of a database that rights are granted for, _ and % stand for others, unless they are escaped.
	database := strings.NewReplacer("`", "``", "_", `\_`, "%", `\%`).Replace(db.config.DBName)
	if _, err := db.ExecContext(ctx, "GRANT SELECT, INSERT, UPDATE, DELETE ON `"+database+"`.* TO ?@'%'",
		user); err != nil {
		return fmt.Errorf("grant database user %q its rights: %w", user, err)
	}
	return nil
}

// withoutStatement is an error of the server with its number only, since its text may quote the statement.
func withoutStatement(err error) error {
	if e, ok := errors.AsType[*mysql.MySQLError](err); ok {
		return &mysql.MySQLError{Number: e.Number, SQLState: e.SQLState, Message: "see the server's error reference"}
	}
	return err
}
