package lock

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// budgetSpent is a request that has waited for Redis as long as it may: its next call
// is not sent, although Redis is there.
func budgetSpent(ctx context.Context) context.Context {
	return redis.WithSpentBudget(ctx, time.Hour)
}

// An extend that one call could not send to Redis is sent by the next heartbeats: without an
// outage nothing else would, and the holder was promised its time.
func TestLockExtendedWithoutRedisReachesIt(t *testing.T) {
	server := servicestest.StartRedis(t)
	l := openLockerAt(t, server.Addr)
	lock, err := l.TryAcquire(t.Context(), Request{Resource: "process:1", TTL: 3 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if extended, err := l.Extend(budgetSpent(t.Context()), lock.Claim, time.Minute); err != nil || !extended.Degraded {
		t.Fatalf("%+v, %v", extended, err)
	}
	servicestest.Within(t, time.Second, func() bool {
		left, err := strconv.Atoi(strings.TrimSpace(server.Do("PTTL", l.keys.of("process:1")[0])))
		return err == nil && left > 50_000
	}, "Redis does not know of the extend")
}

// The time left becomes ttl, also if that is less. What an instance did not see is
// not shortened: another caller was promised the longer time.
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
			lock, err := l.TryAcquire(t.Context(), Request{Resource: "process:1", TTL: first})
			if err != nil {
				t.Fatal(err)
			}
			proxy.Cut()
			if !row.seen {
				if _, err := other.Extend(t.Context(), lock.Claim, time.Minute); err != nil {
					t.Fatal(err)
				}
			}
			if shorter, err := l.Extend(t.Context(), lock.Claim, 10*time.Second); err != nil || !shorter.Degraded {
				t.Fatalf("%+v, %v", shorter, err)
			}
			proxy.Restore()
			servicestest.Eventually(t, func() bool {
				left, err := strconv.Atoi(strings.TrimSpace(server.Do("PTTL", l.keys.of("process:1")[0])))
				return err == nil && left > row.least && left <= row.most && l.redis.Available() && !anyDegraded(l)
			}, "Redis does not know of the extend")
		})
	}
}

// The same for an extend while the grant is brought back to Redis.
func TestLockExtendedWhileItIsReasserted(t *testing.T) {
	for _, ttl := range []time.Duration{time.Minute, time.Second} {
		table := newLocalTable(time.Hour, time.Now)
		lock, _ := table.acquire(time.Now(), Claim{Resource: "process:1", Grant: "grant", Token: "token"}, models.Holder{}, 10*time.Second, false)
		known, _ := table.find(lock.Claim)
		extended, err := table.extend(time.Now(), lock.Claim, models.Holder{}, ttl, "")
		if err != nil {
			t.Fatal(err)
		}
		lock.Degraded = false // as Redis answers
		if stands, beside := table.synced(known, lock, "epoch"); !stands || !beside {
			t.Fatalf("stands %v, extended beside it %v", stands, beside)
		}
		if now := table.living(time.Now(), anyLock)[0].lock; !now.Degraded || now.trustedUntil != extended.trustedUntil {
			t.Errorf("Redis will not hear of the extend to %v: %+v", ttl, now)
		}
	}
}

// What an instance passes on to Redis of the time left, however long ago it observed
// what Redis has.
func TestLockChangedTimeLeft(t *testing.T) {
	heard := time.Now()
	lock := Lock{TTL: time.Hour, trustedUntil: heard.Add(time.Hour - drift(time.Hour))}
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
		if got := known.changed(row.left, row.inRedis, heard.Add(row.after)); got != row.want {
			t.Errorf("after %v, %v left here and %v in Redis: %v", row.after, row.left, row.inRedis, got)
		}
	}
}

// The end of a lease without Redis is published once, also when another took its place
// or the table was swept before.
func TestLockExpiredWithoutRedisIsPublished(t *testing.T) {
	now := time.Now()
	claim := func(n int) Claim {
		return Claim{Resource: fmt.Sprint("r:", n), Grant: fmt.Sprint("grant", n), Token: "token"}
	}
	table := newLocalTable(time.Hour, time.Now)
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
		if told := table.expire(now); len(told) != want {
			t.Errorf("%d are told, want %d: %+v", len(told), want, told)
		}
	}
	owed := table.pending(time.Now())
	if len(owed) != 5 { // not the place of the one that is held
		t.Errorf("%d places to leave: %+v", len(owed), owed)
	}
}

// A lease counts from before it was asked for, less a drift: by when the answer comes
// a part of it has passed at the server.
func TestLockLeaseCountsFromBeforeTheSend(t *testing.T) {
	const ttl, way = 10 * time.Second, 100 * time.Millisecond
	const usable = ttl - 22*time.Millisecond - 2*way // 2 ms and a 500th for the drift
	proxy := servicestest.NewProxy(t, servicestest.StartRedis(t).Addr)
	l := New(redistest.At(t, proxy.Addr, redis.Options{Timeout: 5 * time.Second}), Options{})
	proxy.SetLatency(way)
	lock, err := l.TryAcquire(t.Context(), Request{Resource: "r", TTL: ttl})
	if left := time.Until(lock.trustedUntil); err != nil || left > usable {
		t.Errorf("acquired: believed for %v after the answer, want at most %v; %v", left, usable, err)
	}
	lock, err = l.Extend(t.Context(), lock.Claim, ttl)
	if left := time.Until(lock.trustedUntil); err != nil || left > usable {
		t.Errorf("extended: believed for %v after the answer, want at most %v; %v", left, usable, err)
	}
}
