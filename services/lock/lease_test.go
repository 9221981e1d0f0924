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

// The calls of one instance pass a lease on 64 times, or for 5 ms, while another
// instance waits; then that one is served.
func TestWithLockLetsAnotherInstanceHaveItsTurn(t *testing.T) {
	const calls = 150
	for _, row := range []struct {
		name string
		hold time.Duration
		most int64 // turns before the other
	}{{"64 in a row", 0, handOversInARow}, {"5 ms", time.Millisecond, 6}} { // the sixth begins before 5 ms are over
		t.Run(row.name, func(t *testing.T) {
			server := servicestest.StartRedis(t)
			one, other := openLockerAt(t, server.Addr), openLockerAt(t, server.Addr)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			req := Request{Resource: "r", Holder: models.Holder{UserID: "1"}, TTL: 20 * time.Second}
			held, err := other.TryAcquire(ctx, req)
			if err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			var turns, fence atomic.Int64
			for range calls {
				wg.Go(func() {
					err := one.WithLock(ctx, req, func(_ context.Context, lock Lock) error {
						turns.Add(1)
						if last := fence.Swap(*lock.Fence); last >= *lock.Fence {
							t.Errorf("fence %d after %d", *lock.Fence, last)
						}
						for start := time.Now(); time.Since(start) < row.hold; {
							continue
						}
						return nil
					})
					if err != nil {
						t.Error(err)
					}
				})
			}
			waiting := func(n int) {
				t.Helper()
				servicestest.Eventually(t, func() bool {
					s, err := other.Status(ctx, "r")
					one.groups.mu.Lock()
					defer one.groups.mu.Unlock()
					inside := 0
					for _, queue := range one.groups.waiting {
						inside += len(queue)
					}
					return err == nil && s.Waiting == n && inside == calls-1
				}, "they do not wait")
			}
			waiting(1)
			before := make(chan int64, 1)
			wg.Go(func() {
				lock, err := other.Acquire(ctx, req)
				before <- turns.Load()
				if err != nil {
					t.Error(err)
					return
				}
				if last := fence.Swap(*lock.Fence); last >= *lock.Fence {
					t.Errorf("fence %d of the other after %d", *lock.Fence, last)
				}
				if _, err := other.Release(ctx, lock.Claim); err != nil {
					t.Error(err)
				}
			})
			waiting(2)
			if _, err := other.Release(ctx, held.Claim); err != nil {
				t.Fatal(err)
			}
			n := <-before
			wg.Wait()
			t.Logf("%d turns before the other instance's", n)
			if n < 1 || n > row.most {
				t.Errorf("%d turns while another instance waited, want 1 to %d", n, row.most)
			}
			if turns.Load() != calls {
				t.Errorf("%d of %d had their turn", turns.Load(), calls)
			}
		})
	}
}

// What gives a lock back outlives the request it was taken for.
func TestWithLockWhoseRequestIsCancelledGivesTheLockBack(t *testing.T) {
	server := servicestest.StartRedis(t)
	l, other := openLockerAt(t, server.Addr), openLockerAt(t, server.Addr)
	ctx, cancel := context.WithCancel(t.Context())
	req := Request{Resource: "r", Holder: models.Holder{UserID: "1"}, TTL: time.Hour}
	err := l.WithLock(ctx, req, func(work context.Context, _ Lock) error {
		cancel()
		if work.Err() == nil {
			t.Error("the work goes on")
		}
		return context.Cause(work)
	})
	if err == nil {
		t.Error("no error")
	}
	if s, err := other.Status(t.Context(), "r"); err != nil || s.Held {
		t.Errorf("after WithLock: %+v, %v", s, err)
	}
}

// Redis goes away under a lease for which another call of this instance waits. That
// is handed the lease only while it surely stands, counted on this instance's
// monotonic clock, and else learns that Redis is away.
func TestWithLockIsHandedOverWithoutRedisOnlyWhileTheLeaseStands(t *testing.T) {
	t.Parallel()
	const ttl = 400 * time.Millisecond
	for how, stay := range map[string]bool{"at once": false, "when the lease is over": true} {
		t.Run(how, func(t *testing.T) {
			ran := 0
			for round := range 50 { // no lease is handed over later than 5 ms, which a busy machine may take
				if round >= 5 && (stay || ran > 0) {
					break
				}
				server := servicestest.StartRedis(t)
				l := openLockerAt(t, server.Addr)
				l.opt.OnRedisDown = models.OnRedisDownClosed
				req := Request{Resource: "r", Holder: models.Holder{UserID: "1"}, TTL: ttl}
				second := make(chan error, 1)
				var granted time.Time      // not before the server granted the lease
				var believed time.Duration // by the second, since then
				err := l.WithLock(t.Context(), req, func(ctx context.Context, first Lock) error {
					granted = time.Now()
					go func() {
						second <- l.WithLock(t.Context(), req, func(ctx context.Context, lock Lock) error {
							ran++
							if ctx.Err() != nil || lock.Grant != first.Grant || *lock.Fence <= *first.Fence {
								t.Errorf("handed over %+v after %+v: %v", lock, first, context.Cause(ctx))
							}
							look := time.NewTicker(time.Millisecond)
							defer look.Stop()
							for now := time.Now(); ctx.Err() == nil; now = time.Now() {
								believed = now.Sub(granted)
								<-look.C
							}
							return nil
						})
					}()
					servicestest.Within(t, time.Second, func() bool {
						l.groups.mu.Lock()
						defer l.groups.mu.Unlock()
						for _, queue := range l.groups.waiting {
							if len(queue) == 1 {
								return true
							}
						}
						return false
					}, "no waiter queued")
					server.Freeze()
					if stay {
						<-ctx.Done()
					}
					return nil
				})
				var lost *LostError
				if granted.IsZero() {
					t.Fatalf("the first did not begin: %v", err)
				}
				if stay != errors.As(err, &lost) {
					t.Errorf("the first: %v", err)
				}
				err = <-second
				if !errors.As(err, &lost) && !errors.Is(err, models.ErrUnavailable) {
					t.Errorf("the second: %v", err)
				}
				if believed > ttl {
					t.Errorf("believed for %v, longer than the server promised", believed)
				}
				server.Thaw()
			}
			if stay == (ran > 0) {
				t.Errorf("%d ran", ran)
			}
		})
	}
}

// A process that was paused finds its lease over before the timer fires.
func TestWithLockPassesNoLeaseOnThatIsOver(t *testing.T) {
	alive, lose := context.WithCancelCause(t.Context())
	defer lose(nil)
	now := time.Now()
	row := now.Add(time.Minute) // just begun, however slow this test is
	for left, passed := range map[time.Duration]bool{time.Minute: true, -time.Millisecond: false} {
		lease := &lease{alive: alive, since: row, trustedUntil: now.Add(left)}
		if got := lease.mayHandOver(); got != passed {
			t.Errorf("%v left: passed on: %t", left, got)
		}
	}
}
