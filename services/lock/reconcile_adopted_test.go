package lock

import (
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// An instance that is cut off takes over what it extends. What ended meanwhile where
// it was granted stays ended: it would be locked without a holder.
func TestLockAdoptedThenEndedElsewhereStaysEnded(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"release", "force"} {
		t.Run(how, func(t *testing.T) {
			server := servicestest.StartRedis(t)
			proxy := servicestest.NewProxy(t, server.Addr)
			granter, cutOff := openLockerAt(t, server.Addr), openLockerAt(t, proxy.Addr)
			lock, err := granter.TryAcquire(t.Context(), Request{Resource: "process:1"})
			if err != nil {
				t.Fatal(err)
			}
			servicestest.Eventually(t, func() bool {
				return cutOff.shards.get(shardOf(lock.Resource)).epoch != ""
			}, "no heartbeat of the shard")
			proxy.Cut()
			servicestest.Within(t, time.Second, func() bool { return !cutOff.redis.Available() }, "Redis still counts as available")
			if _, err := cutOff.Extend(t.Context(), lock.Claim, time.Minute); err != nil {
				t.Fatal(err)
			}
			if how == "force" {
				_, err = granter.ForceRelease(t.Context(), lock.Resource, nil)
			} else {
				_, err = granter.Release(t.Context(), lock.Claim)
			}
			if err != nil {
				t.Fatal(err)
			}
			proxy.Restore()
			servicestest.Eventually(t, func() bool {
				return cutOff.redis.Available() && len(cutOff.table.living(time.Now(), anyLock)) == 0
			}, "the grant that was taken over is still believed")
			if s, err := granter.Status(t.Context(), lock.Resource); err != nil || s.Held {
				t.Errorf("locked without a holder: %+v, %v", s, err)
			}
		})
	}
}

func openLockerAt(t *testing.T, addr string) *Locker {
	t.Helper()
	return New(redistest.At(t, addr, redis.Options{}), Options{OnRedisDown: models.OnRedisDownOpen, Logger: slog.New(slog.DiscardHandler)})
}

// The instance that ended a grant without Redis and the one that extended it without
// Redis return one after the other to a server that no longer has it: neither does the
// one know of the other, nor can the server know that the grant was not lost.
func TestLockEndedInAnOutageIsNotReassertedByOneThatExtendedIt(t *testing.T) {
	t.Parallel()
	for how, end := range map[string]func(*Locker, Lock) error{
		"release": func(l *Locker, lock Lock) error { _, err := l.Release(t.Context(), lock.Claim); return err },
		"force": func(l *Locker, lock Lock) error {
			_, err := l.ForceRelease(t.Context(), lock.Resource, nil)
			return err
		},
	} {
		for after, lose := range map[string]func(*testing.T, *servicestest.RedisServer){
			"emptied": func(_ *testing.T, server *servicestest.RedisServer) { server.Do("FLUSHALL") },
			"lease over": func(t *testing.T, server *servicestest.RedisServer) {
				servicestest.Eventually(t, func() bool {
					return strings.TrimSpace(server.Do("KEYS", "*lock:process:1")) == ""
				}, "the lease does not end in Redis")
			},
		} {
			t.Run(how+"/"+after, func(t *testing.T) {
				server := servicestest.StartRedis(t)
				makersWay, extendersWay := servicestest.NewProxy(t, server.Addr), servicestest.NewProxy(t, server.Addr)
				maker, extender := openLockerAt(t, makersWay.Addr), openLockerAt(t, extendersWay.Addr)
				lock, err := maker.TryAcquire(t.Context(), Request{Resource: "process:1", TTL: 3 * time.Second})
				if err != nil {
					t.Fatal(err)
				}
				makersWay.Cut()
				extendersWay.Cut()
				servicestest.Eventually(t, func() bool { return !maker.redis.Available() && !extender.redis.Available() }, "Redis still counts as available")
				if _, err := extender.Extend(t.Context(), lock.Claim, time.Minute); err != nil {
					t.Fatal(err)
				}
				if err := end(maker, lock); err != nil {
					t.Fatal(err)
				}
				lose(t, server)
				makersWay.Restore()
				servicestest.Within(t, 2*time.Second, maker.redis.Available, "the maker is not back")
				extendersWay.Restore()
				servicestest.Within(t, 2*time.Second, extender.redis.Available, "the extender is not back")
				if s, err := maker.Status(t.Context(), lock.Resource); err != nil || s.Held {
					t.Errorf("locked without a holder: %+v, %v", s, err)
				}
			})
		}
	}
}

