package lock

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// However often the server forgets a grant and its holder reasserts it, it began when it was
// first granted: answers say so, and it ends at the longest hold. Its
// fence grows.
func TestLockReassertedKeepsItsBeginning(t *testing.T) {
	t.Parallel()
	for how, withoutRedis := range map[string]bool{"granted by Redis": false, "granted without it": true} {
		t.Run(how, func(t *testing.T) {
			server := servicestest.StartRedis(t)
			proxy := servicestest.NewProxy(t, server.Addr)
			const longest = 2 * time.Second
			other := patientLockerAt(t, server.Addr)
			l := New(redistest.At(t, proxy.Addr, redis.Options{Timeout: 5 * time.Second}), Options{
				OnRedisDown: models.OnRedisDownOpen, MaxHold: longest, Logger: slog.New(slog.DiscardHandler),
			})
			req := Request{Resource: "process:1", TTL: longest, Holder: models.Holder{UserID: "1"}}
			if withoutRedis {
				proxy.Cut()
				servicestest.Eventually(t, func() bool { return !l.redis.Available() }, "Redis still counts as available")
			}
			began := time.Now()
			lock, err := l.TryAcquire(t.Context(), req)
			if err != nil || lock.Degraded != withoutRedis {
				t.Fatal(lock, err)
			}
			took := time.Since(began) // what the calls took on a busy machine may count as held
			if withoutRedis {
				proxy.Restore()
				servicestest.Within(t, 2*time.Second, l.redis.Available, "not back")
			}
			claimed, fence := 0, int64(0)
			servicestest.Within(t, 2*longest, func() bool {
				server.Do("FLUSHALL")
				called := time.Now()
				extended, err := l.Extend(t.Context(), lock.Claim, longest)
				took = max(took, time.Since(called))
				if errors.Is(err, models.ErrNotHeld) {
					return true
				}
				if err != nil || extended.Degraded {
					t.Fatal(extended, err)
				}
				claimed++
				if *extended.Fence <= fence {
					t.Errorf("fence %d after %d", *extended.Fence, fence)
				}
				fence = *extended.Fence
				if moved := extended.Holder.Since.Sub(lock.Holder.Since); moved.Abs() > 200*time.Millisecond+2*took {
					t.Fatalf("claimed %d times, it began %v later", claimed, moved)
				}
				return false
			}, "it never ends")
			if held := time.Since(began); held > longest+500*time.Millisecond {
				t.Errorf("held for %v", held)
			}
			if claimed < 3 {
				t.Errorf("claimed %d times: nothing is proven", claimed)
			}
			servicestest.Within(t, 2*claimGrace, func() bool { // or it could still be claimed
				next, err := other.TryAcquire(t.Context(), req)
				if err == nil && *next.Fence <= fence {
					t.Errorf("the next holder: %+v, after fence %d", next, fence)
				}
				return err == nil
			}, "no next holder")
		})
	}
}

// Where an instance took a grant over without Redis, and the server forgot it, it is
// reasserted for its holder and from its beginning.
func TestLockAdoptedIsReassertedForItsHolder(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	proxy := servicestest.NewProxy(t, server.Addr)
	granter, extender := openLockerAt(t, server.Addr), openLockerAt(t, proxy.Addr)
	holder := models.Holder{UserID: "1", Email: "alice@example.com"}
	lock, err := granter.TryAcquire(t.Context(), Request{Resource: "process:1", Holder: holder})
	if err != nil {
		t.Fatal(err)
	}
	if err := granter.redis.Close(t.Context()); err != nil { // nor does it claim the grant itself
		t.Fatal(err)
	}
	servicestest.Eventually(t, func() bool {
		return extender.shards.get(shardOf(lock.Resource)).epoch != ""
	}, "no heartbeat of the shard")
	proxy.Cut()
	servicestest.Eventually(t, func() bool { return !extender.redis.Available() }, "Redis still counts as available")
	holder.Since = lock.Holder.Since.Add(-10 * time.Minute) // as its token says
	if _, err := extender.ExtendFor(t.Context(), lock.Claim, holder, time.Hour); err != nil {
		t.Fatal(err)
	}
	server.Do("FLUSHALL")
	proxy.Restore()
	servicestest.Within(t, 2*time.Second, extender.redis.Available, "not back")
	s, err := openLockerAt(t, server.Addr).Status(t.Context(), lock.Resource)
	if err != nil || !s.Held || s.Holder.Email != holder.Email || s.Holder.UserID != holder.UserID ||
		s.Holder.Since.Sub(holder.Since).Abs() > time.Second || s.TTL > 50*time.Minute {
		t.Errorf("%+v, %v", s, err)
	}
}

