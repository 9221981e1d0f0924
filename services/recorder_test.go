package services_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/services/servicestest"
)

// recordStore is a database that notes what it is given.
type recordStore struct {
	services.RecordStore
	mu      sync.Mutex
	batches [][]string // request IDs
	err     error
	hold    chan struct{} // nil, or it answers when this is closed
}

func (s *recordStore) AddRefusals(_ context.Context, refusals []models.Refusal) error {
	if s.hold != nil {
		<-s.hold
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []string
	for _, r := range refusals {
		ids = append(ids, r.RequestID)
	}
	s.batches = append(s.batches, ids)
	return s.err
}

func (s *recordStore) Refusal(_ context.Context, userID, requestID string, _ time.Time) (models.Refusal, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Contains(slices.Concat(s.batches...), requestID) {
		return models.Refusal{RequestID: requestID, User: models.UserRef{ID: userID}}, nil
	}
	return models.Refusal{}, models.ErrNotFound
}

// written are the batches until now.
func (s *recordStore) written() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Sprint(s.batches)
}

// pass is when a time of the bubble has passed, and all that was due then is done.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func refusedWith(requestID string) models.Refusal {
	return models.Refusal{RequestID: requestID, User: models.UserRef{ID: "1"}, Status: 409}
}

func TestRecorder(t *testing.T) {
	var log servicestest.LogLines
	with := func(name string, test func(t *testing.T, s *recordStore, r *services.Recorder)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &recordStore{}
				r := services.NewRecorder(s, slog.New(slog.NewTextHandler(&log, nil)))
				test(t, s, r)
				check(t, r.Close(t.Context()))
			})
		})
	}
	with("rows are written together, within a second", func(t *testing.T, s *recordStore, r *services.Recorder) {
		r.Refused(refusedWith("a"))
		pass(100 * time.Millisecond)
		r.Refused(refusedWith("b"))
		r.Refused(models.Refusal{RequestID: "of nobody"})
		r.Refused(models.Refusal{User: models.UserRef{ID: "1"}}) // of no request
		synctest.Wait()
		if got := s.written(); got != "[]" {
			t.Errorf("written at once: %s", got)
		}
		pass(900 * time.Millisecond)
		if got := s.written(); got != "[[a b]]" {
			t.Errorf("written in a second: %s", got)
		}
		r.Refused(refusedWith("c"))
		pass(time.Second)
		if got := s.written(); got != "[[a b] [c]]" {
			t.Errorf("written then: %s", got)
		}
	})
	with("who reads finds what was recorded before", func(t *testing.T, s *recordStore, r *services.Recorder) {
		r.Refused(refusedWith("a"))
		mine, _, err := r.Refusal(t.Context(), models.UserRef{ID: "1"}, false, "a")
		if err != nil || mine.User.ID != "1" {
			t.Errorf("%+v, %v", mine, err)
		}
		if all, _, err := r.Refusal(t.Context(), models.UserRef{ID: "1"}, true, "a"); err != nil || all.User.ID != "" {
			t.Errorf("an administrator is limited to %+v, %v", all, err)
		}
		if _, _, err := r.Refusal(t.Context(), models.UserRef{ID: "1"}, false, "b"); !errors.Is(err, models.ErrNotFound) {
			t.Error(err)
		}
	})
	with("the end writes what waits", func(t *testing.T, s *recordStore, r *services.Recorder) {
		r.Refused(refusedWith("a"))
		check(t, r.Close(t.Context()))
		if got := s.written(); got != "[[a]]" {
			t.Errorf("written: %s", got)
		}
		r.Flush(t.Context()) // does not wait for ever
	})
	with("a database that hangs holds up neither reader nor end", func(t *testing.T, s *recordStore, r *services.Recorder) {
		s.hold = make(chan struct{})
		r.Refused(refusedWith("a"))
		for what, wait := range map[string]func(ctx context.Context){"flush": r.Flush, "end": func(ctx context.Context) {
			if err := r.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the end: %v", err)
			}
		}} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			began := time.Now()
			wait(ctx)
			if took := time.Since(began); took != time.Second {
				t.Errorf("%s took %v, want as long as its context", what, took)
			}
			cancel()
		}
		close(s.hold)
	})
	with("more than there is room for, or a database that is away: dropped and counted", func(t *testing.T, s *recordStore, r *services.Recorder) {
		for i := range 1003 {
			r.Refused(refusedWith(fmt.Sprint(i)))
		}
		pass(time.Second)
		if len(s.batches) != 5 || len(slices.Concat(s.batches...)) != 1000 || len(log.With("dropped=3")) != 1 {
			t.Errorf("%d batches with %d rows; log:\n%s", len(s.batches), len(slices.Concat(s.batches...)), log.String())
		}
		s.err = models.ErrUnavailable
		for i := range 500 {
			r.Refused(refusedWith(fmt.Sprint(i)))
		}
		pass(time.Second)
		if len(s.batches) != 6 || len(log.With("dropped=500")) != 1 {
			t.Errorf("%d batches; log:\n%s", len(s.batches), log.String())
		}
		s.err = nil
		r.Refused(refusedWith("later"))
		pass(time.Second)
		if got := s.written(); !strings.HasSuffix(got, " [later]]") {
			t.Errorf("not written: %s", got[len(got)-20:])
		}
	})
}
