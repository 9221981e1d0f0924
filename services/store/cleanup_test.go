package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/models"
)

// Rows that have expired stay for two minutes, and are gone some minutes later.
func TestKeepClean(t *testing.T) {
	path := newDatabase(t)
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(t.Context(), Options{URL: path})
		if err != nil {
			t.Fatal(err)
		}
		stop := s.KeepClean()
		began := time.Now()
		x := models.Session{Hash: "h", ID: "i", CreatedAt: began, IdleAt: began.Add(30 * time.Minute), ExpiresAt: began.Add(time.Hour)}
		if _, err := s.InsertSession(t.Context(), x, 0); err != nil {
			t.Fatal(err)
		}
		time.Sleep(32 * time.Minute) // of the bubble's time
		if _, err := s.Session(t.Context(), "h", began); err != nil {
			t.Errorf("removed too early: %v", err)
		}
		time.Sleep(2 * time.Minute)
		if _, err := s.Session(t.Context(), "h", began); !errors.Is(err, models.ErrNotFound) {
			t.Errorf("the expired row is still there: %v", err)
		}
		if err := errors.Join(stop(context.Background()), s.Close()); err != nil {
			t.Error(err)
		}
	})
}

// While writes are refused, and for a minute after, no session is removed: an instance may know that
// one was used, and could not write it.
func TestKeepCleanAfterARefusal(t *testing.T) {
	path := newDatabase(t)
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(t.Context(), Options{URL: path, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		stop := s.KeepClean()
		began := time.Now()
		x := models.Session{Hash: "h", ID: "i", CreatedAt: began, IdleAt: began.Add(time.Minute), ExpiresAt: began.Add(time.Hour)}
		if _, err := s.InsertSession(t.Context(), x, 0); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			s.writes.broke(errors.New("full"), time.Now())
			time.Sleep(30 * time.Second) // of the bubble's time
		}
		if _, err := s.Session(t.Context(), "h", began); err != nil {
			t.Errorf("removed before its use could be written: %v", err)
		}
		time.Sleep(3 * time.Minute)
		if _, err := s.Session(t.Context(), "h", began); !errors.Is(err, models.ErrNotFound) {
			t.Errorf("the expired row is still there: %v", err)
		}
		if err := errors.Join(stop(context.Background()), s.Close()); err != nil {
			t.Error(err)
		}
	})
}

// A failure is for the logger of the Store.
func TestKeepCleanLogsItsFailures(t *testing.T) {
	path := newDatabase(t)
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s, err := Open(t.Context(), Options{URL: path, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		stop := s.KeepClean()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute) // of the bubble's time
		if err := stop(context.Background()); err != nil || !strings.Contains(log.String(), "expired rows cannot be removed now") {
			t.Errorf("%v, logged %q", err, &log)
		}
	})
}

// manySessions always has more to look at.
type manySessions struct{ asked []string }

func (m *manySessions) CleanUp(context.Context, time.Time, int) (int, error) { return 0, nil }

func (m *manySessions) CleanUpSessions(_ context.Context, _ time.Time, after string, _ int) (string, int, error) {
	m.asked = append(m.asked, after)
	return fmt.Sprint("part ", len(m.asked)), 0, nil
}

// Looking for expired sessions among very many is spread over time: 20 parts in each
// round, and the next round goes on where the last one stopped.
func TestKeepCleanIsSpread(t *testing.T) {
	many, after := &manySessions{}, ""
	for round := range 3 {
		var err error
		if after, err = cleanUpRound(t.Context(), many, after); err != nil {
			t.Fatal(err)
		}
		if len(many.asked) != 20*(round+1) {
			t.Fatalf("%d parts after round %d", len(many.asked), round)
		}
	}
	for i, after := range many.asked[1:] {
		if want := fmt.Sprint("part ", i+1); after != want {
			t.Fatalf("part %d goes on after %q, want %q", i+1, after, want)
		}
	}
}

// failingSessions is a cleaner whose sessions cannot be cleaned up.
type failingSessions struct{ cleaned int }

func (f *failingSessions) CleanUp(context.Context, time.Time, int) (int, error) {
	f.cleaned++
	return 0, nil
}

func (f *failingSessions) CleanUpSessions(context.Context, time.Time, string, int) (string, int, error) {
	return "as far as it came", 0, models.ErrUnavailable
}

// What is not a session must not stay for ever because sessions cannot be removed.
func TestKeepCleanBeyondAFailure(t *testing.T) {
	t.Parallel()
	failing := &failingSessions{}
	after, err := cleanUpRound(t.Context(), failing, "")
	if !errors.Is(err, models.ErrUnavailable) || failing.cleaned != 1 || after != "as far as it came" {
		t.Errorf("%v, the rest was cleaned up %d times, and it goes on after %q", err, failing.cleaned, after)
	}
}

// slowWriter needs some time for each statement, and ends with the caller's context as PostgreSQL
// does.
type slowWriter struct {
	writer
	timeout, each time.Duration
}

func (w *slowWriter) one(ctx context.Context, write writeFunc) error { return w.all(ctx, write) }

func (w *slowWriter) all(ctx context.Context, write writeFunc) error {
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	return w.writer.all(ctx, func(_ context.Context, q querier) error { return write(ctx, &slowQuerier{q, w.each}) })
}

type slowQuerier struct {
	querier
	each time.Duration
}

func (q *slowQuerier) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	select {
	case <-time.After(q.each):
		return q.querier.ExecContext(ctx, query, args...)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// A slow database removes some of a batch, and goes on behind them the next time.
func TestCleanUpSessionsOfASlowDatabase(t *testing.T) {
	const timeout = time.Second
	for name, row := range map[string]struct {
		each  time.Duration
		first int // of 500 sessions
	}{
		"it removes what it can in half of its time": {timeout / 10, 5 * sessionsAtOnce},
		"a statement that takes half of the time":    {timeout / 2, sessionsAtOnce},
	} {
		path := newDatabase(t)
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, err := Open(t.Context(), Options{URL: path, Timeout: timeout})
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				now := time.Now()
				for i := range 500 {
					x := models.Session{Hash: fmt.Sprintf("h%03d", i), ID: fmt.Sprint(i), CreatedAt: now, IdleAt: now, ExpiresAt: now}
					if _, err := s.InsertSession(t.Context(), x, 0); err != nil {
						t.Fatal(err)
					}
				}
				s.write = &slowWriter{s.write, timeout, row.each}
				next, removed, err := s.CleanUpSessions(t.Context(), now, "", 500)
				if want := fmt.Sprintf("h%03d", row.first-1); err != nil || next != want || removed != row.first {
					t.Fatalf("removed %d, goes on after %q, %v; want %d and %q", removed, next, err, row.first, want)
				}
				for all := removed; all < 500; all += removed {
					if next, removed, err = s.CleanUpSessions(t.Context(), now, next, 500); err != nil || removed == 0 {
						t.Fatalf("%d removed, then %d, %v", all, removed, err)
					}
				}
			})
		})
	}
}
