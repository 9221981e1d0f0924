package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"gatehouse/models"
)

//go:embed migrations
var migrationFiles embed.FS

func openPostgres(ctx context.Context, opts Options, wait time.Duration) (*Store, error) {
	config, err := pgx.ParseConfig(opts.URL)
	if err != nil {
		return nil, oneLine("open database", err)
	}
	// database/sql opens some connections without a deadline of its own.
	config.ConnectTimeout = opts.Timeout
	conns := opts.MaxConns
	if conns <= 0 {
		conns = 10
	}
	limited := stdlib.OptionAfterConnect(limitSession(opts.Timeout))
	patient := config.Copy()
	patient.ConnectTimeout = dialPatience
	ahead := &aheadConnector{
		Connector: stdlib.GetConnector(*config, limited), patient: stdlib.GetConnector(*patient, limited),
		ready: make(chan driver.Conn, 1),
	}
	main := newPool(ofAge(sql.OpenDB(ahead)), conns, opts.Timeout)
	main.ahead = ahead
	logReader := newPool(postgresConns(*config, limited), 1, opts.Timeout)
	s := &Store{
		write: main, read: main, logReader: logReader,
		writes:  writeState{log: opts.Logger, patience: 2 * opts.Timeout},
		timeout: opts.Timeout, auditRetention: opts.AuditRetention, now: opts.Now,
		reconnect:  func() { main.reconnect(); logReader.reconnect() },
		skipLocked: " FOR UPDATE SKIP LOCKED",
		notify:     `NOTIFY ` + revocationChannel,
		listen: func(ctx context.Context, changed func()) error {
			return listenPostgres(ctx, config.Copy(), opts.Timeout, changed)
		},
	}
	if err := s.startPostgres(ctx, *config, wait); err != nil {
		return nil, errors.Join(oneLine(fmt.Sprintf("open database %s on %s", config.Database, config.Host), err), s.Close())
	}
	return s, nil
}

// startPostgres waits for other processes for so long, each time that one has locked what it needs.
// Its own migrations may last: on large tables they do.
func (s *Store) startPostgres(ctx context.Context, config pgx.ConnConfig, wait time.Duration) error {
	if err := patiently(ctx, func() error { return s.reach(ctx) }); err != nil {
		return err
	}
	db := postgresConns(config, stdlib.OptionAfterConnect(limitLocks(wait)))
	db.SetMaxOpenConns(1)
	defer db.Close()
	migrations, err := fs.Sub(migrationFiles, "migrations/postgres")
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, migrations,
		goose.WithDisableGlobalRegistry(true), goose.WithSessionLocker(migrationLock{}))
	if err != nil {
		return err
	}
	var existing bool
	if err := db.QueryRowContext(ctx, `SELECT to_regclass($1) IS NOT NULL`, goose.DefaultTablename).Scan(&existing); err != nil {
		return err
	}
	if err := migrate(ctx, provider, existing, s.writes.log); err != nil {
		return err
	}
	if err := keyAddressesPostgres(ctx, db, s.writes.log); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, openWait)
	defer cancel()
	return patiently(ctx, func() error { return tryWrite(ctx, s.read) })
}

func (s *Store) reach(ctx context.Context) error {
	ctx, done := s.read.turn(ctx)
	defer done()
	if err := s.read.PingContext(ctx); err != nil {
		return fmt.Errorf("%w: %w", models.ErrUnavailable, err)
	}
	return nil
}

// startWait is how long a start waits for a server that is slow to answer: one that has just
// started itself, or is busy, needs longer for a first connection than for a statement.
const startWait = 5 * time.Second

// patiently repeats a call that the server has not answered in time, until startWait has passed.
func patiently(ctx context.Context, call func() error) error {
	began := time.Now()
	for {
		err := call()
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil || time.Since(began) >= startWait {
			return err
		}
	}
}

// migrate brings the tables up to date. It leaves those alone that are ahead of it. As it may last,
// it says so first if there already are tables.
func migrate(ctx context.Context, provider *goose.Provider, existing bool, log *slog.Logger) error {
	if existing {
		from, to, err := provider.GetVersions(ctx)
		if err != nil {
			return err
		}
		if from < to {
			log.Info("the tables of the database are being brought up to date", "from", from, "to", to)
		}
	}
	if _, err := provider.Up(ctx); err != nil {
		return err
	}
	version, err := provider.GetDBVersion(ctx)
	if err != nil {
		return err
	}
	if sources := provider.ListSources(); version > sources[len(sources)-1].Version {
		return errNewerTables
	}
	return nil
}

func postgresConns(config pgx.ConnConfig, options ...stdlib.OptionOpenDB) *sql.DB {
	return ofAge(stdlib.OpenDB(config, options...))
}

// ofAge makes connections end that are idle for long, or old.
func ofAge(db *sql.DB) *sql.DB {
	db.SetConnMaxIdleTime(5 * time.Minute)
	db.SetConnMaxLifetime(30 * time.Minute)
	return db
}

// limitSession makes the server give up what a frozen or lost instance has
// begun: otherwise its row locks would stop the writes of all other instances.
func limitSession(timeout time.Duration) func(context.Context, *pgx.Conn) error {
	limit := (2*timeout + time.Second).Milliseconds()
	return setting(fmt.Sprintf(`SET statement_timeout = %d; SET idle_in_transaction_session_timeout = %d`, limit, limit))
}

// limitLocks bounds each wait for what others have locked, the migrationLock too, and not the work.
func limitLocks(wait time.Duration) func(context.Context, *pgx.Conn) error {
	return setting(fmt.Sprintf(`SET lock_timeout = %d`, wait.Milliseconds()))
}

func setting(settings string) func(context.Context, *pgx.Conn) error {
	return func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, settings, pgx.QueryExecModeSimpleProtocol)
		if err != nil {
			conn.Close(ctx)
		}
		return err
	}
}

// migrationLock lets instances that start together take turns. goose's own
// locker polls every few seconds; this one is woken.
type migrationLock struct{}

const migrationLockID = 0x6761746568 // "gateh"

func (migrationLock) SessionLock(ctx context.Context, conn *sql.Conn) error {
	_, err := conn.ExecContext(ctx, `SELECT pg_advisory_lock($1)`, int64(migrationLockID))
	return err
}

func (migrationLock) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	_, err := conn.ExecContext(ctx, `SELECT pg_advisory_unlock($1)`, int64(migrationLockID))
	return err
}

// oneLine is an error whose text has no line breaks, fit for a log, and begins with
// the reason.
func oneLine(op string, err error) error {
	if reason := openReason(err); reason != "" {
		op += ": " + reason
	}
	return &openError{text: op + ": " + strings.Join(strings.Fields(err.Error()), " "), err: err}
}

type openError struct {
	text string
	err  error
}

func (e *openError) Error() string { return e.text }
func (e *openError) Unwrap() error { return e.err }
