package lock

import (
	"errors"
	"strings"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// queueUp puts an attempt in the queue of a taken lock, and no more: no heartbeat keeps it alive.
func queueUp(t *testing.T, l *Locker, req Request) *attempt {
	t.Helper()
	waiter := l.newAttempt(req)
	got, err := l.runAcquire(t.Context(), waiter, true)
	if err != nil || got.code != codeRefused {
		t.Fatalf("not queued: %+v, %v", got, err)
	}
	waiter.arrival = got.extra
	return waiter
}

// patientLocker is a Locker that waits for a busy machine.
func patientLocker(t *testing.T, server *servicestest.RedisServer) *Locker {
	t.Helper()
	return New(redistest.At(t, server.Addr, redis.Options{Timeout: 5 * time.Second}), Options{})
}

// heard makes the instance's last heartbeat in the shard of r so long ago.
func heard(t *testing.T, server *servicestest.RedisServer, l *Locker, ago time.Duration) {
	t.Helper()
	const beat = `local t = redis.call('TIME')
		return redis.call('ZADD', KEYS[1], 'XX', 'CH', math.floor(t[1] * 1000 + t[2] / 1000) - ARGV[2], ARGV[1])`
	instances := strings.TrimSuffix(l.keys.of("r")[2], "locks") + "instances"
	if n := server.Do("EVAL", beat, "1", instances, l.instance, milliseconds(ago)); n != "1" {
		t.Fatalf("no heartbeat changed: %s", n)
	}
}

// A lock whose lease has ended is for the head of its queue, although for a moment
// no holder has it.
func TestLockNewcomerDoesNotOvertakeAtTheEndOfALease(t *testing.T) {
	server := servicestest.StartRedis(t)
	holder, waiting, newcomer := patientLocker(t, server), patientLocker(t, server), patientLocker(t, server)
	if _, err := holder.TryAcquire(t.Context(), Request{Resource: "r"}); err != nil {
		t.Fatal(err)
	}
	queueUp(t, waiting, Request{Resource: "r"})
	heard(t, server, waiting, -time.Minute)  // alive, however long the next line takes
	server.Do("DEL", holder.keys.of("r")[0]) // as at its end
	if lock, err := newcomer.TryAcquire(t.Context(), Request{Resource: "r"}); !errors.Is(err, models.ErrNotAcquired) {
		t.Errorf("a newcomer overtook the queue: %+v, %v", lock, err)
	}
}

// A waiter whose instance was silent, and that asks before its instance's next heartbeat,
// has the lock then and no place in the queue any more: it would be granted to it once
// more when it gives it back.
func TestLockSilentWaiterThatAsksLeavesTheQueue(t *testing.T) {
	server := servicestest.StartRedis(t)
	holder, silent := patientLocker(t, server), patientLocker(t, server)
	held, err := holder.TryAcquire(t.Context(), Request{Resource: "r"})
	if err != nil {
		t.Fatal(err)
	}
	waiter := queueUp(t, silent, Request{Resource: "r"})
	heard(t, server, silent, time.Second)
	if _, err := holder.Release(t.Context(), held.Claim); err != nil {
		t.Fatal(err)
	}
	if got, err := silent.runAcquire(t.Context(), waiter, true); err != nil || got.code != codeDone {
		t.Fatalf("not granted: %+v, %v", got, err)
	}
	if s, err := holder.Status(t.Context(), "r"); err != nil || s.Grant != waiter.grant || s.Waiting != 0 {
		t.Errorf("granted, and waiting behind itself: %+v, %v", s, err)
	}
	if _, err := silent.Release(t.Context(), waiter.claim()); err != nil {
		t.Fatal(err)
	}
	if s, err := holder.Status(t.Context(), "r"); err != nil || s.Held {
		t.Errorf("held without a holder: %+v, %v", s, err)
	}
}

// A release can meet a lease whose key has gone and whose entry in the index has a
// moment to go. What a heartbeat makes of that entry later must not bring the lock back.
func TestLockReleasedBetweenTheEndsOfItsKeyAndItsEntry(t *testing.T) {
	server := servicestest.StartRedis(t)
	granter, other := patientLocker(t, server), patientLocker(t, server)
	lock, err := granter.TryAcquire(t.Context(), Request{Resource: "r"})
	if err != nil {
		t.Fatal(err)
	}
	keys := granter.keys.of("r")
	const ends = `redis.call('DEL', KEYS[1])
		local t = redis.call('TIME')
		return redis.call('ZADD', KEYS[2], 'XX', 'CH', math.floor(t[1] * 1000 + t[2] / 1000) + 90, redis.call('ZRANGE', KEYS[2], 0, 0)[1])`
	if n := server.Do("EVAL", ends, "2", keys[0], keys[2]); n != "1" {
		t.Fatalf("no entry changed: %s", n)
	}
	if _, err := other.Release(t.Context(), lock.Claim); !errors.Is(err, models.ErrNotHeld) {
		t.Fatalf("released a lock that Redis had let go: %v", err)
	}
	servicestest.Eventually(t, func() bool {
		_, _, err := other.heartbeat(t.Context(), shardOf("r"), nil)
		return err == nil && server.Do("ZCARD", keys[2]) == "0"
	}, "the entry stays")
	known, ok := granter.table.find(lock.Claim)
	if !ok {
		t.Fatal("the granter does not know its grant any more")
	}
	if stands, err := granter.reassert(t.Context(), known); err != nil || stands {
		t.Errorf("brought back after its release: %t, %v", stands, err)
	}
}
