package lock

import (
	"context"
	"errors"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/servicestest"
)

func TestQueue(t *testing.T) {
	server := servicestest.StartRedis(t)
	all := instances(t, server, 3)
	l, other := all[0], all[1]

	t.Run("is first come, first served, over all instances", func(t *testing.T) {
		wantQueueOrder(t, all, "order")
		if keys := server.Do("KEYS", "*queue:order"); keys != "" {
			t.Errorf("left behind: %s", keys)
		}
	})

	t.Run("is left by a waiter that gives up", func(t *testing.T) {
		held := take(t, l, request("given up", alice))
		ctx, cancel := context.WithCancelCause(t.Context())
		impatience := errors.New("impatient")
		go func() {
			waiting(t, l, "given up", 1)
			cancel(impatience)
		}()
		_, err := other.Acquire(ctx, request("given up", bob))
		var refused *models.NotAcquiredError
		if !errors.As(err, &refused) || refused.Status.Holder.UserID != alice.UserID || !errors.Is(err, impatience) {
			t.Errorf("given up: %v", err)
		}
		if s := l.mustStatus(t, "given up"); s.Waiting != 0 {
			t.Errorf("still %d waiting", s.Waiting)
		}
		giveBack(t, l, held)
		take(t, l, request("given up", alice))
	})

	t.Run("is not overtaken by a newcomer at the end of a lease", func(t *testing.T) {
		take(t, l, request("newcomer", alice))
		queueUp(t, other, request("newcomer", bob))
		heard(t, server, other, "newcomer", -time.Minute) // alive, however long the next line takes
		server.Do("DEL", l.keys.of("newcomer")[0])        // as at its end
		wantRefused(t, all[2], "newcomer")
	})

	t.Run("is left by a silent waiter that asks before its next heartbeat", func(t *testing.T) {
		held := take(t, l, request("silent", alice))
		waiter := queueUp(t, other, request("silent", bob))
		heard(t, server, other, "silent", time.Second)
		giveBack(t, l, held)
		if got, err := other.runAcquire(t.Context(), waiter, true); err != nil || got.code != codeDone {
			t.Fatalf("not granted: %+v, %v", got, err)
		}
		if s := l.mustStatus(t, "silent"); s.Grant != waiter.grant || s.Waiting != 0 {
			t.Errorf("granted, and waiting behind itself: %+v", s)
		}
		giveBack(t, other, Lock{Claim: waiter.claim()})
		wantFree(t, l, "silent")
	})

	t.Run("grants a waiter's lock to another request with its token", func(t *testing.T) {
		cutOff := openApart(t, server)
		held := take(t, l, request("token", alice))
		req := request("token", bob)
		req.Token = newToken()
		ctx, cancel := context.WithCancel(t.Context())
		granted := queueFor(ctx, t, cutOff.Locker, req)
		cutOff.way.Stall()
		giveBack(t, l, held)
		wantHolder(t, l, take(t, l, req))
		cancel()
		cutOff.way.Resume()
		<-granted
	})
}

// wantQueueOrder lets waiters of all instances queue one after the other, and wants them to be served
// in that order, and no newcomer before them.
func wantQueueOrder(t *testing.T, all []*Locker, resource string) {
	t.Helper()
	held := take(t, all[0], request(resource, alice))
	const waiters = 6
	order := make(chan int, waiters)
	var wg sync.WaitGroup
	for i := range waiters {
		l := all[i%len(all)]
		wg.Go(func() {
			taken, err := l.Acquire(t.Context(), request(resource, bob))
			if err != nil {
				t.Error(err)
				return
			}
			if order <- i; i == 0 {
				wantRefused(t, all[0], resource)
			}
			if _, err := l.Release(t.Context(), taken.Claim); err != nil {
				t.Error(err)
			}
		})
		waiting(t, all[0], resource, i+1)
	}
	giveBack(t, all[0], held)
	wg.Wait()
	close(order)
	want := 0
	for got := range order {
		if got != want {
			t.Errorf("%s: waiter %d served, want %d", resource, got, want)
		}
		want++
	}
}

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

