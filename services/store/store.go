package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"gatehouse/models"
)

// Options says which database to open and how long to wait for it.
type Options struct {
	// URL is postgres://... or postgresql://..., or, without a scheme, the path
	// of a SQLite file, which is created if it does not exist.
	URL string
	// Timeout bounds each call, and all calls under one WithBudget together. 0 is 1
	// second.
	Timeout time.Duration
	// MaxConns bounds the connections of PostgreSQL, or those that read SQLite,
	// which has one more to write. The log reader's is not counted. 0 is 10
	// for PostgreSQL and 4 for SQLite.
	MaxConns int
	// AuditRetention is how long CleanUp leaves entries of the audit. 0 is 400 days.
	AuditRetention time.Duration
	// Now is the clock for what is stored as "now". nil is time.Now.
	Now func() time.Time
	// Logger gets one line when nothing can be written any more, one when it can again,
	// one when KeepClean fails, and one when Open begins to bring tables up to date. nil is
	// slog.Default.
	Logger *slog.Logger
}

// Store is an open database. Use Open. All methods may be called concurrently;
// each returns within Options.Timeout, or what WithBudget leaves of it, with
// models.ErrUnavailable if the database did not answer. Whether a write that ended
// so was done is unknown. A write that SQLite has begun is waited for, and so is a read of one row,
// although its caller has left.
//
// Ids are canonical decimal numbers that are never used again; anything else
// is models.ErrNotFound. Times are stored in microseconds and returned in UTC.
type Store struct {
	write     writer
	read      *pool
	logReader *pool // one connection, for the revocation log only

	file   *sqliteFile // nil with PostgreSQL
	writes writeState

	timeout        time.Duration
	auditRetention time.Duration
	now            func() time.Time

	// skipLocked leaves rows that another transaction is changing; SQLite, with one
	// writer, has neither the need nor the syntax.
	skipLocked string

	// reconnect closes connections that are not in use: after a failover the URL may
	// lead elsewhere. It is nil for SQLite.
	reconnect func()

	// notify tells listeners of a new entry in the log; SQLite has no such thing.
	notify string
	// listen waits for that. It is nil for SQLite.
	listen func(ctx context.Context, changed func()) error
}

// Open connects, brings the tables up to date under a database lock and returns
// the database. Its errors are one line that names the database, without the
// password. Several processes may open the same database at the same time: each waits
// for another one for half a minute, and takes as long as it needs for its own work.
func Open(ctx context.Context, opts Options) (*Store, error) {
	if opts.Timeout <= 0 {
		opts.Timeout = time.Second
	}
	if opts.AuditRetention <= 0 {
		opts.AuditRetention = 400 * 24 * time.Hour
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	scheme, _, hasScheme := strings.Cut(opts.URL, "://")
	switch {
	case hasScheme && (scheme == "postgres" || scheme == "postgresql"):
		return openPostgres(ctx, opts, openWait)
	case hasScheme:
		return nil, fmt.Errorf("open database: scheme %q is not one of postgres, postgresql; a SQLite file is a path without a scheme", scheme)
	case opts.URL == "" || strings.HasPrefix(opts.URL, ":memory:") || strings.HasPrefix(opts.URL, "file:"):
		return nil, fmt.Errorf("open database: %q is not the path of a file", opts.URL)
	}
	return openSQLite(ctx, opts)
}

// Close ends all connections. It does not wait for a database that hangs.
func (s *Store) Close() error {
	done := make(chan error, 1)
	go func() { done <- errors.Join(s.write.Close(), s.read.Close(), s.logReader.Close(), s.file.close()) }()
	select {
	case err := <-done:
		return err
	case <-time.After(s.timeout):
		return fmt.Errorf("close database: %w", models.ErrUnavailable)
	}
}

// Ping asks the database something. models.ErrUnavailable if it does not answer;
// models.ErrNotWritable, which is that, too, if it answers and cannot be written, as
// the last writes showed.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.answers(ctx); err != nil {
		return failed("ping database", err)
	}
	return failed("ping database", s.writable(ctx))
}

