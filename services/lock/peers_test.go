package lock

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// Whether an instance is alone decides who may have what is free after the server forgot.
func TestPeers(t *testing.T) {
	t.Parallel()
	t.Run("are expected until they were missed for a while", func(t *testing.T) {
		// One that is cut off shortly has not gone.
		server := servicestest.StartRedis(t)
		l := at(t, server.Addr, patient, Options{})
		subscribed := func(want string) {
			t.Helper()
			servicestest.Eventually(t, func() bool {
				return strings.HasSuffix(strings.TrimSpace(server.Do("PUBSUB", "NUMSUB", "test:ends")), want)
			}, "not subscribed, or still")
		}
		subscribed("1")
		var p peers
		look := func() bool { p.look(t.Context(), l.redis); return p.none() }
		if !look() {
			t.Error("another instance is expected before there was one")
		}
		other := at(t, server.Addr, patient, Options{})
		subscribed("2")
		if look() {
			t.Error("the other instance is not found")
		}
		if err := other.redis.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		subscribed("1")
		for n := range peersGone {
			if gone := look(); gone != (n == peersGone-1) {
				t.Errorf("missed %d times: gone: %t", n+1, gone)
			}
		}
	})

	t.Run("none: what is free can be had at once, and what is held cannot", func(t *testing.T) {
		t.Parallel()
		server := servicestest.StartRedis(t)
		l := at(t, server.Addr, patient, Options{})
		held := holdMany(t, []*Locker{l}, "held", 64)
		flush := func() { server.Do("FLUSHALL") }
		restart := func() { server.Kill(); gone(t, l); server.Start(); back(t, l) }
		for round, forget := range []func(){flush, restart, flush} {
			forget()
			var group errgroup.Group
			group.SetLimit(16)
			for i, lock := range held {
				group.Go(func() error {
					mine := fmt.Sprintf("free:%d:%d", round, i)
					taken, err := l.TryAcquire(t.Context(), request(mine, bob))
					if err != nil {
						return fmt.Errorf("round %d: %s is free: %w", round, mine, err)
					}
					if _, err := l.Release(t.Context(), taken.Claim); err != nil {
						return err
					}
					if _, err = l.TryAcquire(t.Context(), request(mine, bob)); err != nil {
						return fmt.Errorf("round %d: %s was given back: %w", round, mine, err)
					}
					_, err = l.TryAcquire(t.Context(), request(lock.Resource, bob))
					var refused *models.NotAcquiredError
					if !errors.As(err, &refused) || refused.Status.Holder.UserID != alice.UserID {
						return fmt.Errorf("round %d: %s is held by alice: %w", round, lock.Resource, err)
					}
					return nil
				})
			}
			if err := group.Wait(); err != nil {
				t.Fatal(err)
			}
			servicestest.Eventually(t, func() bool { return stillHeld(t, l, held) == len(held) }, "a lock is lost")
		}
	})

	t.Run("some: free locks are kept for holders once, in all shards", func(t *testing.T) {
		// And not from the first use of each shard on.
		t.Parallel()
		server := servicestest.StartRedis(t)
		all := instances(t, server, 2)
		acquainted(t, all...)
		giveBackMany(t, all, holdMany(t, all, "used", 64))
		server.Do("FLUSHALL")
		servicestest.Eventually(t, func() bool { return strings.Count(server.Do("KEYS", "*}fence"), "}fence") == shardCount }, "a shard has no epoch until it is used")
		servicestest.Eventually(t, func() bool { return server.Do("KEYS", "*}forgot") == "" }, "free locks wait for ever")
		for i := range 64 {
			take(t, all[0], request(fmt.Sprint("free:", i), alice))
		}
	})

	t.Run("some: locks reasserted in shards that Redis never knew keep none from free ones", func(t *testing.T) {
		t.Parallel()
		server := servicestest.StartRedis(t)
		l, other := openApart(t, server), openAt(t, server.Addr)
		acquainted(t, l.Locker, other)
		l.cut()
		for i := range 64 {
			take(t, l.Locker, request(fmt.Sprint("degraded:", i), alice))
		}
		l.restore()
		for i := range 64 {
			if taken := take(t, l.Locker, request(fmt.Sprint("free:", i), alice)); taken.Degraded {
				t.Fatalf("free:%d: degraded", i)
			}
		}
	})
}

// acquainted waits until instances know that they are not alone.
func acquainted(t testing.TB, all ...*Locker) {
	t.Helper()
	for _, l := range all {
		servicestest.Eventually(t, func() bool { return !l.peers.none() }, "the other instance is not found")
	}
}
