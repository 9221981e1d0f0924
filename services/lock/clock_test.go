package lock_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/lock"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// The wall clock of an instance fills in the times it answers, and nothing else: a lease is
// neither shorter nor longer when that clock is put forward or back.
func TestLockWallClockOnlyTellsTheTime(t *testing.T) {
	server := servicestest.StartRedis(t)
	var off atomic.Int64
	clock := func() time.Time { return time.Now().Add(time.Duration(off.Load())) }
	l := lock.New(redistest.Patient(t, server.Addr), lock.Options{Clock: clock, Logger: redistest.Quiet()})
	near := func(what string, got time.Time) {
		t.Helper()
		if d := got.Sub(clock()); d < -5*time.Second || d > 15*time.Second {
			t.Errorf("%s is %v, %v from the instance's clock", what, got, d)
		}
	}
	for _, set := range []time.Duration{time.Hour, -time.Hour} {
		off.Store(int64(set))
		taken := mustAcquire(t, l, request("process:1", alice))
		near("ExpiresAt", taken.ExpiresAt)
		status, err := l.Status(t.Context(), taken.Resource)
		if err != nil {
			t.Fatal(err)
		}
		near("the status's ExpiresAt", status.ExpiresAt)
		page, _, err := l.List(t.Context(), models.Page{Limit: 1})
		if err != nil || len(page.Items) != 1 {
			t.Fatal(page, err)
		}
		near("the list's ExpiresAt", page.Items[0].ExpiresAt)
		if _, err := l.Release(t.Context(), taken.Claim); err != nil {
			t.Fatal(err)
		}
		req := request("process:1", alice)
		req.TTL = 300 * time.Millisecond
		err = l.WithLock(t.Context(), req, func(ctx context.Context, _ lock.Lock) error {
			off.Store(-int64(set)) // two hours off, in the middle of the lease
			over := time.After(2 * req.TTL)
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-over:
				return nil
			}
		})
		if err != nil {
			t.Errorf("put from %v to %v: %v", set, -set, err)
		}
	}
}

func TestLockTokenEndsByTheInstancesClock(t *testing.T) {
	var off atomic.Int64
	l := lock.New(redistest.Patient(t, servicestest.StartRedis(t).Addr), lock.Options{
		MaxHold: time.Minute, Clock: func() time.Time { return time.Now().Add(time.Duration(off.Load())) },
	})
	signer, err := lock.NewTokenSigner([]string{strings.Repeat("s", 32)})
	if err != nil {
		t.Fatal(err)
	}
	tokens := lock.NewTokens(l, signer)
	token, err := tokens.Sign(mustAcquire(t, l, request("process:1", alice)), "1", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		off   time.Duration
		opens bool
	}{{0, true}, {-time.Hour, true}, {50 * time.Second, true}, {70 * time.Second, false}} {
		off.Store(int64(row.off))
		if _, _, err := tokens.Verify(t.Context(), "process:1", "1", token); (err == nil) != row.opens {
			t.Errorf("clock %v off: %v", row.off, err)
		}
	}
}

// A grant made without Redis says when it began by the instance's own clock.
func TestLockSinceWithoutRedisIsTheInstancesClock(t *testing.T) {
	then := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	l := lock.New(redistest.Start(t, redis.Options{Disabled: true}), lock.Options{
		OnRedisDown: models.OnRedisDownOpen, Clock: func() time.Time { return then },
	})
	taken := mustAcquire(t, l, request("process:1", alice))
	if !taken.Holder.Since.Equal(then) || !taken.ExpiresAt.Equal(then.Add(10*time.Second)) {
		t.Errorf("since %v, expires %v", taken.Holder.Since, taken.ExpiresAt)
	}
	if extended, err := l.Extend(t.Context(), taken.Claim, time.Minute); err != nil || !extended.ExpiresAt.Equal(then.Add(time.Minute)) {
		t.Errorf("extended to %v, %v", extended.ExpiresAt, err)
	}
	if s, err := l.Status(t.Context(), "process:1"); err != nil || !s.ExpiresAt.Equal(then.Add(time.Minute)) {
		t.Errorf("status %+v, %v", s, err)
	}
}