func (s *Store) answers(ctx context.Context) error {
	ctx, done := s.read.turn(ctx)
	defer done()
	return ask(ctx, s.read)
}

// ask asks something that is always there.
func ask(ctx context.Context, p *pool) error {
	var era int64
	return p.QueryRowContext(ctx, `SELECT era FROM revocation_head`).Scan(&era)
}

// Empty reports whether there is neither a user nor a process yet.
func (s *Store) Empty(ctx context.Context) (bool, error) {
	ctx, done := s.read.turn(ctx)
	defer done()
	empty, err := isEmpty(ctx, s.read)
	return empty, failed("look into the database", err)
}

func isEmpty(ctx context.Context, q querier) (empty bool, err error) {
	err = q.QueryRowContext(ctx, `SELECT NOT EXISTS (SELECT 1 FROM users) AND NOT EXISTS (SELECT 1 FROM processes)`).Scan(&empty)
	return empty, err
}

// querier is what a query needs: *pool, *sql.Tx or *sql.Conn.
type querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// errEnough ends a collect behind the row that was scanned.
var errEnough = errors.New("enough")

// collect runs a query and scans each of its rows.
func collect[T any](ctx context.Context, q querier, scan func(row scanner) (T, error), query string, args ...any) ([]T, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	items := []T{}
	for rows.Next() {
		item, err := scan(rows)
		if err != nil && err != errEnough { //nolint:errorlint // nothing wraps it
			return nil, err
		}
		items = append(items, item)
		if err != nil {
			return items, nil
		}
	}
	return items, rows.Err()
}

// scanner is a *sql.Row or *sql.Rows.
type scanner interface{ Scan(dest ...any) error }

// failed wraps err with the operation. What is not one of the answers that a
// caller can act on means that the database cannot be asked.
func failed(op string, err error) error {
	if err == nil {
		return nil
	}
	var invalid *models.ValidationError
	if errors.As(err, &invalid) {
		return err // it is for the user
	}
	answers := []error{
		models.ErrNotFound, models.ErrStale, models.ErrEmailTaken, models.ErrLastAdmin,
		models.ErrVersionConflict, models.ErrPreconditionFailed, models.ErrNotHeld, models.ErrBadCursor, models.ErrUnavailable,
	}
	for _, answer := range answers {
		if errors.Is(err, answer) {
			return fmt.Errorf("%s: %w", op, err)
		}
	}
	return fmt.Errorf("%s: %w: %w", op, models.ErrUnavailable, err)
}

// orAnswer returns answer in place of sql.ErrNoRows.
func orAnswer(err, answer error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return answer
	}
	return err
}

// affected returns answer if a write touched no row.
func affected(result sql.Result, err, answer error) error {
	if err != nil {
		return err
	}
	n, err := result.RowsAffected()
	if err != nil {
		return err
	}
	if n == 0 {
		return answer
	}
	return nil
}

// parseID returns the row of an id. "007" and "+7" name nothing: one row has one id.
func parseID(id string) (int64, error) {
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil || n < 1 || strconv.FormatInt(n, 10) != id {
		return 0, models.ErrNotFound
	}
	return n, nil
}

// nullID is the row of an id, NULL for what names nothing.
func nullID(id string) sql.NullInt64 {
	n, err := parseID(id)
	return sql.NullInt64{Int64: n, Valid: err == nil}
}

// nullText is a text, NULL for none.
func nullText(text string) sql.NullString {
	return sql.NullString{String: clean(text), Valid: text != ""}
}

// idOrNone is the id of a row, "" for none, which is 0.
func idOrNone(n int64) string {
	if n == 0 {
		return ""
	}
	return formatID(n)
}

func formatID(n int64) string { return strconv.FormatInt(n, 10) }

// micros reads a time as it is stored.
func micros(n int64) time.Time { return time.UnixMicro(n).UTC() }

// clean makes text that came from outside acceptable to both databases.
func clean(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "")
}
