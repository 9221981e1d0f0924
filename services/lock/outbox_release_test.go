package lock_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gatehouse/models"
	"gatehouse/services/lock"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// What a closed Locker could not give back is in the outbox, not held: it is neither reasserted
// where the server has forgotten it, nor logged as a conflict where the release came through.
func TestLockReleasedInAnOutageStaysReleased(t *testing.T) {
	t.Parallel()
	for fault, strike := range map[string]struct {
		down, up func(*servicestest.RedisServer)
	}{
		"killed": {(*servicestest.RedisServer).Kill, (*servicestest.RedisServer).Start},
		"frozen": {(*servicestest.RedisServer).Freeze, (*servicestest.RedisServer).Thaw},
	} {
		t.Run(fault, func(t *testing.T) {
			server := servicestest.StartRedis(t)
			rdb := redistest.At(t, server.Addr, redis.Options{Timeout: 300 * time.Millisecond})
			registry := prometheus.NewRegistry()
			l := lock.New(rdb, lock.Options{Logger: redistest.Quiet(), Metrics: registry})
			taken := mustAcquireInRedis(t, l, request("process:1", alice))
			err := l.WithLock(t.Context(), request("process:2", alice), func(context.Context, lock.Lock) error {
				strike.down(server)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := l.Release(t.Context(), taken.Claim); !errors.Is(err, models.ErrUnavailable) {
				t.Fatalf("release: %v", err)
			}
			gone(t, rdb)
			strike.up(server)
			back(t, rdb)
			for _, resource := range []string{"process:1", "process:2"} {
				if s, err := l.Status(t.Context(), resource); err != nil || s.Held {
					t.Errorf("%s is held without a holder: %+v, %v", resource, s, err)
				}
			}
			wantCounters(t, registry, map[string]float64{"conflicts": 0})
		})
	}
}

// Two forces on one resource in an outage: the lock from before it and the one granted in
// it are both over when Redis returns.
func TestLockForcedTwiceInAnOutage(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	proxy := servicestest.NewProxy(t, server.Addr)
	rdb := redistest.New(t, proxy.Addr)
	l := lock.New(rdb, lock.Options{OnRedisDown: models.OnRedisDownOpen, Logger: redistest.Quiet()})
	mustAcquireInRedis(t, l, request("process:1", alice))
	proxy.Cut()
	gone(t, rdb)
	for range 2 {
		if _, err := l.ForceRelease(t.Context(), "process:1", nil); err != nil {
			t.Fatal(err)
		}
		mustAcquire(t, l, request("process:1", bob))
	}
	if _, err := l.ForceRelease(t.Context(), "process:1", nil); err != nil {
		t.Fatal(err)
	}
	proxy.Restore()
	back(t, rdb)
	if s, err := l.Status(t.Context(), "process:1"); err != nil || s.Held {
		t.Errorf("a forced lock came back: %+v, %v", s, err)
	}
}

// A degraded grant of one instance, given back at another: whichever returns first
// that Redis is back, the lock is free.
func TestLockGivenBackAtAnotherInstance(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	for _, row := range []struct{ extended, holderFirst bool }{{false, true}, {false, false}, {true, true}, {true, false}} {
		proxies := []*servicestest.Proxy{servicestest.NewProxy(t, server.Addr), servicestest.NewProxy(t, server.Addr)}
		var locks []*lock.Locker
		var clients []*redis.Client
		for _, proxy := range proxies {
			client := redistest.New(t, proxy.Addr)
			clients = append(clients, client)
			locks = append(locks, lock.New(client, lock.Options{OnRedisDown: models.OnRedisDownOpen, Logger: redistest.Quiet()}))
			proxy.Cut()
			gone(t, client)
		}
		taken := mustAcquire(t, locks[0], request("process:1", alice))
		if row.extended { // at the other instance, which takes it over
			if _, err := locks[1].Extend(t.Context(), taken.Claim, time.Minute); err != nil {
				t.Fatal(err)
			}
		}
		if degraded, err := locks[1].Release(t.Context(), taken.Claim); err != nil || !degraded {
			t.Fatal(degraded, err)
		}
		order := []int{1, 0}
		if row.holderFirst {
			order = []int{0, 1}
		}
		for _, i := range order {
			proxies[i].Restore()
			back(t, clients[i])
		}
		s, err := lockers(t, server, 1, lock.Options{})[0].Status(t.Context(), "process:1")
		if err != nil || s.Held {
			t.Errorf("%+v: locked without a holder: %+v, %v", row, s, err)
		}
	}
}