// What an instance that took a grant over does not know of its holder, the one that made
// the grant puts right when it is back.
func TestLockReassertedByAnotherInstanceGetsItsHolderBack(t *testing.T) {
	server := servicestest.StartRedis(t)
	granterWay, extenderWay := servicestest.NewProxy(t, server.Addr), servicestest.NewProxy(t, server.Addr)
	granter, extender, other := openLockerAt(t, granterWay.Addr), openLockerAt(t, extenderWay.Addr), openLockerAt(t, server.Addr)
	holder := models.Holder{UserID: "1", Email: "alice@example.com", Reason: "review"}
	granterWay.Cut()
	extenderWay.Cut()
	servicestest.Eventually(t, func() bool { return !granter.redis.Available() && !extender.redis.Available() }, "Redis still counts as available")
	lock, err := granter.TryAcquire(t.Context(), Request{Resource: "process:1", Holder: holder})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := extender.Extend(t.Context(), lock.Claim, time.Minute); err != nil {
		t.Fatal(err)
	}
	extender.table.mu.Lock()
	extender.table.locks[lock.Resource].epoch = "forgotten"
	extender.table.mu.Unlock()
	extenderWay.Restore()
	servicestest.Within(t, 2*time.Second, extender.redis.Available, "the extender is not back")
	before, err := other.Status(t.Context(), lock.Resource)
	if err != nil || before.Grant != lock.Grant {
		t.Fatalf("not claimed: %+v, %v", before, err)
	}
	granterWay.Restore()
	servicestest.Within(t, 2*time.Second, granter.redis.Available, "the granter is not back")
	for _, l := range []*Locker{granter, extender, other} {
		s, err := l.Status(t.Context(), lock.Resource)
		if err != nil || s.Holder.Email != holder.Email || s.Holder.Reason != holder.Reason || *s.Fence != *before.Fence {
			t.Errorf("%+v, %v", s, err)
		}
	}
	page, _, err := other.List(t.Context(), models.Page{Limit: 10})
	if err != nil || len(page.Items) != 1 || page.Items[0].Holder.Email != holder.Email {
		t.Errorf("listed: %+v, %v", page.Items, err)
	}
	if _, err := extender.Release(t.Context(), lock.Claim); err != nil {
		t.Error(err)
	}
	if page, _, err := other.List(t.Context(), models.Page{Limit: 10}); err != nil || len(page.Items) != 0 {
		t.Errorf("listed after the release: %+v, %v", page.Items, err)
	}
}

// A waiter that was granted the lock without Redis had queued there before. However
// that grant ends, its place in the queue is gone.
func TestLockWaiterGrantedWithoutRedisLeavesTheQueue(t *testing.T) {
	t.Parallel()
	for how, row := range map[string]struct {
		ttl time.Duration
		end func(*Locker, Lock) error
	}{
		"held by another": {time.Minute, func(*Locker, Lock) error { return nil }},
		"given back":      {time.Minute, func(l *Locker, lock Lock) error { _, err := l.Release(t.Context(), lock.Claim); return err }},
		"forced": {time.Minute, func(l *Locker, lock Lock) error {
			_, err := l.ForceRelease(t.Context(), lock.Resource, nil)
			return err
		}},
		"its lease ended": {500 * time.Millisecond, func(l *Locker, lock Lock) error {
			servicestest.Eventually(t, func() bool {
				s, err := l.Status(t.Context(), lock.Resource)
				return err == nil && !s.Held
			}, "the lease does not end")
			return nil
		}},
		"another waiter took its place": {500 * time.Millisecond, func(l *Locker, lock Lock) error {
			_, err := l.Acquire(t.Context(), Request{Resource: lock.Resource, TTL: time.Minute})
			return err
		}},
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			server := servicestest.StartRedis(t)
			proxy := servicestest.NewProxy(t, server.Addr)
			holder, cutOff := openLockerAt(t, server.Addr), openLockerAt(t, proxy.Addr)
			const known = 3 * time.Second // the waiter believes in it so long
			held, err := holder.TryAcquire(t.Context(), Request{Resource: "process:1", TTL: known})
			if err != nil {
				t.Fatal(err)
			}
			waiting := func() int {
				s, err := holder.Status(t.Context(), "process:1")
				if err != nil {
					return -1
				}
				return s.Waiting
			}
			granted := make(chan Lock, 1)
			go func() {
				lock, err := cutOff.Acquire(t.Context(), Request{Resource: "process:1", TTL: row.ttl})
				if err != nil {
					t.Error(err)
				}
				granted <- lock
			}()
			servicestest.Eventually(t, func() bool { return waiting() == 1 }, "no waiter queued")
			proxy.Cut()
			if _, err := holder.Extend(t.Context(), held.Claim, time.Minute); err != nil {
				t.Fatal(err)
			}
			lock := <-granted
			if !lock.Degraded {
				t.Fatalf("%+v", lock)
			}
			if err := row.end(cutOff, lock); err != nil {
				t.Fatal(err)
			}
			proxy.Restore()
			servicestest.Eventually(t, func() bool { return waiting() == 0 }, "a holder waits behind itself")
			if _, err := holder.Check(t.Context(), held.Claim); err != nil {
				t.Errorf("the holder: %v", err)
			}
		})
	}
}