// instancesKey is where Redis keeps the last heartbeats in a resource's shard.
func instancesKey(l *Locker, resource string) string {
	return strings.TrimSuffix(l.keys.of(resource)[2], "locks") + "instances"
}

// heard makes the instance's last heartbeat in a resource's shard so long ago.
func heard(t *testing.T, server *servicestest.RedisServer, l *Locker, resource string, ago time.Duration) {
	t.Helper()
	const beat = `local t = redis.call('TIME')
		return redis.call('ZADD', KEYS[1], 'XX', 'CH', math.floor(t[1] * 1000 + t[2] / 1000) - ARGV[2], ARGV[1])`
	if n := server.Do("EVAL", beat, "1", instancesKey(l, resource), l.instance, milliseconds(ago)); n != "1" {
		t.Fatalf("no heartbeat changed: %s", n)
	}
}

// A waiter whose instance is gone costs the one behind it at most 240 ms from that instance's last
// heartbeat, and a round trip.
func TestQueuePassesADeadWaiterOver(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	l := at(t, server.Addr, patient, Options{})
	for range 2 {
		dead := openApart(t, server)
		held := take(t, l, request("r", alice))
		ctx, cancel := context.WithCancel(t.Context())
		first := queueFor(ctx, t, dead.Locker, request("r", alice))
		second := queueFor(t.Context(), t, l, request("r", bob))
		dead.way.Stall() // the instance that waits first is gone
		start := time.Now()
		giveBack(t, l, held)
		next := <-second
		if took := time.Since(start); took > 280*time.Millisecond+servicestest.Slack(start) {
			t.Errorf("the next waiter has the lock after %v", took)
		}
		giveBack(t, l, next)
		cancel()
		dead.way.Resume()
		<-first
	}
}

// No call extends or releases a crashed holder's lock: the next waiter has it within 100 ms of the
// end of the lease.
func TestQueueFollowsACrashedHolder(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, rdb *redis.Client) {
		l := New(rdb, Options{})
		for range 2 {
			held := take(t, l, requestFor("r", alice, 300*time.Millisecond))
			next, err := l.Acquire(t.Context(), request("r", bob))
			if late := time.Since(held.ExpiresAt); err != nil || late > 100*time.Millisecond+servicestest.Slack(held.ExpiresAt) {
				t.Errorf("granted %v after the lease ended: %v", late, err)
			}
			giveBack(t, l, next)
		}
	})
}

// A grant's message that is lost costs at most 100 ms: the next heartbeat brings it.
func TestQueueWithoutTheGrantsMessage(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	l, waiter := at(t, server.Addr, patient, Options{}), at(t, server.Addr, patient, Options{})
	for range 3 {
		held := take(t, l, request("r", alice))
		granted := queueFor(t.Context(), t, waiter, request("r", bob))
		server.Do("ACL", "SETUSER", "default", "-publish")
		start := time.Now()
		giveBack(t, l, held)
		next := <-granted
		if took := time.Since(start); took > 100*time.Millisecond+servicestest.Slack(start) {
			t.Errorf("a lost message costs %v", took)
		}
		server.Do("ACL", "SETUSER", "default", "+publish")
		giveBack(t, waiter, next)
	}
}

// A waiter that was passed over because its instance did not answer for a while comes before those
// who came later, when it is back.
func TestQueueKeepsThePlaceOfASilentWaiter(t *testing.T) {
	t.Parallel()
	for name, silent := range map[string]bool{"that did not take its grant": false, "known to be silent": true} {
		t.Run(name, func(t *testing.T) {
			server := servicestest.StartRedis(t)
			all := instances(t, server, 2)
			cutOff := openApart(t, server)
			held := take(t, all[0], request("r", alice))
			first := queueFor(t.Context(), t, cutOff.Locker, request("r", bob))
			second := queueFor(t.Context(), t, all[0], request("r", bob))
			third := queueFor(t.Context(), t, all[1], request("r", bob))
			cutOff.way.Stall()
			if silent {
				silence(t, server, cutOff.Locker, "r", func(ago time.Duration) bool { return ago > waiterAlive })
			}
			giveBack(t, all[0], held)
			next := <-second
			silence(t, server, cutOff.Locker, "r", func(ago time.Duration) bool { return ago > waiterAlive })
			cutOff.way.Resume()
			waiting(t, all[0], "r", 2)
			silence(t, server, cutOff.Locker, "r", func(ago time.Duration) bool { return ago < waiterAlive/4 }) // or it would be passed over again
			giveBack(t, all[0], next)
			select {
			case next = <-first:
			case <-third:
				t.Fatal("the third came before the first")
			}
			giveBack(t, all[0], next)
			giveBack(t, all[0], <-third)
		})
	}
}

