package services

import (
	"errors"
	"strings"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// queueUp puts an attempt in the queue of a taken lock, and no more: nobody beats for it.
func queueUp(t *testing.T, l *Locker, req LockRequest) *attempt {
	t.Helper()
	waiter := l.newAttempt(req)
	got, err := l.runAcquire(t.Context(), waiter, true, "")
	if err != nil || got.code != lockRefused {
		t.Fatalf("not queued: %+v, %v", got, err)
	}
	waiter.arrival = got.extra
	return waiter
}

// A lock whose lease has ended is for the head of its queue, although for a moment
// nobody has it.
func TestLockNewcomerDoesNotOvertakeAtTheEndOfALease(t *testing.T) {
	server := servicestest.StartRedis(t)
	holder, waiting, newcomer := openLockerAt(t, server.Addr), openLockerAt(t, server.Addr), openLockerAt(t, server.Addr)
	if _, err := holder.TryAcquire(t.Context(), LockRequest{Resource: "r", TTL: 100 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	queueUp(t, waiting, LockRequest{Resource: "r"})
	servicestest.Eventually(t, time.Second, func() bool { return server.Do("EXISTS", holder.keys.of("r")[0]) == "0" }, "the lease does not end")
	if lock, err := newcomer.TryAcquire(t.Context(), LockRequest{Resource: "r"}); !errors.Is(err, models.ErrNotAcquired) {
		t.Errorf("a newcomer overtook the queue: %+v, %v", lock, err)
	}
}

// A waiter whose instance was silent, and that asks before its instance's next beat,
// has the lock then and no place in the queue any more: it would be granted to it once
// more when it gives it back.
func TestLockSilentWaiterThatAsksLeavesTheQueue(t *testing.T) {
	server := servicestest.StartRedis(t)
	holder, silent := openLockerAt(t, server.Addr), openLockerAt(t, server.Addr)
	held, err := holder.TryAcquire(t.Context(), LockRequest{Resource: "r"})
	if err != nil {
		t.Fatal(err)
	}
	waiter := queueUp(t, silent, LockRequest{Resource: "r"})
	const forASecond = `local t = redis.call('TIME')
		return redis.call('ZADD', KEYS[1], 'XX', 'CH', math.floor(t[1] * 1000 + t[2] / 1000) - 1000, ARGV[1])`
	if n := server.Do("EVAL", forASecond, "1", strings.TrimSuffix(silent.keys.of("r")[2], "locks")+"instances", silent.instance); n != "1" {
		t.Fatalf("not made silent: %s", n)
	}
	if _, err := holder.Release(t.Context(), held.LockClaim); err != nil {
		t.Fatal(err)
	}
	if got, err := silent.runAcquire(t.Context(), waiter, true, ""); err != nil || got.code != lockDone {
		t.Fatalf("not granted: %+v, %v", got, err)
	}
	if s, err := holder.Status(t.Context(), "r"); err != nil || s.Grant != waiter.grant || s.Waiting != 0 {
		t.Errorf("granted, and waiting behind itself: %+v, %v", s, err)
	}
	if _, err := silent.Release(t.Context(), waiter.claim()); err != nil {
		t.Fatal(err)
	}
	if s, err := holder.Status(t.Context(), "r"); err != nil || s.Held {
		t.Errorf("held by nobody: %+v, %v", s, err)
	}
}
