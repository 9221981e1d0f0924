package lock

import (
	"context"
	"strings"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/servicestest"
)

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
			t.Parallel()
			server := servicestest.StartRedis(t)
			q := silentQueue{server: server, all: instances(t, server, 2), cutOff: openApart(t, server)}
			servicestest.Eventually(t, func() bool {
				first, decided := q.round(t, silent)
				if decided && !first {
					t.Fatal("one who came later was served before the first")
				}
				return first
			}, "in no round it was plain who comes first")
		})
	}
}

// silentQueue is where a waiter of an instance that is cut off comes first, before two others.
type silentQueue struct {
	server *servicestest.RedisServer
	all    []*Locker
	cutOff apart
}

// round lets the first waiter miss its turn. It reports whether the first has the next one, and
// whether it was so quick that nobody else may have it: on a busy machine the first may be passed
// over once more.
func (q silentQueue) round(t *testing.T, silent bool) (isFirst, decided bool) {
	t.Helper()
	held := take(t, q.all[0], request("r", alice))
	first := queueFor(t.Context(), t, q.cutOff.Locker, request("r", models.Holder{UserID: "first"}))
	second := queueFor(t.Context(), t, q.all[0], request("r", bob))
	third := queueFor(t.Context(), t, q.all[1], request("r", bob))
	q.cutOff.way.Stall()
	if silent {
		q.silence(t, func(ago time.Duration) bool { return ago > waiterAlive })
	}
	giveBack(t, q.all[0], held)
	var next Lock
	rest := third
	select { // on a busy machine the second's instance can be silent, too
	case next = <-second:
	case next = <-third:
		rest = second
	}
	q.silence(t, func(ago time.Duration) bool { return ago > waiterAlive })
	q.cutOff.way.Resume()
	waiting(t, q.all[0], "r", 2)
	heard := q.silence(t, func(ago time.Duration) bool { return ago < waiterAlive/4 })
	giveBack(t, q.all[0], next)
	isFirst = q.all[0].mustStatus(t, "r").Holder.UserID == "first"
	decided = time.Since(heard) < waiterAlive/2 // neither silent nor late to take its grant by then
	select {
	case next = <-first:
	case next = <-rest:
		rest = first
	}
	giveBack(t, q.all[0], next)
	giveBack(t, q.all[0], <-rest)
	return isFirst, decided
}

// silence waits until the last heartbeat of the instance that is cut off is as long ago as is
// right, and returns when it asked.
func (q silentQueue) silence(t *testing.T, right func(time.Duration) bool) (asked time.Time) {
	t.Helper()
	servicestest.Eventually(t, func() bool {
		asked = time.Now()
		return right(silentFor(t, q.server, q.cutOff.Locker, "r"))
	}, "the instance is silent, or not")
	return asked
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
