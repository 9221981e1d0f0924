package lock

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

func nothing(context.Context, Lock) error { return nil }

// insiders waits until so many calls of WithLock wait for one of their own instance.
func insiders(t testing.TB, l *Locker, want int) {
	t.Helper()
	servicestest.Eventually(t, func() bool {
		l.groups.mu.Lock()
		defer l.groups.mu.Unlock()
		inside := 0
		for _, queue := range l.groups.waiting {
			inside += len(queue)
		}
		return inside == want
	}, "they do not wait")
}

// keepsLease wants work under a short lease to end well. It repeats what a busy machine made lose
// its lease, as nobody extended that in time.
func keepsLease(t *testing.T, req Request, work func() error) {
	t.Helper()
	for round := 1; ; round++ {
		began := time.Now()
		err := work()
		var lost *LostError
		if errors.As(err, &lost) && lost.Reason == LostBackend && servicestest.Slack(began) > req.TTL/3 && round < 10 {
			continue
		}
		if err != nil {
			t.Error(err)
		}
		return
	}
}

func TestWithLock(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	all := instances(t, server, 2)
	l, other := all[0], all[1]

	t.Run("extends the lease while the work runs, and gives it back", func(t *testing.T) {
		t.Parallel()
		req := requestFor("extended", alice, 1500*time.Millisecond)
		keepsLease(t, req, func() error {
			return l.WithLock(t.Context(), req, func(ctx context.Context, taken Lock) error {
				for time.Since(taken.ExpiresAt) < 100*time.Millisecond && ctx.Err() == nil {
					wantRefused(t, other, "extended")
				}
				return ctx.Err()
			})
		})
		wantFree(t, other, "extended")
	})

	t.Run("gives the lock back whose request is cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		err := l.WithLock(ctx, request("cancelled", alice), func(work context.Context, _ Lock) error {
			cancel()
			if work.Err() == nil {
				t.Error("the work goes on")
			}
			return context.Cause(work)
		})
		if err == nil {
			t.Error("no error")
		}
		wantFree(t, other, "cancelled")
	})

	t.Run("excludes between calls and instances, under fences that grow", func(t *testing.T) {
		const calls = 400
		counter, last := 0, int64(0) // guarded by the lock itself: -race would find out
		var late atomic.Int64
		var wg sync.WaitGroup
		for i := range calls {
			wg.Go(func() {
				err := all[i%2].WithLock(t.Context(), request("counter", alice), func(_ context.Context, taken Lock) error {
					counter++
					if *taken.Fence <= last {
						t.Errorf("fence %d after %d", *taken.Fence, last)
					}
					last = *taken.Fence
					if taken.Token != "" {
						t.Error("the work has a token that could release the next one's lock")
					}
					return nil
				})
				var lost *LostError
				switch {
				case errors.As(err, &lost) && lost.Reason == LostBackend: // this machine was too busy to extend it
					late.Add(1)
				case err != nil:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if counter > calls || counter < calls-int(late.Load()) || late.Load() > calls/2 {
			t.Errorf("%d ran, want %d; %d were late", counter, calls, late.Load())
		}
		wantFree(t, l, "counter")
	})

	t.Run("hands one lease on where no other instance waits", func(t *testing.T) {
		const calls = 3*handOversInARow + 1
		grants, last := map[string]int{}, int64(0)
		work := func(_ context.Context, taken Lock) error {
			if *taken.Fence <= last {
				t.Errorf("fence %d after %d", *taken.Fence, last)
			}
			last = *taken.Fence
			grants[taken.Grant]++
			return nil
		}
		var wg sync.WaitGroup
		err := l.WithLock(t.Context(), request("row", alice), func(ctx context.Context, taken Lock) error {
			for range calls {
				wg.Go(func() {
					if err := l.WithLock(t.Context(), request("row", alice), work); err != nil {
						t.Error(err)
					}
				})
			}
			insiders(t, l, calls)
			return work(ctx, taken)
		})
		wg.Wait()
		if err != nil || len(grants) != 1 {
			t.Errorf("%d grants for %d calls: %v", len(grants), calls+1, err)
		}
		if next := take(t, other, request("row", bob)); *next.Fence <= last {
			t.Errorf("fence %d of another after %d", *next.Fence, last)
		}
	})

	t.Run("refuses a waiter that has left, and serves the next", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := l.WithLock(t.Context(), request("left", alice), func(context.Context, Lock) error {
			err := l.WithLock(ctx, request("left", alice), func(context.Context, Lock) error { return errors.New("ran") })
			if !errors.Is(err, models.ErrNotAcquired) || !errors.Is(err, context.Canceled) {
				t.Errorf("a waiter that left: %v", err)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		if err := l.WithLock(t.Context(), request("left", alice), nothing); err != nil {
			t.Errorf("the next one: %v", err)
		}
	})

	for _, row := range []struct {
		name string
		hold time.Duration
		most int64
	}{
		{"lets another instance have its turn after 64 in a row", 0, handOversInARow},
		{"lets another instance have its turn after 5 ms", time.Millisecond, 6}, // the sixth begins before 5 ms are over
	} {
		t.Run(row.name, func(t *testing.T) { takeTurns(t, l, other, row.hold, row.most) })
	}

	t.Run("starts under a pushed grant, and has it confirmed", func(t *testing.T) {
		// Where the work begins before another heartbeat is answered, only the message can have brought
		// the grant: it is not confirmed yet. On a busy machine few rounds are so quick.
		const want = 5
		quick := 0
		servicestest.Eventually(t, func() bool {
			began, early := startUnderPush(t, other, l)
			if began && !early {
				t.Fatal("it waited until its grant was confirmed")
			}
			if began {
				quick++
			}
			return quick == want
		}, "no work begins before another heartbeat is answered")
	})
}

// takeTurns lets calls of one instance compete with a waiter of another, and counts those that come
// before it.
func takeTurns(t *testing.T, one, other *Locker, hold time.Duration, most int64) {
	const calls = 150
	resource := t.Name()
	held := take(t, other, request(resource, alice))
	var wg sync.WaitGroup
	var turns, fence atomic.Int64
	follows := func(next int64) {
		if last := fence.Swap(next); last >= next {
			t.Errorf("fence %d after %d", next, last)
		}
	}
	for range calls {
		wg.Go(func() {
			err := one.WithLock(t.Context(), request(resource, alice), func(_ context.Context, taken Lock) error {
				turns.Add(1)
				follows(*taken.Fence)
				for start := time.Now(); time.Since(start) < hold; {
					continue
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	waiting(t, other, resource, 1)
	insiders(t, one, calls-1)
	before := make(chan int64, 1)
	wg.Go(func() {
		taken, err := other.Acquire(t.Context(), request(resource, alice))
		before <- turns.Load()
		if err != nil {
			t.Error(err)
			return
		}
		follows(*taken.Fence)
		if _, err := other.Release(t.Context(), taken.Claim); err != nil {
			t.Error(err)
		}
	})
	waiting(t, other, resource, 2)
	began := time.Now()
	giveBack(t, other, held)
	// An instance that was silent for a moment is passed over.
	if n := <-before; n > most || n < 1 && servicestest.Slack(began) < 10*waiterAlive {
		t.Errorf("%d turns while another instance waited, want 1 to %d", n, most)
	}
	wg.Wait()
	if turns.Load() != calls {
		t.Errorf("%d of %d had their turn", turns.Load(), calls)
	}
}

// startUnderPush hands a lock over to a WithLock that waits. It reports whether the work began
// before another heartbeat could bring the grant, and whether the grant was unconfirmed then.
func startUnderPush(t *testing.T, holder, l *Locker) (quick, early bool) {
	const resource = "pushed"
	held := take(t, holder, request(resource, alice))
	heardAt := func() time.Time { return l.shards.get(shardOf(resource)).heardAt }
	working, finish, done := make(chan Lock, 1), make(chan struct{}), make(chan error, 1)
	asked := time.Now()
	var began, last time.Time
	go func() {
		done <- l.WithLock(t.Context(), request(resource, bob), func(ctx context.Context, taken Lock) error {
			last, began = heardAt(), time.Now()
			working <- taken
			select {
			case <-finish:
			case <-ctx.Done():
			}
			return ctx.Err()
		})
	}()
	waiting(t, holder, resource, 1)
	queued := time.Now()
	servicestest.Eventually(t, func() bool { return heardAt().After(queued) }, "no heartbeat")
	heard := heardAt()
	giveBack(t, holder, held)
	select {
	case taken := <-working:
		quick = last.Equal(heard) && began.Sub(heard) < waiterAlive-drift(waiterAlive)-leastEarly && began.Sub(asked) < waiterAsk/2
		early = taken.unconfirmed
	case err := <-done:
		t.Fatalf("no work was done: %v", err)
	}
	servicestest.Eventually(t, func() bool {
		s, err := holder.Status(t.Context(), resource)
		return err == nil && s.Held && s.Holder.UserID == bob.UserID && s.TTL > time.Second
	}, "the lease is not extended")
	close(finish)
	if err := <-done; err != nil {
		t.Error(err)
	}
	return quick, early
}