// A force that Redis has not seen is kept as long as an instance can reassert the grant, and no
// longer.
func TestLockForceIsKeptAsLongAsTheGrantCanBeReasserted(t *testing.T) {
	for later, want := range map[time.Duration]int{2 * time.Minute: 1, time.Hour + 2*time.Minute: 0} {
		start := time.Now()
		table := newLocalTable(time.Hour, time.Now)
		claim := Claim{Resource: "process:1", Grant: "g", Token: "t"}
		if _, refused := table.acquire(start, claim, models.Holder{}, time.Second, false); refused != nil {
			t.Fatal(refused)
		}
		if _, err := table.force(start, "process:1", nil, ""); err != nil {
			t.Fatal(err)
		}
		table.sweep(start.Add(later))
		if got := len(table.outbox); got != want {
			t.Errorf("after %v %d forces are in the outbox, want %d", later, got, want)
		}
	}
}

// Whether a lease ended by itself is known before it is reasserted, however many others
// of the shard did before it.
func TestLockIsReassertedBehindManyLeasesThatEnded(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	proxy := servicestest.NewProxy(t, server.Addr)
	l := patientLockerAt(t, proxy.Addr)
	shard := shardOf("process:1")
	for i, others := 2, 0; others < 150; i++ {
		if resource := "process:" + strconv.Itoa(i); shardOf(resource) == shard {
			if _, err := l.TryAcquire(t.Context(), Request{Resource: resource, TTL: 3 * time.Second}); err != nil {
				t.Fatal(err)
			}
			others++
		}
	}
	lock, err := l.TryAcquire(t.Context(), Request{Resource: "process:1", TTL: 3 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	proxy.Cut()
	servicestest.Eventually(t, func() bool { return !l.redis.Available() }, "Redis still counts as available")
	if _, err := l.Extend(t.Context(), lock.Claim, time.Minute); err != nil {
		t.Fatal(err)
	}
	servicestest.Eventually(t, func() bool { return strings.TrimSpace(server.Do("KEYS", "*lock:*")) == "" }, "the leases do not end in Redis")
	if left := strings.TrimSpace(server.Do("ZCARD", l.keys[shard].index)); left != "151" {
		t.Fatalf("%s leases to pass on: nothing is proven", left)
	}
	proxy.Restore()
	servicestest.Within(t, 2*time.Second, l.redis.Available, "not back")
	if degraded, err := l.Check(t.Context(), lock.Claim); err != nil || degraded {
		t.Errorf("lost, and no other holder took it: %v, %v", degraded, err)
	}
}

// Without Redis two instances can grant one lock to one token: a client that repeats
// its request is sent to either. Whoever returns first keeps it, and the other does not
// give it back by the token that both have.
func TestLockOfOneTokenGrantedByTwoInstancesIsKept(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	var ways []*servicestest.Proxy
	var all []*Locker
	var grants []Lock
	req := Request{Resource: "process:1", Token: newToken(), TTL: time.Minute}
	for range 2 {
		way := servicestest.NewProxy(t, server.Addr)
		ways, all = append(ways, way), append(all, openLockerAt(t, way.Addr))
	}
	for i, l := range all {
		ways[i].Cut()
		servicestest.Eventually(t, func() bool { return !l.redis.Available() }, "Redis still counts as available")
		lock, err := l.TryAcquire(t.Context(), req)
		if err != nil || !lock.Degraded {
			t.Fatal(lock, err)
		}
		grants = append(grants, lock)
	}
	for i, l := range all {
		ways[i].Restore()
		servicestest.Within(t, 2*time.Second, l.redis.Available, "not back")
	}
	if _, err := all[0].Check(t.Context(), grants[0].Claim); err != nil {
		t.Errorf("the first to return: %v", err)
	}
	if _, err := all[1].Check(t.Context(), grants[1].Claim); !errors.Is(err, models.ErrNotHeld) {
		t.Errorf("the second: %v", err)
	}
	if s, err := all[1].Status(t.Context(), "process:1"); err != nil || s.Grant != grants[0].Grant {
		t.Errorf("held: %+v, %v", s, err)
	}
}
