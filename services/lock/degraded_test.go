package lock

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
)

// cutOff is an instance that never has Redis.
func cutOff(t testing.TB, opt Options) *Locker {
	t.Helper()
	return New(redistest.Start(t, redis.Options{Disabled: true}), opt)
}

func TestWithoutRedis(t *testing.T) {
	open := Options{OnRedisDown: models.OnRedisDownOpen}

	t.Run("a closed Locker refuses every call", func(t *testing.T) {
		l, ctx := cutOff(t, Options{}), t.Context()
		claim := Claim{Resource: "r", Grant: "0123", Token: newToken()}
		for name, call := range map[string]func() error{
			"TryAcquire":   func() error { _, err := l.TryAcquire(ctx, request("r", alice)); return err },
			"Acquire":      func() error { _, err := l.Acquire(ctx, request("r", alice)); return err },
			"WithLock":     func() error { return l.WithLock(ctx, request("r", alice), nothing) },
			"Extend":       func() error { _, err := l.Extend(ctx, claim, time.Minute); return err },
			"Check":        func() error { _, err := l.Check(ctx, claim); return err },
			"Release":      func() error { _, err := l.Release(ctx, claim); return err },
			"ForceRelease": func() error { _, err := l.ForceRelease(ctx, "r", nil); return err },
			"ReleaseUser":  func() error { _, err := l.ReleaseUser(ctx, "1"); return err },
			"Replace":      func() error { _, err := l.Replace(ctx, request("r", alice), Replaced{}); return err },
			"Status":       func() error { _, err := l.Status(ctx, "r"); return err },
			"Statuses":     func() error { _, err := l.Statuses(ctx, []string{"r"}); return err },
			"Inspect":      func() error { _, _, err := l.Inspect(ctx, "r", 1); return err },
			"List":         func() error { _, _, err := l.List(ctx, models.Page{Limit: 1}); return err },
			"All":          func() error { _, _, err := l.All(ctx); return err },
			"Metadata":     func() error { _, err := l.Metadata(ctx, Lock{Claim: claim}, "text"); return err },
		} {
			if err := call(); !errors.Is(err, models.ErrUnavailable) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})

	t.Run("a lock that is promised to a waiter has no holder", func(t *testing.T) {
		l := cutOff(t, open)
		held := take(t, l, request("r", alice))
		if _, err := l.newAttempt(request("r", bob)).once(t.Context(), true); !errors.Is(err, models.ErrNotAcquired) {
			t.Fatalf("bob does not wait: %v", err)
		}
		giveBack(t, l, held)
		if s := wantRefused(t, l, "r"); s.Held || s.Holder != (models.Holder{}) || !s.Degraded || s.Waiting != 1 || s.TTL <= 0 {
			t.Errorf("refused by %+v", s)
		}
	})

	t.Run("an open one excludes within the instance, and says so", func(t *testing.T) {
		l := cutOff(t, open)
		taken := take(t, l, request("r", alice))
		if !taken.Degraded || taken.Fence != nil {
			t.Errorf("lock = %+v", taken)
		}
		if s := wantRefused(t, l, "r"); !s.Degraded || s.Holder.Email != alice.Email {
			t.Errorf("refused by %+v", s)
		}
		forged := taken.Claim
		forged.Token = newToken()
		if _, err := l.Check(t.Context(), forged); !errors.Is(err, models.ErrNotHeld) {
			t.Errorf("a forged token: %v", err)
		}
		if extended := extend(t, l, taken, time.Hour); !extended.Degraded || extended.TTL < 59*time.Minute {
			t.Errorf("extended: %+v", extended)
		}
		if locks, degraded, err := l.List(t.Context(), models.Page{Limit: 10}); err != nil || !degraded || len(locks.Items) != 1 {
			t.Errorf("list: %+v, %v, %v", locks, degraded, err)
		}
		next := queueFor(t.Context(), t, l, request("r", bob))
		if degraded, err := l.Release(t.Context(), taken.Claim); err != nil || !degraded {
			t.Errorf("release: %v, %v", degraded, err)
		}
		<-next
		if _, err := l.Check(t.Context(), taken.Claim); !errors.Is(err, models.ErrNotHeld) {
			t.Errorf("a released grant passes: %v", err)
		}
		// A grant of another instance that this one does not know of passes: the caller has
		// verified its token, and the database rule decides.
		other := Claim{Resource: "other", Grant: "0123", Token: newToken()}
		if degraded, err := l.Check(t.Context(), other); err != nil || !degraded {
			t.Errorf("an unknown grant: %v, %v", degraded, err)
		}
	})

	t.Run("a grant began, and ends, by the instance's clock", func(t *testing.T) {
		then := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
		l := cutOff(t, Options{OnRedisDown: models.OnRedisDownOpen, Clock: func() time.Time { return then }})
		taken := take(t, l, request("r", alice))
		if !taken.Holder.Since.Equal(then) || !taken.ExpiresAt.Equal(then.Add(time.Minute)) {
			t.Errorf("since %v, expires %v", taken.Holder.Since, taken.ExpiresAt)
		}
		if extended := extend(t, l, taken, time.Hour/2); !extended.ExpiresAt.Equal(then.Add(time.Hour / 2)) {
			t.Errorf("extended to %v", extended.ExpiresAt)
		}
		if s := l.mustStatus(t, "r"); !s.ExpiresAt.Equal(then.Add(time.Hour / 2)) {
			t.Errorf("status %+v", s)
		}
	})

	t.Run("what was never sent is not in the outbox", func(t *testing.T) {
		// In a long outage that would be a release for each request, all to be sent before Redis
		// counts as available again.
		for _, opt := range []Options{open, {}} {
			l := cutOff(t, opt)
			for range 10 {
				if _, err := l.TryAcquire(t.Context(), request("r", alice)); err != nil && !isOneOfErrors(err, models.ErrUnavailable, models.ErrNotAcquired) {
					t.Fatal(err)
				}
			}
			if pending := l.table.pending(time.Now()); len(pending) != 0 {
				t.Errorf("%s: %d in the outbox", opt.OnRedisDown, len(pending))
			}
		}
	})
}

// The table of one instance, which decides while Redis is away.
func TestLocalTable(t *testing.T) {
	now := time.Now()
	claim := Claim{Resource: "r", Grant: "grant", Token: "token"}

	t.Run("keeps an extend that comes while the grant is reasserted", func(t *testing.T) {
		for _, ttl := range []time.Duration{time.Minute, time.Second} {
			table := newLocalTable(time.Hour, time.Now)
			lock, _ := table.acquire(time.Now(), claim, models.Holder{}, 10*time.Second, false)
			known, _ := table.find(lock.Claim)
			extended, err := table.extend(time.Now(), lock.Claim, models.Holder{}, ttl, "")
			if err != nil {
				t.Fatal(err)
			}
			lock.Degraded = false // as Redis answers
			if stands, beside := table.synced(known, lock, "epoch"); !stands || !beside {
				t.Fatalf("stands %v, extended beside it %v", stands, beside)
			}
			if after := table.living(time.Now(), anyLock)[0].lock; !after.Degraded || after.trustedUntil != extended.trustedUntil {
				t.Errorf("Redis will not hear of the extend to %v: %+v", ttl, after)
			}
		}
	})

	t.Run("passes on to Redis what was changed of the time left", func(t *testing.T) {
		lock := Lock{TTL: time.Hour, trustedUntil: now.Add(time.Hour - drift(time.Hour))}
		known := &entry{syncedUntil: lock.serverExpiry()}
		for _, row := range []struct {
			after, left, inRedis time.Duration
			want                 bool
		}{
			{0, time.Hour, time.Hour, false},
			{50 * time.Minute, 10 * time.Minute, 10 * time.Minute, false},
			{50 * time.Minute, time.Minute, 10 * time.Minute, true}, // shortened here
			{50 * time.Minute, time.Minute, time.Hour, false},       // extended by another meanwhile
			{50 * time.Minute, time.Hour, 10 * time.Minute, true},
			{50 * time.Minute, 2 * time.Hour, time.Hour, true}, // by both
		} {
			if got := known.changed(row.left, row.inRedis, now.Add(row.after)); got != row.want {
				t.Errorf("after %v, %v left here and %v in Redis: %v", row.after, row.left, row.inRedis, got)
			}
		}
	})

	t.Run("tells of each end of a lease once", func(t *testing.T) {
		// Also when another took its place, or the table was swept before.
		table := newLocalTable(time.Hour, time.Now)
		claim := func(n int) Claim {
			return Claim{Resource: fmt.Sprint("r:", n), Grant: fmt.Sprint("grant", n), Token: "token"}
		}
		for n := range 5 {
			if _, refused := table.acquire(now.Add(-time.Second), claim(n), models.Holder{}, time.Millisecond, true); refused != nil {
				t.Fatal(refused)
			}
		}
		next := claim(0)
		next.Grant, next.Token = "next", "another"
		if _, refused := table.acquire(now, next, models.Holder{}, time.Minute, true); refused != nil {
			t.Fatal(refused)
		}
		table.sweep(now.Add(2 * time.Minute))
		for _, want := range []int{5, 0} {
			if expired := table.expire(now); len(expired) != want {
				t.Errorf("%d expired, want %d: %+v", len(expired), want, expired)
			}
		}
		if pending := table.pending(time.Now()); len(pending) != 5 { // not the place of the one that is held
			t.Errorf("%d places to leave: %+v", len(pending), pending)
		}
	})

	t.Run("keeps a force as long as the grant can be reasserted", func(t *testing.T) {
		for later, want := range map[time.Duration]int{2 * time.Minute: 1, time.Hour + 2*time.Minute: 0} {
			table := newLocalTable(time.Hour, time.Now)
			if _, refused := table.acquire(now, claim, models.Holder{}, time.Second, false); refused != nil {
				t.Fatal(refused)
			}
			if _, err := table.force(now, "r", nil, ""); err != nil {
				t.Fatal(err)
			}
			table.sweep(now.Add(later))
			if got := len(table.outbox); got != want {
				t.Errorf("after %v %d forces are in the outbox, want %d", later, got, want)
			}
		}
	})

	t.Run("does not record a grant whose end it has observed", func(t *testing.T) {
		// The end can come before the reply that brings the grant: a release beside an extend, a
		// force on another instance.
		table := newLocalTable(time.Hour, time.Now)
		table.end(claim.Resource, claim.Grant)
		table.record(Lock{Claim: claim, trustedUntil: now.Add(time.Minute)}, "epoch", originLocal)
		if known := table.living(now, anyLock); len(known) != 0 {
			t.Errorf("it would be reasserted: %+v", known)
		}
		if table.check(now, claim) == nil {
			t.Error("it passes without Redis")
		}
	})
}

// budgetSpent is a request that has waited for Redis as long as it may: its next call is not sent,
// although Redis is there.
func budgetSpent(ctx context.Context) context.Context {
	return redis.WithSpentBudget(ctx, time.Hour)
}
