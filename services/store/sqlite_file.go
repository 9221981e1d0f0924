package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"gatehouse/models"
)

// sqliteFile knows which file the connections have open. The operating system lets
// it be removed or replaced under them, and SQLite would go on reading and writing
// what no path leads to any more: all of it would be lost with the last connection.
//
// The journal and its index belong to the file. They stay where they are while a
// connection is open, and without them the file lacks its newest writes.
type sqliteFile struct {
	path   string                 // as configured, absolute; it may lead through links
	main   fs.FileInfo            // what the path led to
	opened map[string]fs.FileInfo // by where the path led then: the file, its journal, the journal's index
	pin    *sql.DB                // its one connection keeps SQLite from removing the journal itself
}

// pinSQLite opens the file with a connection that is kept, and remembers which
// files that opened.
func pinSQLite(ctx context.Context, path string) (*sqliteFile, error) {
	f := &sqliteFile{path: path, opened: map[string]fs.FileInfo{}, pin: sql.OpenDB(sqliteConnector(path, lockWait))}
	f.pin.SetMaxOpenConns(1)
	// The first look into the database opens the journal.
	var tables int
	err := f.pin.QueryRowContext(ctx, `SELECT COUNT(*) FROM sqlite_master`).Scan(&tables)
	if err == nil {
		err = f.remember()
	}
	if err != nil {
		return nil, errors.Join(err, f.pin.Close())
	}
	return f, nil
}

func (f *sqliteFile) remember() (err error) {
	if f.main, err = os.Stat(f.path); err != nil {
		return err
	}
	led, err := filepath.EvalSymlinks(f.path)
	if err != nil {
		return err
	}
	for _, path := range []string{led, led + "-wal", led + "-shm"} {
		if f.opened[path], err = os.Lstat(path); err != nil {
			return err
		}
	}
	return nil
}

// check returns an error, models.ErrNotWritable, if a start would not find the files
// that the connections have open. It takes microseconds. No file is always there.
func (f *sqliteFile) check() error {
	if f == nil {
		return nil
	}
	if err := f.find(); err != nil {
		return fmt.Errorf("the database file %s was removed or replaced while it is open: put it back, or restart to use what is there now: %w (%w)",
			f.path, err, models.ErrNotWritable)
	}
	return nil
}

func (f *sqliteFile) find() error {
	if _, direct := f.opened[f.path]; !direct {
		if err := same(f.main)(os.Stat(f.path)); err != nil {
			return err
		}
	}
	for path, opened := range f.opened {
		// Not through a link: beside what it leads to there may be no journal.
		if err := same(opened)(os.Lstat(path)); err != nil {
			return err
		}
	}
	return nil
}

// same returns an error if what is found is not the file that was opened.
func same(opened fs.FileInfo) func(found fs.FileInfo, err error) error {
	return func(found fs.FileInfo, err error) error {
		if err == nil && !os.SameFile(opened, found) {
			return fmt.Errorf("%s is another file", found.Name())
		}
		return err
	}
}

// conns are connections to this file. Nothing is opened yet.
func (f *sqliteFile) conns(wait time.Duration, settings ...string) *sql.DB {
	return sql.OpenDB(sameFile{sqliteConnector(f.path, wait, settings...), f})
}

func (f *sqliteFile) close() error {
	if f == nil {
		return nil
	}
	return f.pin.Close()
}

// sameFile connects to the file and to no other that has taken its place.
type sameFile struct {
	driver.Connector
	file *sqliteFile
}

// Connect opens a connection, which prepares once.
func (s sameFile) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := s.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.file.check(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return prepareOnce(conn), nil
}
