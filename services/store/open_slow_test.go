package store

import (
	"context"
	"database/sql"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/services/servicestest"
)

// olderTables takes a database back to what it was before the last migration.
func olderTables(t *testing.T, driver, url string) {
	t.Helper()
	db, err := sql.Open(driver, url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	trigger := `DROP TRIGGER processes_deleted`
	if driver == "pgx" {
		trigger = `DROP FUNCTION keep_drafts() CASCADE`
	}
	for _, query := range []string{trigger, `DROP TABLE orphaned_drafts`, `DELETE FROM goose_db_version WHERE version_id = 10`} {
		if _, err := db.ExecContext(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
}

const migrates = "the tables of the database are being brought up to date"

// slowHandler takes longer to log the beginning of a migration than a start waits for others.
type slowHandler struct{ slog.Handler }

func (h slowHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == migrates {
		time.Sleep(2 * openWait) // of the bubble's time
	}
	return h.Handler.Handle(ctx, r)
}

// A start waits only so long for other processes; its own migrations take their time.
func TestSlowMigration(t *testing.T) {
	t.Parallel()
	check := func(t *testing.T, s *Store, err error, log *servicestest.LogLines) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if lines := log.With("level=INFO", migrates, "from=9", "to=10"); len(lines) != 1 {
			t.Errorf("logged %q", log)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Run("sqlite", func(t *testing.T) {
		path, log := newDatabase(t), &servicestest.LogLines{}
		olderTables(t, "sqlite", path)
		synctest.Test(t, func(t *testing.T) {
			s, err := Open(t.Context(), Options{URL: path, Logger: slog.New(slowHandler{slog.NewTextHandler(log, nil)})})
			check(t, s, err, log)
		})
	})
	t.Run("postgres", func(t *testing.T) {
		opts, log := Options{URL: servicestest.StartPostgres(t), Timeout: servicestest.Patience}, &servicestest.LogLines{}
		opts.Logger, opts.Now = slog.New(slog.NewTextHandler(log, nil)), time.Now
		s, err := Open(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if text := log.String(); text != "" {
			t.Errorf("of a new database it logged %q", text)
		}
		olderTables(t, "pgx", opts.URL)
		for _, slow := range []string{
			`CREATE FUNCTION slow() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(1.5); END $$`,
			`CREATE EVENT TRIGGER slow ON ddl_command_start WHEN TAG IN ('CREATE FUNCTION') EXECUTE FUNCTION slow()`,
		} {
			if _, err := s.read.ExecContext(t.Context(), slow); err != nil {
				t.Fatal(err)
			}
		}
		slow, err := openPostgres(t.Context(), opts, time.Second)
		check(t, slow, err, log)
	})
}

// A start gives up if another process does not end its migrations.
func TestStartWaitsForAnother(t *testing.T) {
	t.Parallel()
	opts := Options{URL: servicestest.StartPostgres(t), Timeout: servicestest.Patience, Logger: slog.New(slog.DiscardHandler), Now: time.Now}
	s, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	conn, err := s.read.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := (migrationLock{}).SessionLock(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := (migrationLock{}).SessionUnlock(t.Context(), conn); err != nil {
			t.Error(err)
		}
	}()
	late, err := openPostgres(t.Context(), opts, 10*time.Millisecond)
	if err == nil {
		_ = late.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "another process has it locked") {
		t.Errorf("error is %v", err)
	}
}
