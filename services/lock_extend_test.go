package services

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// budgetSpent is a request that has waited for Redis as long as it may: its next call
// is not sent, although Redis is there.
func budgetSpent(ctx context.Context) context.Context {
	spent := new(budget)
	spent.spent.Store(int64(time.Hour))
	return context.WithValue(ctx, budgetKey{}, spent)
}

// An extend that one call could not tell Redis is told by the next beats: without an
// outage nothing else would, and the holder was promised its time.
func TestLockExtendedWithoutRedisReachesIt(t *testing.T) {
	server := servicestest.StartRedis(t)
	l := openLockerAt(t, server.Addr)
	lock, err := l.TryAcquire(t.Context(), LockRequest{Resource: "process:1", TTL: 3 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if extended, err := l.Extend(budgetSpent(t.Context()), lock.LockClaim, time.Minute); err != nil || !extended.Degraded {
		t.Fatalf("%+v, %v", extended, err)
	}
	servicestest.Eventually(t, time.Second, func() bool {
		left, err := strconv.Atoi(strings.TrimSpace(server.Do("PTTL", l.keys.of("process:1")[0])))
		return err == nil && left > 50_000
	}, "Redis does not know of the extend")
}

// The time left becomes ttl, also if that is less. What an instance did not see is
// not shortened: somebody else was promised the longer time.
func TestLockShortenedWithoutRedisReachesIt(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		seen        bool
		least, most int // milliseconds left in Redis
	}{"as this instance left it": {true, 5_000, 10_000}, "extended by another": {false, 50_000, 60_000}} {
		t.Run(name, func(t *testing.T) {
			server := servicestest.StartRedis(t)
			proxy := servicestest.NewProxy(t, server.Addr)
			l, other := openLockerAt(t, proxy.Addr), openLockerAt(t, server.Addr)
			first := 30 * time.Second
			if row.seen {
				first = time.Minute
			}
			lock, err := l.TryAcquire(t.Context(), LockRequest{Resource: "process:1", TTL: first})
			if err != nil {
				t.Fatal(err)
			}
			proxy.Cut()
			if !row.seen {
				if _, err := other.Extend(t.Context(), lock.LockClaim, time.Minute); err != nil {
					t.Fatal(err)
				}
			}
			if shorter, err := l.Extend(t.Context(), lock.LockClaim, 10*time.Second); err != nil || !shorter.Degraded {
				t.Fatalf("%+v, %v", shorter, err)
			}
			proxy.Restore()
			servicestest.Eventually(t, 5*time.Second, func() bool {
				left, err := strconv.Atoi(strings.TrimSpace(server.Do("PTTL", l.keys.of("process:1")[0])))
				return err == nil && left > row.least && left <= row.most && l.redis.Available() && !anyDegraded(l)
			}, "Redis does not know of the extend")
		})
	}
}

// The same for an extend beside the claim that brings the grant back to Redis.
func TestLockExtendedWhileItIsClaimed(t *testing.T) {
	table := newLockTable(time.Hour, time.Now)
	lock, _ := table.acquire(time.Now(), LockClaim{Resource: "process:1", Grant: "grant", Token: "token"}, models.Holder{}, time.Second, false)
	known, _ := table.find(lock.LockClaim)
	extended, err := table.extend(time.Now(), lock.LockClaim, models.Holder{}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	lock.Degraded = false // as Redis answers
	if !table.confirm(known, lock, "epoch") {
		t.Fatal("not confirmed")
	}
	if now := table.alive()[0].lock; !now.Degraded || now.ends != extended.ends {
		t.Errorf("Redis will not hear of the extend: %+v", now)
	}
}
