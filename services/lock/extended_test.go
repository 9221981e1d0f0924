package lock

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// What an instance extends without Redis reaches it, and what ended there meanwhile stays ended.
func TestExtendedWithoutRedis(t *testing.T) {
	t.Parallel()
	type world struct {
		apart
		server *servicestest.RedisServer
		other  *Locker
	}
	start := func(t *testing.T) world {
		t.Helper()
		t.Parallel()
		server := servicestest.StartRedis(t)
		return world{openApart(t, server), server, openAt(t, server.Addr)}
	}
	left := func(t *testing.T, w world, least, most time.Duration) {
		t.Helper()
		servicestest.Eventually(t, func() bool {
			left := leftInRedis(t, w.server, w.other, "r")
			return left > least && left <= most && w.inSync()
		}, "Redis does not know of the extend")
	}
	t.Run("by a single call, it is sent by the next heartbeats", func(t *testing.T) {
		w := start(t)
		taken := take(t, w.Locker, request("r", alice))
		if extended, err := w.Extend(budgetSpent(t.Context()), taken.Claim, time.Hour/2); err != nil || !extended.Degraded {
			t.Fatalf("%+v, %v", extended, err)
		}
		left(t, w, 10*time.Minute, time.Hour/2)
	})
	t.Run("for a shorter time, it is shortened", func(t *testing.T) {
		w := start(t)
		taken := take(t, w.Locker, requestFor("r", alice, time.Hour))
		w.cut()
		extend(t, w.Locker, taken, 10*time.Minute)
		w.restore()
		left(t, w, 5*time.Minute, 10*time.Minute)
	})
	t.Run("for a shorter time, it is not shortened if another caller was promised a longer one", func(t *testing.T) {
		w := start(t)
		taken := take(t, w.Locker, requestFor("r", alice, time.Minute))
		w.cut()
		extend(t, w.other, taken, time.Hour/2)
		extend(t, w.Locker, taken, 10*time.Minute)
		w.restore()
		left(t, w, 20*time.Minute, time.Hour/2)
	})
	for how, times := range map[string]int{"once": 1, "again and again": 3} {
		t.Run("through the end of its lease in Redis, "+how+", it is reasserted", func(t *testing.T) {
			w := start(t)
			taken := take(t, w.Locker, request("r", alice))
			w.cut()
			for range times {
				extend(t, w.Locker, taken, time.Hour/2)
			}
			endLeases(t, w.server, w.other, "r")
			w.restore()
			wantHolder(t, w.other, taken)
		})
	}
	t.Run("through the end of its lease in Redis, behind many others, it is reasserted", func(t *testing.T) {
		// Whether it ended by itself is known before it is reasserted, however many others did before it.
		w := start(t)
		shard := shardOf("r")
		for _, resource := range inShard(shard, 150) {
			take(t, w.Locker, request(resource, alice))
		}
		taken := take(t, w.Locker, request("r", alice))
		if err := w.other.redis.Close(t.Context()); err != nil { // else it would pass them on
			t.Fatal(err)
		}
		w.cut()
		extend(t, w.Locker, taken, time.Hour/2)
		endLeases(t, w.server, w.Locker, "r")
		if n := w.server.Do("ZCARD", w.keys[shard].index); n != "151" {
			t.Fatalf("%s leases to pass on: nothing is proven", n)
		}
		w.restore()
		wantHolder(t, w.Locker, taken)
	})
	for how, end := range map[string]func(*testing.T, world, Lock){
		"forced":   func(t *testing.T, w world, _ Lock) { force(t, w.other, "r") },
		"released": func(t *testing.T, w world, taken Lock) { giveBack(t, w.other, taken) },
		"disabled": func(t *testing.T, w world, _ Lock) {
			if _, err := w.other.ReleaseUser(t.Context(), alice.UserID); err != nil {
				t.Fatal(err)
			}
		},
		"released too late": func(t *testing.T, w world, taken Lock) {
			endLeases(t, w.server, w.other, "r")
			if _, err := w.other.Release(t.Context(), taken.Claim); !errors.Is(err, models.ErrNotHeld) {
				t.Fatalf("released a lock that Redis had let go: %v", err)
			}
		},
	} {
		t.Run("ended by a call meanwhile, "+how+", it is not brought back", func(t *testing.T) {
			w := start(t)
			taken := take(t, w.Locker, requestFor("r", alice, 2*time.Second))
			w.way.Cut()
			if _, err := w.Extend(budgetSpent(t.Context()), taken.Claim, time.Hour/2); err != nil {
				t.Fatal(err)
			}
			end(t, w, taken)
			// Only time shows that the lease would be over: the lock is not there any more.
			servicestest.Eventually(t, func() bool { return time.Now().After(taken.ExpiresAt) }, "time stands still")
			gone(t, w.Locker)
			w.restore()
			wantFree(t, w.other, "r")
		})
	}
	for how, row := range map[string]struct {
		ttl time.Duration
		end func(*testing.T, *Locker, Lock)
	}{
		"held by another": {time.Hour / 2, func(*testing.T, *Locker, Lock) {}},
		"given back":      {time.Hour / 2, endings["released"]},
		"forced":          {time.Hour / 2, endings["forced"]},
		"its lease over": {100 * time.Millisecond, func(t *testing.T, l *Locker, _ Lock) {
			servicestest.Eventually(t, func() bool { return !l.mustStatus(t, "r").Held }, "the lease does not end")
		}},
		"replaced by another waiter": {100 * time.Millisecond, func(t *testing.T, l *Locker, _ Lock) {
			if _, err := l.Acquire(t.Context(), request("r", bob)); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(fmt.Sprintf("granted to a waiter, and %s, it leaves the queue in Redis", how), func(t *testing.T) {
			w := start(t)
			held := take(t, w.other, requestFor("r", alice, 3*time.Second)) // the waiter believes in it so long
			granted := make(chan Lock, 1)
			go func() {
				taken, err := w.Acquire(t.Context(), requestFor("r", bob, row.ttl))
				if err != nil {
					t.Error(err)
				}
				granted <- taken
			}()
			waiting(t, w.other, "r", 1)
			w.way.Cut()
			extend(t, w.other, held, time.Hour/2)
			taken := <-granted
			if !taken.Degraded {
				t.Fatalf("%+v", taken)
			}
			row.end(t, w.Locker, taken)
			w.restore()
			waiting(t, w.other, "r", 0)
			wantHolder(t, w.other, held)
		})
	}
}

// A release can meet a lease whose key has gone and whose entry in the index has a moment to go. What
// a heartbeat makes of that entry later must not bring the lock back.
func TestReleasedBetweenTheEndsOfALease(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	all := instances(t, server, 2)
	granter, other := all[0], all[1]
	taken := take(t, granter, request("r", alice))
	keys := granter.keys.of("r")
	const ends = `redis.call('DEL', KEYS[1])
		local t = redis.call('TIME')
		return redis.call('ZADD', KEYS[2], 'XX', 'CH', math.floor(t[1] * 1000 + t[2] / 1000) + 90, redis.call('ZRANGE', KEYS[2], 0, 0)[1])`
	if n := server.Do("EVAL", ends, "2", keys[0], keys[2]); n != "1" {
		t.Fatalf("no entry changed: %s", n)
	}
	if _, err := other.Release(t.Context(), taken.Claim); !errors.Is(err, models.ErrNotHeld) {
		t.Fatalf("released a lock that Redis had let go: %v", err)
	}
	servicestest.Eventually(t, func() bool {
		_, _, err := other.heartbeat(t.Context(), shardOf("r"), nil)
		return err == nil && server.Do("ZCARD", keys[2]) == "0"
	}, "the entry stays")
	known, ok := granter.table.find(taken.Claim)
	if !ok {
		t.Fatal("the granter does not know its grant any more")
	}
	if stands, err := granter.reassert(t.Context(), known); err != nil || stands {
		t.Errorf("brought back after its release: %t, %v", stands, err)
	}
}
