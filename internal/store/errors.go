package store

import (
	"context"
	"crypto/tls"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/go-sql-driver/mysql"
)

// Errors that callers tell apart.
var (
	// ErrNotFound: there is no such product or order.
	ErrNotFound = errors.New("not found")
	// ErrExists: the id is taken.
	ErrExists = errors.New("exists already")
	// ErrInvalid: an argument is out of its bounds. Repeating the call is of no use.
	ErrInvalid = errors.New("invalid")
	// ErrMismatch: the id was used before, for something else.
	ErrMismatch = errors.New("used before for something else")
	// ErrOnSale: it can be done only while nobody can buy the product, and nobody has.
	ErrOnSale = errors.New("the product is on sale, or has been")
	// ErrSchema: the database's schema is older than this program needs.
	ErrSchema = errors.New("the database schema is too old")
)

// InvalidError is an ErrInvalid that says which argument is out of its bounds, in words that a client may read. It
// calls the argument by the name that it has in the database and in the API.
type InvalidError struct{ Detail string }

func (e *InvalidError) Error() string { return ErrInvalid.Error() + ": " + e.Detail }

// Is makes every InvalidError an ErrInvalid.
func (e *InvalidError) Is(target error) bool { return target == ErrInvalid }

func invalidf(format string, args ...any) error { return &InvalidError{fmt.Sprintf(format, args...)} }

// Class says whose fault an error is, and so what to do about it.
type Class int

// The classes of errors.
const (
	// Transient: the server undid the transaction, or refused to wait longer, for the sake of others. Roll back and
	// repeat at once, with jitter.
	Transient Class = iota + 1
	// Systemic: the database, the way to it or the caller's context is at fault, and no order could be decided now. Wait,
	// probe, and count it against no order.
	Systemic
	// Own: the fault lies in what was asked, and it will fail again.
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
	errDuplicateColumn = 1060
	errDuplicateEntry  = 1062
	errNoSuchTable     = 1146
)

// transientNumbers are the errors after which the same transaction is likely to succeed at once.
var transientNumbers = map[uint16]bool{
	1020: true, // record has changed since last read (MariaDB, snapshot isolation)
	1205: true, // lock wait timeout
	1213: true, // deadlock
}

// systemicNumbers are the errors that every other order would meet as well.
var systemicNumbers = map[uint16]bool{
	// Resources of the server.
	1015: true, // cannot lock file
	1016: true, // cannot open file
	1021: true, // disk full
	1023: true, // error on close
	1024: true, // error reading file
	1026: true, // error writing file
	1028: true, // sort aborted
	1030: true, // error from storage engine
	1037: true, // out of memory
	1038: true, // out of sort memory
	1041: true, // out of resources
	1114: true, // table is full
	1135: true, // cannot create thread
	1180: true, // error during commit
	1181: true, // error during rollback
	1206: true, // lock table full
	1637: true, // too many concurrent transactions
	// Connections that are refused or cut, statements that are stopped from outside.
	1040: true, // too many connections
	1042: true, // cannot get host name
	1043: true, // bad handshake
	1053: true, // server shutdown
	1077: true, // normal shutdown
	1079: true, // shutdown complete
	1080: true, // forcing close of thread
	1129: true, // host blocked
	1152: true, // aborted connection
	1158: true, // read error from pipe or network
	1159: true, // read timeout
	1160: true, // write error
	1161: true, // write timeout
	1184: true, // aborting connection
	1203: true, // user has too many connections
	1226: true, // user exceeded a resource
	1317: true, // query interrupted
	1927: true, // connection killed (MariaDB)
	1969: true, // max_statement_time exceeded (MariaDB)
	3024: true, // max_execution_time exceeded
	3168: true, // server is not available
	3169: true, // session killed
	4031: true, // disconnected by the server for inactivity
	// The server does not take writes.
	1047: true, // node is not ready (Galera)
	1290: true, // read-only option
	1792: true, // read-only transaction
	1836: true, // read-only mode
	3100: true, // refused by group replication before commit
	3101: true, // rolled back by group replication
	// Accounts, and a schema that is missing or older than the program.
	1044: true, // access denied to database
	1045: true, // access denied
	1049: true, // unknown database
	1054: true, // unknown column
	1130: true, // host not allowed
	1142: true, // command denied on table
	1143: true, // command denied on column
	1146: true, // no such table
	1227: true, // privilege needed
	1251: true, // authentication protocol not supported
	1820: true, // password must be reset
	1862: true, // password expired
	3118: true, // account locked
	4151: true, // account locked (MariaDB)
	// Answers of proxies in place of the server's.
	2002: true, // cannot connect
	2003: true, // cannot connect
	2006: true, // server has gone away
	2013: true, // connection lost during query
	9001: true, // no backend in time (ProxySQL)
}

// Classify says of an error of this package whose fault it is. It looks through wrapped errors. Of nil it says 0.
func Classify(err error) Class {
	if err == nil {
		return 0
	}
	// The context comes first: a transaction that was waiting for its repetition when the context ended carries both.
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return Systemic
	}
	if number := errorNumber(err); number != 0 {
		switch {
		case transientNumbers[number]:
			return Transient
		case systemicNumbers[number]:
			return Systemic
		}
		return Own
	}
	for _, fault := range []error{
		ErrSchema,
		driver.ErrBadConn, sql.ErrConnDone, sql.ErrTxDone,
		mysql.ErrInvalidConn, mysql.ErrMalformPkt, mysql.ErrPktSync, mysql.ErrPktSyncMul, mysql.ErrBusyBuffer,
		mysql.ErrNoTLS, mysql.ErrCleartextPassword, mysql.ErrNativePassword, mysql.ErrOldPassword, mysql.ErrUnknownPlugin,
		mysql.ErrOldProtocol,
		io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed,
	} {
		if errors.Is(err, fault) {
			return Systemic
		}
	}
	if is[net.Error](err) || is[*tls.CertificateVerificationError](err) || is[tls.RecordHeaderError](err) ||
		is[tls.AlertError](err) {
		return Systemic
	}
	return Own
}

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// errorNumber is the number of the server's error in err, or 0.
func errorNumber(err error) uint16 {
	if e, ok := errors.AsType[*mysql.MySQLError](err); ok {
		return e.Number
	}
	return 0
}