// silence waits until an instance's last heartbeat in a resource's shard is as long ago as is right.
func silence(t *testing.T, server *servicestest.RedisServer, l *Locker, resource string, right func(time.Duration) bool) {
	t.Helper()
	servicestest.Eventually(t, func() bool { return right(silentFor(t, server, l, resource)) }, "the instance is silent, or not")
}

// silentFor is how long ago the instance's last heartbeat in a resource's shard was, as Redis knows.
func silentFor(t *testing.T, server *servicestest.RedisServer, l *Locker, resource string) time.Duration {
	t.Helper()
	const ago = `local t, last = redis.call('TIME'), redis.call('ZSCORE', KEYS[1], ARGV[1])
		return string.format('%d', last and t[1] * 1000 + t[2] / 1000 - last or 0)`
	took, err := time.ParseDuration(strings.TrimSpace(server.Do("EVAL", ago, "1", instancesKey(l, resource), l.instance)) + "ms")
	if err != nil {
		t.Fatal(err)
	}
	return took
}

// A hand-over costs the same whether 1 or 1000 wait, over several instances: joining the queue, the
// release that grants, and the call that confirms.
func TestQueueCostsTheSameForManyWaiters(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	all := instances(t, server, 4)
	few, many := handOverCost(t, server, all, 1), handOverCost(t, server, all, 1000)
	if few < 1 || many > 1.3*few+3 {
		t.Errorf("a hand-over costs %.1f commands with 1 waiter, %.1f with 1000", few, many)
	}
}

// handOverCosts are the commands of a hand-over that no heartbeat executes.
var handOverCosts = regexp.MustCompile(`cmdstat_(?:hset|hget|hdel|set):calls=(\d+)`)

// handOverCost is how many commands a hand-over takes, but for those of waiters that ask again because
// they have waited for long: they are one each.
func handOverCost(t *testing.T, server *servicestest.RedisServer, all []*Locker, waiters int) float64 {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	type grant struct {
		*Locker
		Lock
	}
	grants := make(chan grant)
	wait := func(i int) {
		l := all[i%len(all)]
		wg.Go(func() {
			taken, err := l.Acquire(ctx, request("r", bob))
			if err != nil {
				return
			}
			select {
			case grants <- grant{l, taken}:
			case <-ctx.Done():
				_, _ = l.Release(t.Context(), taken.Claim)
			}
		})
	}
	count := func() (n int) {
		for _, found := range handOverCosts.FindAllStringSubmatch(server.Do("INFO", "commandstats"), -1) {
			calls, err := strconv.Atoi(found[1])
			if err != nil {
				t.Fatal(err)
			}
			n += calls
		}
		return n
	}
	start := time.Now()
	held := grant{all[0], take(t, all[0], request("r", alice))}
	for i := range waiters {
		wait(i)
	}
	waiting(t, all[0], "r", waiters)
	const rounds = 40
	before := count()
	for i := range rounds {
		giveBack(t, held.Locker, held.Lock)
		held = <-grants
		wait(i)
		waiting(t, all[0], "r", waiters)
	}
	used, asked := count()-before, int(time.Since(start)/(waiterAsk*3/4))*waiters
	cancel()
	wg.Wait()
	giveBack(t, held.Locker, held.Lock)
	return float64(used-asked) / rounds
}
