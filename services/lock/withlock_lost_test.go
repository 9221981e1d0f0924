package lock

import (
	"context"
	"errors"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// The context of the work ends before the lease can have ended at the server, and says why.
func TestWithLockLosesItsLock(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		reason       Loss
		ttl, maxHold time.Duration
		fault        func(*testing.T, *servicestest.RedisServer, *Locker)
		within       time.Duration // of the fault
	}{
		{LostRevoked, time.Minute, time.Hour, func(t *testing.T, _ *servicestest.RedisServer, l *Locker) { force(t, l, "r") }, holdingHeartbeat},
		{LostBackend, 500 * time.Millisecond, time.Hour, func(_ *testing.T, s *servicestest.RedisServer, _ *Locker) { s.Freeze() }, 500 * time.Millisecond},
		{LostExpired, time.Minute, 2 * time.Second, func(*testing.T, *servicestest.RedisServer, *Locker) {}, 2 * time.Second},
	} {
		t.Run(string(row.reason), func(t *testing.T) {
			t.Parallel()
			server := servicestest.StartRedis(t)
			l := at(t, server.Addr, patient, Options{MaxHold: row.maxHold})
			err := l.WithLock(t.Context(), requestFor("r", alice, row.ttl), func(ctx context.Context, _ Lock) error {
				row.fault(t, server, l)
				struck := time.Now()
				<-ctx.Done()
				if late := time.Since(struck); late > row.within+servicestest.Slack(struck) {
					t.Errorf("the work ended after %v", late)
				}
				return nil
			})
			var lost *LostError
			if !errors.As(err, &lost) || lost.Reason != row.reason || !errors.Is(err, models.ErrNotHeld) {
				t.Errorf("WithLock: %v, want %s", err, row.reason)
			}
		})
	}
}

// Redis goes away under a lease for which another call of this instance waits. The lease is handed
// to that only while it surely stands, counted on this instance's monotonic clock.
func TestWithLockHandsOverWithoutRedis(t *testing.T) {
	t.Parallel()
	for how, over := range map[string]bool{"while the lease stands": false, "not when it is over": true} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			for round := 1; !handsOverWithoutRedis(t, over); round++ {
				if round == 10 {
					t.Fatal("no lease stands for as long as it takes to freeze Redis")
				}
			}
		})
	}
}

// handsOverWithoutRedis is false where the machine was too busy to find the lease standing.
func handsOverWithoutRedis(t *testing.T, over bool) bool {
	const ttl = 1500 * time.Millisecond
	server := servicestest.StartRedis(t)
	l := at(t, server.Addr, time.Second, Options{})
	ran, late := 0, false
	second := make(chan error, 1)
	err := l.WithLock(t.Context(), requestFor("r", alice, ttl), func(ctx context.Context, first Lock) error {
		granted := time.Now() // not before the server granted the lease
		go func() {
			second <- l.WithLock(t.Context(), requestFor("r", alice, ttl), func(ctx context.Context, taken Lock) error {
				ran++
				if ctx.Err() != nil || taken.Grant != first.Grant || *taken.Fence <= *first.Fence {
					t.Errorf("handed over %+v after %+v: %v", taken, first, context.Cause(ctx))
				}
				if b := believe(ctx, taken, time.Minute); b.Until.Sub(granted) > ttl {
					t.Errorf("trusted for %v, longer than the server promised", b.Until.Sub(granted))
				}
				return nil
			})
		}()
		insiders(t, l, 1)
		server.Freeze()
		late = !over && time.Since(granted) > ttl/2
		if over {
			<-ctx.Done()
		}
		for _, lease := range l.groups.in(shardOf("r")) { // its row has just begun, however slow the machine is
			lease.mu.Lock()
			lease.since = time.Now().Add(time.Minute)
			lease.mu.Unlock()
		}
		return nil
	})
	then := <-second
	server.Thaw()
	if late {
		return false
	}
	var lost *LostError
	if over != errors.As(err, &lost) {
		t.Errorf("the first: %v", err)
	}
	if !errors.As(then, &lost) && !errors.Is(then, models.ErrUnavailable) {
		t.Errorf("the second: %v", then)
	}
	if over != (ran == 0) {
		t.Errorf("%d ran", ran)
	}
	return true
}
