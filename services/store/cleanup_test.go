package store

import (
	"bytes"
	"context"
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
