package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// openLogged also returns what the database logs.
func openLogged(t *testing.T, opts Options) (*Store, *servicestest.LogLines) {
	t.Helper()
	log := &servicestest.LogLines{}
	opts.Logger = slog.New(slog.NewTextHandler(log, nil))
	s, err := Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s, log
}

// unwritable holds a database that takes no writes to what is promised, and then
// lets it take them.
func unwritable(t *testing.T, s *Store, log *servicestest.LogLines, why string, mend func()) {
	t.Helper()
	process := models.ProcessFields{Title: "x", Description: strings.Repeat("x", models.MaxDescription)}
	for range 5 {
		if _, err := s.CreateProcess(t.Context(), "", process); !errors.Is(err, models.ErrUnavailable) {
			t.Fatalf("a write that cannot be done: %v", err)
		}
		servicestest.Eventually(t, func() bool { return errors.Is(s.Ping(t.Context()), models.ErrNotWritable) }, "ready for writes")
		servicestest.Eventually(t, func() bool {
			_, err := s.Users(t.Context(), models.Page{})
			return err == nil
		}, "not ready for reads")
	}
	if all := log.With(); len(all) != 1 || !strings.Contains(all[0], why) {
		t.Fatalf("the log has %q, not one line with %q", all, why)
	}
	mend()
	servicestest.Eventually(t, func() bool { return s.Ping(t.Context()) == nil }, "still not ready for writes")
	servicestest.Eventually(t, func() bool {
		_, err := s.CreateProcess(t.Context(), "", process)
		return err == nil
	}, "a write fails")
	if all := log.With(); len(all) != 2 || !strings.Contains(all[1], "can be written again") {
		t.Fatalf("the log has %q", all)
	}
}

func TestReadOnlyPostgres(t *testing.T) {
	t.Parallel()
	first, second := servicestest.StartPostgresServer(t), servicestest.StartPostgresServer(t)
	other, log := openLogged(t, Options{URL: second.URL, Timeout: 10 * time.Second})
	t.Run("takes writes again when it can", func(t *testing.T) {
		second.SetReadOnly(t, true)
		servicestest.Eventually(t, func() bool { return other.AddAudit(t.Context(), models.AuditEntry{}) != nil }, "still writes")
		unwritable(t, other, log, "read-only", func() { second.SetReadOnly(t, false) })
	})
	t.Run("is left for the server of the URL that takes writes", func(t *testing.T) {
		url := strings.Replace(first.URL, first.Addr, first.Addr+","+second.Addr, 1) + "&target_session_attrs=read-write"
		s, _ := openLogged(t, Options{URL: url, Timeout: 10 * time.Second})
		first.SetReadOnly(t, true)
		servicestest.Eventually(t, func() bool {
			p, err := s.CreateProcess(t.Context(), "", models.ProcessFields{Title: "after the failover"})
			if err != nil {
				return false
			}
			_, err = other.Process(t.Context(), p.ID)
			return err == nil
		}, "nothing is written to the server that takes writes")
		if err := s.Ping(t.Context()); err != nil {
			t.Error(err)
		}
		if err := other.NoteChange(t.Context(), "x"); err != nil {
			t.Fatal(err)
		}
		if read, err := s.Revocations(t.Context(), 0, time.Time{}); err != nil || read.Head != 1 {
			t.Errorf("the log is read elsewhere: %+v, %v", read, err)
		}
	})
}

func TestFullSQLite(t *testing.T) {
	s, log := openLogged(t, Options{URL: newDatabase(t), Timeout: 10 * time.Second})
	limit := func(pages int) {
		if _, err := s.write.(*group).db.Exec(fmt.Sprint("PRAGMA max_page_count = ", pages)); err != nil {
			t.Fatal(err)
		}
	}
	limit(1) // as many as there are
	var err error
	for range 100 { // until what is left in the pages is used up
		if _, err = s.CreateProcess(t.Context(), "", models.ProcessFields{Description: strings.Repeat("x", 4000)}); err != nil {
			break
		}
	}
	if err == nil {
		t.Fatal("it is never full")
	}
	// What still fits does not make it ready.
	for range 3 {
		_ = s.AddAudit(t.Context(), models.AuditEntry{})
	}
	unwritable(t, s, log, "no room", func() { limit(1_000_000) })
}

// A writer that keeps everybody out for longer than a crowd could.
func TestWritesWithoutAnswer(t *testing.T) {
	path := newDatabase(t)
	s, log := openLogged(t, Options{URL: path, Timeout: 300 * time.Millisecond})
	raw, err := sql.Open("sqlite", "file:"+path+"?_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	tx, err := raw.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	servicestest.Eventually(t, func() bool {
		_ = s.AddAudit(t.Context(), models.AuditEntry{})
		return errors.Is(s.Ping(t.Context()), models.ErrNotWritable)
	}, "ready while no write is answered")
	unwritable(t, s, log, "no write is answered", func() {
		if err := tx.Rollback(); err != nil {
			t.Error(err)
		}
	})
}

func TestWriteState(t *testing.T) {
	timedOut := failed("write", context.DeadlineExceeded)
	full := failed("write", &pgconn.PgError{Code: "53100"})
	taken := failed("write", models.ErrEmailTaken)
	violated := failed("write", &pgconn.PgError{Code: "23505"})
	canceled := failed("write", &pgconn.PgError{Code: "57014"})
	for name, row := range map[string]struct {
		each   []error // one every second
		broken bool
	}{
		"done":                         {[]error{nil}, false},
		"one without an answer":        {[]error{timedOut}, false},
		"two, soon after another":      {[]error{timedOut, timedOut}, false},
		"none is answered":             {[]error{timedOut, timedOut, canceled}, true},
		"one is done in between":       {[]error{timedOut, nil, timedOut, nil, timedOut, nil, timedOut}, false},
		"one is answered in between":   {[]error{timedOut, taken, timedOut, violated, timedOut}, false},
		"full":                         {[]error{full}, true},
		"full, and a small one fitted": {[]error{full, nil}, true}, // a trial decides
		"answers are no fault":         {[]error{taken, violated, taken, violated, taken}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := writeState{log: slog.New(slog.DiscardHandler), patience: 2 * time.Second}
				for i, err := range row.each {
					if i > 0 {
						time.Sleep(time.Second)
					}
					w.note(err, time.Now())
				}
				if broken := w.reason() != nil; broken != row.broken {
					t.Errorf("%v", w.reason())
				}
				if due := w.retryDue(time.Now()); due != (row.broken && row.each[len(row.each)-1] == nil) {
					t.Errorf("a trial is due: %t", due)
				}
				time.Sleep(writeRetry)
				if due := w.retryDue(time.Now()); due != row.broken {
					t.Errorf("a second later a trial is due: %t", due)
				}
				if w.retryDue(time.Now()) {
					t.Error("two trials at once")
				}
			})
		})
	}
}

// Where little is written, writes without an answer that are an hour apart have no common
// cause. From then on it is as after the first.
func TestWritesWithoutAnswerFarApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		timedOut := failed("write", context.DeadlineExceeded)
		w := writeState{log: slog.New(slog.DiscardHandler), patience: 2 * time.Second}
		for range 3 {
			w.note(timedOut, time.Now())
			if err := w.reason(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
		}
		for range 3 {
			w.note(timedOut, time.Now())
			time.Sleep(time.Second)
		}
		if w.reason() == nil {
			t.Error("writable while no write is answered")
		}
	})
}
