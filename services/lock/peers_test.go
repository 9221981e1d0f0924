package lock_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"gatehouse/models"
	"gatehouse/services/lock"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// Where one instance alone uses a Redis that forgets, what is free can be had at once, and what
// is held cannot: no other instance could reassert it.
func TestLocksOfOneInstanceWhileTheServerForgets(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	rdb := redistest.At(t, server.Addr, redis.Options{Timeout: time.Second})
	l := lock.New(rdb, lock.Options{OnRedisDown: models.OnRedisDownClosed, Logger: redistest.Quiet()})
	held := holdMany(t, []*lock.Locker{l}, "held", 160)
	for round, forget := range []func(){
		func() { server.Do("FLUSHALL") },
		func() {
			server.Kill()
			servicestest.Eventually(t, func() bool { return !rdb.Available() }, "Redis still counts as available")
			server.Start()
			servicestest.Eventually(t, rdb.Available, "Redis does not return")
		},
		func() { server.Do("FLUSHALL") },
	} {
		forget()
		var group errgroup.Group
		group.SetLimit(16)
		for i := range held {
			group.Go(func() error {
				mine := fmt.Sprintf("free:%d:%d", round, i)
				taken, err := l.TryAcquire(t.Context(), lock.Request{Resource: mine, Holder: models.Holder{UserID: "new"}})
				if err != nil || taken.Degraded {
					return fmt.Errorf("round %d: %s is free: degraded %t, %w", round, mine, taken.Degraded, err)
				}
				if _, err := l.Release(t.Context(), taken.Claim); err != nil {
					return err
				}
				if taken, err = l.TryAcquire(t.Context(), lock.Request{Resource: mine, Holder: models.Holder{UserID: "next"}}); err != nil {
					return fmt.Errorf("round %d: %s was given back: %w", round, mine, err)
				}
				_, err = l.TryAcquire(t.Context(), lock.Request{Resource: held[i].Resource, Holder: models.Holder{UserID: "new"}})
				var refused *models.NotAcquiredError
				if !errors.As(err, &refused) || refused.Status.Holder.UserID != alice.UserID {
					return fmt.Errorf("round %d: %s is held by alice: %w", round, held[i].Resource, err)
				}
				_, err = l.Release(t.Context(), taken.Claim)
				return err
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		servicestest.Eventually(t, func() bool { return stillHeld(t, l, held) == len(held) }, "a lock is lost")
	}
}

// Grants made without Redis in shards that it never knew are reasserted there without keeping
// others from what is free: nothing was forgotten.
func TestLocksReassertedInNewShardsKeepNoneFromFreeOnes(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	rdb := redistest.At(t, server.Addr, redis.Options{Timeout: time.Second})
	open := lock.Options{OnRedisDown: models.OnRedisDownOpen, Logger: redistest.Quiet()}
	l := lock.New(rdb, open)
	lock.New(redistest.At(t, server.Addr, redis.Options{Timeout: time.Second}), open)
	servicestest.Eventually(t, func() bool { return !l.Alone() }, "the other instance is not found")
	server.Freeze()
	var degraded []string
	servicestest.Eventually(t, func() bool {
		resource := fmt.Sprint("degraded:", len(degraded))
		taken, err := l.TryAcquire(t.Context(), lock.Request{Resource: resource, Holder: alice})
		if err != nil || !taken.Degraded {
			t.Fatalf("%s: degraded %t, %v", resource, taken.Degraded, err)
		}
		degraded = append(degraded, resource)
		return len(degraded) >= 64 && !rdb.Available()
	}, "Redis still counts as available")
	server.Thaw()
	servicestest.Eventually(t, rdb.Available, "Redis does not return")
	for i := range 64 {
		taken, err := l.TryAcquire(t.Context(), lock.Request{Resource: fmt.Sprint("free:", i), Holder: alice})
		if err != nil || taken.Degraded {
			t.Fatalf("free:%d: degraded %t, %v", i, taken.Degraded, err)
		}
	}
}

// After the server forgot, free locks are kept for holders once, and not from the first use of
// each shard on: also of shards in which no lock was held.
func TestLocksWaitForHoldersOnlyOnce(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	var all []*lock.Locker
	for range 2 {
		all = append(all, lock.New(redistest.At(t, server.Addr, redis.Options{Timeout: time.Second}), lock.Options{Logger: redistest.Quiet()}))
	}
	servicestest.Eventually(t, func() bool { return !all[0].Alone() }, "the other instance is not found")
	giveBackMany(t, all, holdMany(t, all, "used", 160))
	server.Do("FLUSHALL")
	servicestest.Eventually(t, func() bool { return strings.Count(server.Do("KEYS", "*}fence"), "}fence") == 16 }, "a shard has no epoch until it is used")
	servicestest.Eventually(t, func() bool { return server.Do("KEYS", "*}forgot") == "" }, "free locks wait for ever")
	for i := range 64 {
		if taken, err := all[0].TryAcquire(t.Context(), lock.Request{Resource: fmt.Sprint("free:", i), Holder: alice}); err != nil || taken.Degraded {
			t.Fatalf("free:%d: degraded %t, %v", i, taken.Degraded, err)
		}
	}
}

// An instance is alone when it has not found another one for a while: one that is cut off
// shortly has not gone.
func TestLockPeersAreExpectedForAWhile(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	l := lock.New(redistest.At(t, server.Addr, redis.Options{Timeout: time.Second}), lock.Options{Logger: redistest.Quiet()})
	if !l.Alone() {
		t.Fatal("another instance is expected before there was one")
	}
	other := redistest.At(t, server.Addr, redis.Options{Timeout: time.Second})
	lock.New(other, lock.Options{Logger: redistest.Quiet()})
	servicestest.Eventually(t, func() bool { return !l.Alone() }, "the other instance is not found")
	if err := other.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	servicestest.Eventually(t, l.Alone, "an instance that has gone is expected for ever")
}
