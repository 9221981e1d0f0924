package store

import (
	"errors"

	"github.com/jackc/pgx/v5/pgconn"
	sqlite3 "modernc.org/sqlite/lib"

	"gatehouse/models"
)

// writeError says why nothing can be written. It is models.ErrNotWritable.
type writeError struct {
	reason string
	err    error
}

func (e *writeError) Error() string   { return e.reason + ": " + e.err.Error() }
func (e *writeError) Unwrap() []error { return []error{models.ErrNotWritable, e.err} }

// Why a database refuses whatever is to be written to it.
const (
	readOnly = "it is read-only"
	standby  = "it is read-only, as a standby is: after a failover DATABASE_URL must lead to the server that takes writes"
	noRoom   = "there is no room on its disk"
	badDisk  = "its disk fails"
	damaged  = "it is damaged: restore it"
	noRights = "the user of DATABASE_URL may not write"
)

// refusal is why the database refuses this write as it would any other; "" if it does
// not, or gave no answer.
func refusal(err error) string {
	if err == nil {
		return ""
	}
	var postgres *pgconn.PgError
	if errors.As(err, &postgres) {
		switch postgres.Code {
		case "25006": // read_only_sql_transaction
			return standby
		case "53100": // disk_full
			return noRoom
		case "58030": // io_error
			return badDisk
		case "XX001", "XX002": // data_corrupted, index_corrupted
			return damaged
		case "42501": // insufficient_privilege
			return noRights
		}
	}
	switch sqliteCode(err) {
	case sqlite3.SQLITE_READONLY:
		return readOnly
	case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN:
		return badDisk
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return damaged
	case sqlite3.SQLITE_FULL:
		return noRoom
	}
	return ""
}

// answered reports whether the database gave an answer, be it a refusal of this write.
func answered(err error) bool {
	var postgres *pgconn.PgError
	if errors.As(err, &postgres) {
		return postgres.Code != "57014" && postgres.Code != "55P03" // query_canceled, lock_not_available
	}
	switch sqliteCode(err) {
	case 0, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_INTERRUPT:
		return !errors.Is(err, models.ErrUnavailable) // a row that is not there, and the like
	}
	return true
}

// orGone returns models.ErrNotFound in place of a refusal because what the row refers to is not
// there: it was deleted while the write was under way.
func orGone(err error) error {
	var postgres *pgconn.PgError
	if errors.As(err, &postgres) && postgres.Code == "23503" { // foreign_key_violation
		return models.ErrNotFound
	}
	var coded interface{ Code() int }
	if errors.As(err, &coded) && coded.Code() == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY {
		return models.ErrNotFound
	}
	return err
}

// sqliteCode is the code of an error of SQLite without what its upper bits say; 0 if
// it is none.
func sqliteCode(err error) int {
	var coded interface{ Code() int }
	if errors.As(err, &coded) {
		return coded.Code() & 0xff
	}
	return 0
}
