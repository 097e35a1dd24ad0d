package mysql

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-sql-driver/mysql"
)

// Errors that callers tell apart.
var (
	// ErrNotFound: there is no such product, order or account.
	ErrNotFound = OwnError("not found")
	// ErrExists: the id is taken.
	ErrExists = OwnError("exists already")
	// ErrInvalid: an argument is out of its bounds. Repeating the call is of no use.
	ErrInvalid = OwnError("invalid")
	// ErrSchema: the database's schema is older than this program needs.
	ErrSchema = errors.New("the database schema is too old")
)

// InvalidError is an ErrInvalid that says which argument is out of its bounds, in words that a client may read. It
// calls the argument by the name that it has in the database and in the API.
type InvalidError struct{ Detail string }

func (e *InvalidError) Error() string { return ErrInvalid.Error() + ": " + e.Detail }

// Unwrap makes every InvalidError an ErrInvalid.
func (e *InvalidError) Unwrap() error { return ErrInvalid }

// Invalidf is an InvalidError.
func Invalidf(format string, args ...any) error { return &InvalidError{fmt.Sprintf(format, args...)} }

// Class says whose fault an error is, and so what to do about it.
type Class int

// The classes of errors.
const (
	// Transient: the server undid the transaction, or refused to wait longer, for the sake of others. Roll back and
	// repeat at once, with jitter.
	Transient Class = iota + 1
	// Systemic: the database, the way to it or the caller's context is at fault, and no order could be decided now.
	// Wait, probe, and count it against no order.
	Systemic
	// Own: the fault lies in what was asked, and it will fail again. Nothing else is the fault of an order.
	Own
)

// String names the class as a metric's label would.
func (c Class) String() string {
	switch c {
	case Transient:
		return "transient"
	case Systemic:
		return "systemic"
	case Own:
		return "own"
	}
	return "none"
}

// Numbers of MySQL and MariaDB errors (the servers' error message references).
const (
	DuplicateEntry     = 1062
	errDuplicateColumn = 1060
	errNoSuchTable     = 1146
	errNoTriggerRight  = 1142
	errBinlogTriggers  = 1419
)

// transientNumbers are the errors after which the same transaction is likely to succeed at once.
var transientNumbers = map[uint16]bool{
	1020: true, // record has changed since last read (MariaDB, snapshot isolation)
	1205: true, // lock wait timeout
	1213: true, // deadlock
}

// ownStates are the SQLSTATE classes (ISO/IEC 9075-2, clause 24) of what data itself can cause: a cardinality
// violation, a data exception and a violated constraint.
var ownStates = map[string]bool{"21": true, "22": true, "23": true}

// ownNumbers are errors of the same kinds to which a server gives the general state HY000.
var ownNumbers = map[uint16]bool{
	1366: true, // incorrect value for a column (MySQL)
	3819: true, // check constraint violated (MySQL)
}

// ownError is an error that says that something is wrong with what was asked.
type ownError struct{ text string }

func (e *ownError) Error() string { return e.text }

// OwnError makes an error of the class Own: by it callers tell that something is wrong with what was asked.
func OwnError(text string) error { return &ownError{text} }

// Classify says of an error of a call to MySQL whose fault it is. It looks through wrapped errors. Of nil it says 0.
//
// Own is the class that is small and closed: an outage has more faces than anybody can list, and one that is taken for
// an order's own fault fails orders that were accepted.
func Classify(err error) Class {
	if err == nil {
		return 0
	}
	// The context comes first: a transaction that was waiting for its repetition when the context ended carries both.
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return Systemic
	}
	if errors.Is(err, ErrLostRace) { // it carries the server's error as well
		return Transient
	}

	if e, ok := errors.AsType[*mysql.MySQLError](err); ok {
		switch {
		case transientNumbers[e.Number]:
			return Transient
		case ownNumbers[e.Number], ownStates[string(e.SQLState[:2])]:
			return Own
		}
		return Systemic
	}
	if _, own := errors.AsType[*ownError](err); own || errors.Is(err, mysql.ErrPktTooLarge) {
		return Own
	}
	return Systemic
}

// Answered reports whether err is what the server itself said of a statement, so that the server and the way to it are
// up.
func Answered(err error) bool { return ErrorNumber(err) != 0 }

// ErrorNumber is the number of the server's error in err, or 0.
func ErrorNumber(err error) uint16 {
	if e, ok := errors.AsType[*mysql.MySQLError](err); ok {
		return e.Number
	}
	return 0
}
