package store

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/semaphore"

	"gatehouse/models"
)

// Nobody waits so long that no time is left to be served in.
func TestPoolTurnLeavesTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pool{timeout: time.Second, turns: semaphore.NewWeighted(1)}
		_, release := p.turn(t.Context())
		began := time.Now()
		late, done := p.turn(t.Context())
		if waited := time.Since(began); waited != 750*time.Millisecond || !errors.Is(late.Err(), context.DeadlineExceeded) {
			t.Errorf("waited %v: %v", waited, late.Err())
		}
		done()
		began = time.Now()
		time.AfterFunc(749*time.Millisecond, release)
		served, done := p.turn(t.Context())
		defer done()
		if deadline, _ := served.Deadline(); served.Err() != nil || deadline.Sub(began) != time.Second {
			t.Errorf("served with %v until %v after the call", served.Err(), deadline.Sub(began))
		}
	})
}

// Calls get their turns in the order they came in, and one that leaves keeps
// nobody waiting.
func TestPoolTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pool{timeout: time.Second, turns: semaphore.NewWeighted(1)}
		_, release := p.turn(t.Context())
		impatient, leave := context.WithCancel(t.Context())
		defer leave()
		var order []int
		for i := range 50 {
			ctx := t.Context()
			if i%10 == 3 {
				ctx = impatient
			}
			go func() {
				ctx, done := p.turn(ctx)
				defer done()
				if ctx.Err() == nil {
					order = append(order, i)
				}
			}()
			synctest.Wait()
		}
		leave()
		synctest.Wait()
		release()
		synctest.Wait()
		if len(order) != 45 || !slices.IsSorted(order) {
			t.Errorf("the turns were %v", order)
		}
	})
}

// Waiting for a turn counts towards the timeout, and every pool has turns.
func TestPoolTurnTimeout(t *testing.T) {
	path := newDatabase(t)
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(t.Context(), Options{URL: path, MaxConns: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for p, call := range map[*pool]func() error{
			s.read:      func() error { _, err := s.Processes(t.Context(), models.ProcessFilter{}, models.Page{}); return err },
			s.logReader: func() error { _, err := s.Revocations(t.Context(), 0, time.Time{}); return err },
		} {
			_, release := p.turn(t.Context())
			if err := call(); !errors.Is(err, models.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("without a turn: %v", err)
			}
			release()
			if err := call(); err != nil {
				t.Errorf("with its turn: %v", err)
			}
		}
	})
}

// The calls under one budget share a timeout. What is done between them costs
// nothing, and a wait that covers calls is not counted twice.
func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Store{timeout: time.Second}
		p := &pool{timeout: time.Second, turns: semaphore.NewWeighted(2)}
		left := func(ctx context.Context) time.Duration {
			ctx, done := p.turn(ctx)
			defer done()
			deadline, _ := ctx.Deadline()
			return time.Until(deadline)
		}
		ctx := s.WithBudget(t.Context())
		for spent := time.Duration(0); spent < time.Second; spent += 200 * time.Millisecond {
			if got := left(ctx); got != time.Second-spent {
				t.Errorf("%v left after %v", got, spent)
			}
			_, done := p.turn(ctx)
			time.Sleep(100 * time.Millisecond)
			done()
			time.Sleep(time.Hour) // the hash of a password, say
			waiting, done := s.WithinBudget(ctx)
			if got := left(waiting); got != time.Second-spent-100*time.Millisecond {
				t.Errorf("%v left to who waits after %v", got, spent)
			}
			time.Sleep(100 * time.Millisecond)
			done()
		}
		spent, done := p.turn(ctx)
		if !errors.Is(spent.Err(), context.DeadlineExceeded) {
			t.Error("a call is made when nothing is left")
		}
		done()
		for _, other := range []context.Context{t.Context(), s.WithBudget(ctx)} {
			if got := left(other); got != time.Second {
				t.Errorf("%v left to who has spent nothing", got)
			}
		}
		if unbounded, done := s.WithinBudget(t.Context()); unbounded != t.Context() {
			done()
			t.Error("a wait is bounded without a budget")
		}
	})
}
