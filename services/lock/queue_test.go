package lock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

func TestQueue(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	all := instances(t, server, 3)
	l, other := all[0], all[1]

	t.Run("is first come, first served, over all instances", func(t *testing.T) {
		wantQueueOrder(t, all, "order")
		if keys := server.Do("KEYS", "*queue:order*"); keys != "" {
			t.Errorf("left behind: %s", keys)
		}
	})

	t.Run("is left by a waiter that gives up", func(t *testing.T) {
		held := take(t, l, request("given up", alice))
		impatience := errors.New("impatient")
		servicestest.Eventually(t, func() bool {
			ctx, cancel := context.WithCancelCause(t.Context())
			go func() {
				waiting(t, l, "given up", 1)
				cancel(impatience)
			}()
			_, err := other.Acquire(ctx, request("given up", bob))
			if !errors.Is(err, models.ErrNotAcquired) || !errors.Is(err, impatience) {
				t.Errorf("given up: %v", err)
			}
			if s := l.mustStatus(t, "given up"); s.Waiting != 0 {
				t.Errorf("still %d waiting", s.Waiting)
			}
			var refused *models.NotAcquiredError // unless it gave up before it had its first answer
			return errors.As(err, &refused) && refused.Status.Holder.UserID == alice.UserID
		}, "who gives up is not told who has the lock")
		giveBack(t, l, held)
		take(t, l, request("given up", alice))
	})

	t.Run("is left before Redis has answered", func(t *testing.T) {
		frozen := servicestest.StartRedis(t)
		l := at(t, frozen.Addr, patient, Options{})
		frozen.Freeze()
		defer frozen.Thaw()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := l.Acquire(ctx, request("unknown", bob))
		for _, want := range []error{models.ErrUnavailable, models.ErrNotAcquired, context.DeadlineExceeded} {
			if !errors.Is(err, want) {
				t.Errorf("%v is not: %v", err, want)
			}
		}
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
// in that order, and no newcomer before them. A waiter whose instance is silent for a moment is
// passed over, so of a busy machine it wants that in one of the rounds.
func wantQueueOrder(t *testing.T, all []*Locker, resource string) {
	t.Helper()
	for round := 1; ; round++ {
		began := time.Now()
		order := serveInTurn(t, all, fmt.Sprint(resource, ":", round))
		if slices.IsSorted(order) {
			return
		}
		if servicestest.Slack(began) < waiterAlive || round == 10 {
			t.Fatalf("%s, round %d: served in the order %v", resource, round, order)
		}
	}
}

// serveInTurn returns in which order the waiters were served.
func serveInTurn(t *testing.T, all []*Locker, resource string) (order []int) {
	t.Helper()
	held := take(t, all[0], request(resource, alice))
	const waiters = 6
	served := make(chan int, waiters)
	var wg sync.WaitGroup
	for i := range waiters {
		l := all[i%len(all)]
		wg.Go(func() {
			taken, err := l.Acquire(t.Context(), request(resource, bob))
			if err != nil {
				t.Error(err)
				return
			}
			if served <- i; i == 0 {
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
	close(served)
	for i := range served {
		order = append(order, i)
	}
	return order
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
