package store

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
	sqlite3 "modernc.org/sqlite/lib"
)

// errNewerTables ends the start of a gatehouse that is older than the database.
var errNewerTables = errors.New("its tables were made by a newer version of gatehouse")

// openReason says in plain words why a database cannot be opened, to begin the line
// that ends a start. The driver's own words, which follow, begin with the first of all
// that it tried, such as a connection with TLS, which is seldom the reason. "" if there
// is nothing to add to them.
func openReason(err error) string {
	if errors.Is(err, errNewerTables) {
		return "" // says it all
	}
	var trial *writeError
	if errors.As(err, &trial) {
		return "" // says it first
	}
	var postgres *pgconn.PgError
	if errors.As(err, &postgres) {
		return postgresReason(postgres.Code)
	}
	var host *net.DNSError
	switch {
	case sqliteCode(err) == sqlite3.SQLITE_BUSY:
		return "another process has it locked"
	case sqliteCode(err) == sqlite3.SQLITE_NOTADB:
		return "it is no SQLite database"
	case sqliteCode(err) == sqlite3.SQLITE_CANTOPEN, sqliteCode(err) == sqlite3.SQLITE_READONLY:
		return "the file or its folder cannot be written"
	case errors.Is(err, fs.ErrPermission):
		return "the file or its folder cannot be written"
	case errors.Is(err, fs.ErrNotExist):
		return "there is no such folder"
	case errors.As(err, &host):
		return "there is no such host"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there"
	case errors.Is(err, context.DeadlineExceeded):
		return "it does not answer in time"
	}
	return refusal(err)
}

func postgresReason(code string) string {
	switch code {
	case "53300": // too_many_connections
		return "it has no connection free"
	case "28P01", "28000": // invalid_password, invalid_authorization_specification
		return "it refuses this user or password"
	case "3D000": // invalid_catalog_name
		return "there is no such database on this server"
	case "42501": // insufficient_privilege
		return "the user may not create tables in it"
	case "55P03": // lock_not_available
		return "another process has it locked"
	case "57P03": // cannot_connect_now
		return "it is starting or stopping"
	}
	return ""
}
