package services

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// The calls of one instance pass a lease on 64 times, or for 5 ms, while another
// instance waits; then that has its turn.
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
			req := LockRequest{Resource: "r", Holder: models.Holder{UserID: "1"}, TTL: 20 * time.Second}
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
				servicestest.Eventually(t, 10*time.Second, func() bool {
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
				if _, err := other.Release(ctx, lock.LockClaim); err != nil {
					t.Error(err)
				}
			})
			waiting(2)
			if _, err := other.Release(ctx, held.LockClaim); err != nil {
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
	req := LockRequest{Resource: "r", Holder: models.Holder{UserID: "1"}, TTL: time.Hour}
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
