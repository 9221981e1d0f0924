package lock

import (
	"context"
	"errors"
	"fmt"
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

// inShard are so many resources of a shard.
func inShard(shard, n int) (resources []string) {
	for i := 0; len(resources) < n; i++ {
		if resource := fmt.Sprintf("process:%d", i); shardOf(resource) == shard {
			resources = append(resources, resource)
		}
	}
	return resources
}

// Whatever an instance has to bring back to Redis, and however long that takes, it
// says in time that it waits elsewhere: else its waiters would be passed over.
func TestLockHeartbeatsGoOnWhileGrantsAreReasserted(t *testing.T) {
	t.Parallel()
	const full, waited, most = 3, 4, time.Second
	const many = 1300 // claimed in more rounds than fit into 2*most
	const silence = `local clock, last = redis.call('TIME'), redis.call('ZSCORE', KEYS[1], ARGV[1])
		return string.format('%d', last and clock[1] * 1000 + clock[2] / 1000 - last or 0)`
	for how, lose := range map[string]func(*testing.T, *servicestest.RedisServer, *Locker, []Lock){
		"forgotten": func(_ *testing.T, server *servicestest.RedisServer, _ *Locker, _ []Lock) {
			server.Do("EVAL", "redis.call('DEL', unpack(redis.call('KEYS', 'test:{3}*')))", "0")
		},
		"extended without Redis": func(t *testing.T, _ *servicestest.RedisServer, l *Locker, locks []Lock) {
			for _, lock := range locks {
				if _, err := l.Extend(budgetSpent(t.Context()), lock.Claim, time.Hour); err != nil {
					t.Fatal(err)
				}
			}
		},
	} {
		t.Run(how, func(t *testing.T) {
			server := servicestest.StartRedis(t)
			proxy := servicestest.NewProxy(t, server.Addr)
			l, other := patientLockerAt(t, proxy.Addr), patientLockerAt(t, server.Addr)
			var held []Lock
			for _, resource := range inShard(full, many) {
				lock, err := l.TryAcquire(t.Context(), Request{Resource: resource, TTL: time.Minute})
				if err != nil {
					t.Fatal(err)
				}
				held = append(held, lock)
			}
			awaited := inShard(waited, 1)[0]
			if _, err := other.TryAcquire(t.Context(), Request{Resource: awaited, TTL: time.Minute}); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			left := make(chan error, 1)
			go func() {
				_, err := l.Acquire(ctx, Request{Resource: awaited})
				left <- err
			}()
			servicestest.Eventually(t, func() bool {
				s, err := other.Status(t.Context(), awaited)
				return err == nil && s.Waiting == 1
			}, "no waiter queued")
			proxy.SetLatency(60 * time.Millisecond)
			start, longest := time.Now(), 0
			lose(t, server, l, held)
			servicestest.Eventually(t, func() bool {
				ms, err := strconv.Atoi(strings.TrimSpace(server.Do("EVAL", silence, "1", l.redis.Key("{4}instances"), l.instance)))
				if err != nil {
					t.Fatal(err)
				}
				longest = max(longest, ms)
				locks, _, err := other.List(t.Context(), models.Page{Limit: 2 * many})
				standing := 0
				for _, lock := range locks.Items {
					if shardOf(lock.Resource) == full && lock.TTL > 0 {
						standing++
					}
				}
				return err == nil && standing == len(held) && !anyDegraded(l)
			}, "not all grants are back in Redis")
			took := time.Since(start)
			t.Logf("%d claims took %v; the longest silence was %d ms", many, took.Round(time.Millisecond), longest)
			if took < 2*most {
				t.Error("that was too quick to prove anything")
			}
			if 2*longest > int(took.Milliseconds()) { // a heartbeat behind all claims is silent all the time
				t.Errorf("silent for %d ms of %v", longest, took)
			}
			cancel()
			if err := <-left; !errors.Is(err, models.ErrNotAcquired) {
				t.Error(err)
			}
		})
	}
}

// patientLockerAt works without Redis only if a call was not sent: a busy machine is no
// outage.
func patientLockerAt(t *testing.T, addr string) *Locker {
	t.Helper()
	rdb := redistest.At(t, addr, redis.Options{Timeout: 10 * time.Second})
	return New(rdb, Options{OnRedisDown: models.OnRedisDownOpen, Logger: slog.New(slog.DiscardHandler)})
}

func anyDegraded(l *Locker) bool {
	for _, known := range l.table.living(time.Now(), anyLock) {
		if known.lock.Degraded {
			return true
		}
	}
	return false
}

// What calls for a look at the leases calls for it until Redis has answered about them.
func TestLockLeasesAreVerifiedUntilRedisHasAnswered(t *testing.T) {
	l := patientLockerAt(t, servicestest.StartRedis(t).Addr)
	err := l.WithLock(t.Context(), Request{Resource: "process:1", TTL: time.Minute}, func(ctx context.Context, lock Lock) error {
		shard := shardOf(lock.Resource)
		signs := leaseSigns{forced: "of this test alone"}
		heard := map[int]leaseSigns{shard: signs}
		held := [shardCount]bool{}
		held[shard] = true
		verified := func() bool { return l.shards.get(shard).verified == signs }
		without, cancel := context.WithCancel(ctx)
		cancel()
		l.follow(without, heard, held)
		if verified() {
			t.Error("Redis did not answer, and is not asked again")
		}
		servicestest.Eventually(t, func() bool { // a heartbeat may have verified as of its own signs since
			l.follow(ctx, heard, held)
			return verified()
		}, "Redis answered, and is asked again")
		return ctx.Err()
	})
	if err != nil {
		t.Error(err)
	}
}

// A reassertion that fails says nothing about the lock: it is neither refused nor lost.
func TestLockWhoseReassertionFailsIsNotLost(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	proxy := servicestest.NewProxy(t, server.Addr)
	l := openLockerAt(t, proxy.Addr)
	err := l.WithLock(t.Context(), Request{Resource: "process:1", TTL: time.Minute}, func(ctx context.Context, lock Lock) error {
		lease := l.groups.in(shardOf(lock.Resource))[0]
		for range 10 { // a beat may have claimed it before
			proxy.SetLatency(30 * time.Millisecond) // enough for one call, not for two
			server.Do("FLUSHALL")
			if _, err := l.Check(redis.WithBudget(ctx), lease.lock.Claim); err != nil {
				t.Fatalf("the holder's use: %v", err)
			}
			server.Do("FLUSHALL")
			_ = l.verifyLeases(ctx, shardOf(lock.Resource))
			if err := ctx.Err(); err != nil {
				t.Fatal(context.Cause(ctx))
			}
			proxy.SetLatency(0)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
