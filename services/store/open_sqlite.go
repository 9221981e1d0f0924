package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// openWait is how long a start waits for another process that is creating or
// migrating the same database.
const openWait = 30 * time.Second

// lockWait is how long a statement waits for a lock of another process, unless its context ends
// first.
const lockWait = time.Minute

func openSQLite(ctx context.Context, opts Options) (*Store, error) {
	path, err := filepath.Abs(opts.URL)
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", opts.URL, err)
	}
	if err := createFile(path); err != nil {
		return nil, oneLine("open database "+path, err)
	}
	if err := migrateSQLite(ctx, path, opts.Logger); err != nil {
		return nil, oneLine("open database "+path, err)
	}
	file, err := pinSQLite(ctx, path)
	if err != nil {
		return nil, oneLine("open database "+path, err)
	}
	conns := opts.MaxConns
	if conns <= 0 {
		conns = 4
	}
	delay := opts.Timeout / 2 // so that two delays are no longer than what a request may take
	s := &Store{
		read:      newPool(file.conns(delay, "_query_only=1"), conns, opts.Timeout),
		logReader: newPool(file.conns(lockWait, "_query_only=1"), 1, opts.Timeout),
		file:      file,
		writes:    writeState{log: opts.Logger, patience: 2 * opts.Timeout},
		timeout:   opts.Timeout, auditRetention: opts.AuditRetention, now: opts.Now,
	}
	s.read.delay = delay
	writes := newGroup(file.conns(lockWait), opts.Timeout, s.inPlace)
	s.write = writes
	if err := s.startSQLite(ctx, writes.db); err != nil {
		return nil, errors.Join(oneLine("open database "+path, err), s.Close())
	}
	return s, nil
}

func (s *Store) startSQLite(ctx context.Context, writes querier) error {
	ctx, cancel := context.WithTimeout(ctx, openWait)
	defer cancel()
	// They look into the file now: a first look would not find it if it is moved.
	for _, p := range []*pool{s.read, s.logReader} {
		if err := ask(ctx, p); err != nil {
			return err
		}
	}
	return tryWrite(ctx, writes)
}

// createFile makes the file readable by its owner only: it holds password
// hashes. SQLite gives its companion files the same mode.
func createFile(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return errors.Unwrap(err) // the path is named by the caller
	}
	return file.Close()
}

// sqliteConnector connects to the file, which must exist. Nothing is opened yet. A statement waits at
// most that long for a lock of another process.
func sqliteConnector(path string, wait time.Duration, settings ...string) driver.Connector {
	settings = append(settings,
		"mode=rw", // never makes an empty file where one was removed
		"_busy_timeout="+strconv.FormatInt(wait.Milliseconds(), 10),
		"_foreign_keys=1", "_txlock=immediate",
		"_synchronous=FULL", // an acknowledged write survives power loss
	)
	dsn := url.URL{Scheme: "file", Path: filepath.ToSlash(path), RawQuery: strings.Join(settings, "&")}
	connector, err := sqlite.NewConnector(dsn.String())
	if err != nil {
		panic(err) // only for settings that the driver does not know
	}
	return connector
}

// migrateSQLite brings the tables up to date. One connection holds the write
// lock from before it looks at the version until everything is done, so
// processes that start together take turns, and a failure leaves no half. Only the wait
// for the others is bounded: the migrations of large tables take their time.
func migrateSQLite(ctx context.Context, path string, log *slog.Logger) (err error) {
	wait, cancel := context.WithTimeout(ctx, openWait)
	defer cancel()
	db := sql.OpenDB(sqliteConnector(path, lockWait))
	db.SetMaxOpenConns(1)
	defer db.Close()

	if err := enableWAL(wait, db); err != nil {
		return err
	}
	migrations, err := fs.Sub(migrationFiles, "migrations/sqlite")
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db, migrations, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	if _, err := db.ExecContext(wait, `BEGIN IMMEDIATE`); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_, rollback := db.ExecContext(context.WithoutCancel(ctx), `ROLLBACK`)
			err = errors.Join(err, rollback)
		}
	}()
	existing, err := createVersionTable(ctx, db)
	if err != nil {
		return err
	}
	if err := migrate(ctx, provider, existing, log); err != nil {
		return err
	}
	if err := keyAddresses(ctx, db, log); err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, `COMMIT`)
	return err
}

// enableWAL sets the journal mode, which stays with the file. The change needs
// the file for itself and does not honour the busy timeout.
func enableWAL(ctx context.Context, db *sql.DB) error {
	for {
		var mode string
		err := db.QueryRowContext(ctx, `PRAGMA journal_mode = WAL`).Scan(&mode)
		switch {
		case err == nil && mode == "wal":
			return nil
		case err == nil:
			return fmt.Errorf("the file system does not support WAL (journal mode is %s)", mode)
		case sqliteCode(err) != sqlite3.SQLITE_BUSY:
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// createVersionTable does what goose would do in a transaction of its own,
// which SQLite does not allow inside ours. It reports whether there was one.
func createVersionTable(ctx context.Context, db *sql.DB) (existing bool, err error) {
	versions, err := database.NewStore(goose.DialectSQLite3, goose.DefaultTablename)
	if err != nil {
		return false, err
	}
	err = db.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = $1)`, versions.Tablename()).Scan(&existing)
	if err != nil || existing {
		return existing, err
	}
	if err := versions.CreateVersionTable(ctx, db); err != nil {
		return false, err
	}
	return false, versions.Insert(ctx, db, database.InsertRequest{Version: 0})
}
