package lock

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/servicestest"
)

// The server forgets its locks while it can be reached: their holders reassert them.
func TestForgotten(t *testing.T) {
	t.Parallel()
	start := func(t *testing.T) (*servicestest.RedisServer, *Locker, *Locker) {
		t.Helper()
		t.Parallel()
		server := servicestest.StartRedis(t)
		return server, openAt(t, server.Addr), openAt(t, server.Addr)
	}
	t.Run("the holder has its lock at the next use", func(t *testing.T) {
		server, l, other := start(t)
		held := take(t, l, request("r", alice))
		for range 5 {
			server.Do("FLUSHALL")
			wantHolder(t, l, held)
			wantRefused(t, other, "r")
		}
	})
	t.Run("a heartbeat reasserts it before the holder hears that it is gone", func(t *testing.T) {
		server, l, _ := start(t)
		held := take(t, l, request("r", alice))
		server.Do("FLUSHALL")
		before, asked := l.table.epochOf(held.Claim), false
		if _, err := l.runHeld(t.Context(), "check", held.Claim, func() (reply, error) {
			got, err := l.run(t.Context(), l.scripts.status, "r")
			if !asked {
				servicestest.Eventually(t, func() bool { return l.table.epochOf(held.Claim) != before }, "it is not reasserted")
				got = reply{code: codeRefused, epoch: l.table.epochOf(held.Claim)} // the epoch had begun, and it was not there yet
			}
			asked = true
			return got, err
		}); err != nil {
			t.Error(err)
		}
		wantHolder(t, l, held)
	})
	t.Run("the holder's instance reasserts it by itself within 1 s, and its waiter waits on", func(t *testing.T) {
		server, l, other := start(t)
		held := take(t, l, request("r", alice))
		ctx, cancel := context.WithCancel(t.Context())
		granted := queueFor(ctx, t, l, request("r", bob))
		server.Do("FLUSHALL")
		servicestest.Within(t, time.Second, func() bool { return other.mustStatus(t, "r").Grant == held.Grant }, "it is not reasserted")
		waiting(t, other, "r", 1)
		cancel()
		if taken, ok := <-granted; ok {
			t.Errorf("the waiter has it: %+v", taken)
		}
	})
	t.Run("who asks the holder's instance is refused, however late it reasserts", func(t *testing.T) {
		server, l, _ := start(t)
		held := holdMany(t, []*Locker{l}, "r", 64)
		for _, lock := range held { // as after claimGrace in a new epoch
			server.Do("DEL", l.keys.of(lock.Resource)[0])
			l.table.mu.Lock()
			l.table.locks[lock.Resource].epoch = "one before"
			l.table.mu.Unlock()
			wantRefused(t, l, lock.Resource)
		}
	})
	t.Run("new locks in the shard do not hide that an old one is missing", func(t *testing.T) {
		server, l, other := start(t)
		all := inShard(3, 2000)
		old, next := take(t, l, request(all[0], alice)), 1
		servicestest.Eventually(t, func() bool {
			wantHolder(t, l, old)
			server.Do("FLUSHALL")
			fresh := openAt(t, server.Addr) // it does not know that there was anything
			for range 20 {
				next++
				if _, err := fresh.TryAcquire(t.Context(), request(all[next], bob)); err != nil {
					return false // a busy machine: another instance knows, and keeps free locks for holders
				}
			}
			return true
		}, "no new locks")
		servicestest.Within(t, time.Second, func() bool { return other.mustStatus(t, old.Resource).Grant == old.Grant }, "it is not reasserted")
	})
	for how, withoutRedis := range map[string]bool{"granted by Redis": false, "granted without it": true} {
		t.Run("a lock keeps its beginning, however often it is reasserted, "+how, func(t *testing.T) {
			// Answers say so, and it ends at the longest hold. Its fence grows.
			server, _, other := start(t)
			l := openApart(t, server)
			if withoutRedis {
				l.cut()
			}
			began := time.Now()
			held := take(t, l.Locker, request("r", alice))
			if withoutRedis {
				l.restore()
			}
			fence := int64(0)
			for range 10 {
				server.Do("FLUSHALL")
				extended := extend(t, l.Locker, held, 2*DefaultMaxHold)
				if extended.Degraded || *extended.Fence <= fence {
					t.Fatalf("%+v after fence %d", extended, fence)
				}
				fence = *extended.Fence
				off := 100*time.Millisecond + servicestest.Slack(began) // what the calls took may count as held
				if moved := extended.Holder.Since.Sub(held.Holder.Since); moved.Abs() > off {
					t.Errorf("it began %v later", moved)
				}
				if most := DefaultMaxHold - time.Since(began) + off; extended.TTL > most {
					t.Errorf("extended for %v, want at most %v", extended.TTL, most)
				}
			}
			giveBack(t, l.Locker, held)
			servicestest.Within(t, 2*claimGrace, func() bool { // or it could still be reasserted
				next, err := other.TryAcquire(t.Context(), request("r", bob))
				if err == nil && *next.Fence <= fence {
					t.Errorf("the next holder: %+v, after fence %d", next, fence)
				}
				return err == nil
			}, "no next holder")
		})
	}
	t.Run("a reassertion that fails says nothing about the lock", func(t *testing.T) {
		server, _, _ := start(t)
		way := servicestest.NewProxy(t, server.Addr)
		l := at(t, way.Addr, impatient, Options{OnRedisDown: models.OnRedisDownOpen})
		takeInRedis(t, l, request("warm", alice))
		err := l.WithLock(t.Context(), request("r", alice), func(ctx context.Context, taken Lock) error {
			lease := l.groups.in(shardOf("r"))[0]
			for range 5 { // a heartbeat may have reasserted it before
				way.SetLatency(impatient / 3) // enough for one call, not for two
				server.Do("FLUSHALL")
				if _, err := l.Check(redis.WithBudget(ctx), lease.lock.Claim); err != nil {
					t.Fatalf("the holder's use: %v", err)
				}
				server.Do("FLUSHALL")
				_ = l.verifyLeases(ctx, shardOf("r"))
				if err := ctx.Err(); err != nil {
					t.Fatal(context.Cause(ctx))
				}
				way.SetLatency(0)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	t.Run("a token holds, and keeps the fence of its grant", func(t *testing.T) {
		// Another may have written before the lock was reasserted: a guard refuses that fence then.
		server, l, _ := start(t)
		signer, err := NewTokenSigner([]string{"0123456789abcdef0123456789abcdef"})
		if err != nil {
			t.Fatal(err)
		}
		tokens := NewTokens(l, signer)
		taken := take(t, l, request("r", alice))
		token, err := tokens.Sign(taken, "1", 7)
		if err != nil {
			t.Fatal(err)
		}
		server.Do("FLUSHALL")
		servicestest.Eventually(t, func() bool {
			s := l.mustStatus(t, "r")
			return s.Grant == taken.Grant && *s.Fence > *taken.Fence
		}, "it is not reasserted")
		grant, degraded, err := tokens.Verify(t.Context(), "r", "1", token)
		if err != nil || degraded || grant.LockClaim != taken.Claim || grant.Version != 7 || grant.Fence == nil || *grant.Fence != *taken.Fence {
			t.Errorf("%+v, %t, %v", grant, degraded, err)
		}
		if _, _, err := tokens.Verify(t.Context(), "r", "1", ""); !errors.Is(err, models.ErrLockTokenRequired) {
			t.Errorf("no token: %v", err)
		}
	})
	t.Run("leases are verified until Redis has answered about them", func(t *testing.T) {
		_, l, _ := start(t)
		err := l.WithLock(t.Context(), request("r", alice), func(ctx context.Context, _ Lock) error {
			shard := shardOf("r")
			signs := leaseSigns{forced: "of this test alone"}
			heard, held := map[int]leaseSigns{shard: signs}, [shardCount]bool{}
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
	})
}

// Whatever an instance has to bring back to Redis, and however long that takes, it says in time
// that it waits elsewhere: else its waiters would be passed over.
func TestHeartbeatsGoOnBesideReassertions(t *testing.T) {
	t.Parallel()
	const full, waited, many = 3, 4, 700 // reasserted in so many rounds that they take 1 s
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
			t.Parallel()
			server := servicestest.StartRedis(t)
			l, other := openApart(t, server), openAt(t, server.Addr)
			held := takeAll(t, l.Locker, inShard(full, many))
			awaited := inShard(waited, 1)[0]
			take(t, other, request(awaited, alice))
			ctx, cancel := context.WithCancel(t.Context())
			granted := queueFor(ctx, t, l.Locker, request(awaited, bob))
			l.way.SetLatency(60 * time.Millisecond)
			start, longest := time.Now(), time.Duration(0)
			lose(t, server, l.Locker, held)
			servicestest.Eventually(t, func() bool {
				longest = max(longest, silentFor(t, server, l.Locker, awaited))
				return stillHeld(t, other, held) == many && l.inSync()
			}, "not all grants are back in Redis")
			took := time.Since(start)
			if took < time.Second {
				t.Errorf("all are back after %v: that was too quick to prove anything", took)
			}
			if 2*longest > took { // a heartbeat behind all reassertions is silent all the time
				t.Errorf("silent for %v of %v", longest, took)
			}
			cancel()
			<-granted
		})
	}
}

// takeAll takes many locks at a time.
func takeAll(t *testing.T, l *Locker, resources []string) (held []Lock) {
	t.Helper()
	var mu sync.Mutex
	atOnce(resources, func(resource string) {
		taken, err := l.TryAcquire(t.Context(), request(resource, alice))
		if err != nil || taken.Degraded {
			t.Errorf("%s: %+v, %v", resource, taken, err)
		}
		mu.Lock()
		defer mu.Unlock()
		held = append(held, taken)
	})
	if t.Failed() {
		t.FailNow()
	}
	return held
}
