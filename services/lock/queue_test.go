package lock_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/lock"
	"gatehouse/services/servicestest"
)

// waitFor waits until so many queue for process:1.
func waitFor(t *testing.T, l *lock.Locker, waiting int) {
	t.Helper()
	servicestest.Eventually(t, func() bool {
		s, err := l.Status(t.Context(), "process:1")
		return err == nil && s.Waiting == waiting
	}, fmt.Sprintf("not %d waiting", waiting))
}

func TestLockServerThatForgot(t *testing.T) {
	server := servicestest.StartRedis(t)
	all := lockers(t, server, 2, lock.Options{})
	held := mustAcquire(t, all[0], request("process:1", alice))
	// A heartbeat has to have seen the shard before one can see that it is new.
	servicestest.Within(t, 2*time.Second, func() bool {
		server.Do("FLUSHALL")
		for range 200 {
			if _, err := all[0].Check(t.Context(), held.Claim); err == nil {
				return true
			}
		}
		return false
	}, "the holder does not have its lock again")
	if _, err := all[1].TryAcquire(t.Context(), request("process:1", bob)); !errors.Is(err, models.ErrNotAcquired) {
		t.Errorf("another caller: %v", err)
	}
}

func TestLockHolderClaimsAgainByItself(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	all := lockers(t, server, 2, lock.Options{})
	mustAcquire(t, all[0], request("process:1", alice))
	granted := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { // the waiter's beats make sure that the shard is known
		_, err := all[0].Acquire(ctx, request("process:1", bob))
		granted <- err
	}()
	waitFor(t, all[1], 1)
	server.Do("FLUSHALL")
	servicestest.Within(t, time.Second, func() bool {
		s, err := all[1].Status(t.Context(), "process:1")
		return err == nil && s.Held && s.Holder.Email == alice.Email
	}, "the lease was not claimed again within 1 s")
	waitFor(t, all[1], 1)
	cancel()
	if err := <-granted; !errors.Is(err, models.ErrNotAcquired) {
		t.Errorf("the waiter: %v", err)
	}
}

func TestLockEventsReachAllInstances(t *testing.T) {
	server := servicestest.StartRedis(t)
	all := lockers(t, server, 2, lock.Options{})
	events := all[1].Events(t.Context())
	next := func() models.LockEvent {
		t.Helper()
		select {
		case e := <-events:
			return e
		case <-time.After(3 * time.Second):
			t.Fatal("no event")
			return models.LockEvent{}
		}
	}
	// Subscribing takes a moment; what was sent before is not missed.
	servicestest.Within(t, 3*time.Second, func() bool {
		return strings.HasSuffix(strings.TrimSpace(server.Do("PUBSUB", "NUMSUB", "test:ends")), "2")
	}, "not subscribed")
	want := func(name string, taken lock.Lock, who models.Holder) {
		t.Helper()
		e := next()
		if e.Name != name || e.Resource != taken.Resource || e.Holder.Email != who.Email || e.Fence == nil || *e.Fence != *taken.Fence || time.Since(e.At) > time.Minute {
			t.Errorf("event %+v, want %s of %+v", e, name, taken)
		}
	}
	req := request("process:1\nwith a line", alice)
	taken := mustAcquire(t, all[0], req)
	want(models.LockAcquired, taken, alice)
	if _, err := all[0].Extend(t.Context(), taken.Claim, time.Minute); err != nil {
		t.Fatal(err)
	}
	want(models.LockExtended, taken, alice)
	if _, err := all[0].Release(t.Context(), taken.Claim); err != nil {
		t.Fatal(err)
	}
	want(models.LockReleased, taken, alice)
	taken = mustAcquire(t, all[0], request("process:2", bob))
	want(models.LockAcquired, taken, bob)
	if _, err := all[0].ForceRelease(t.Context(), "process:2", nil); err != nil {
		t.Fatal(err)
	}
	want(models.LockForced, taken, bob)
	short := request("process:3", alice)
	short.TTL = 50 * time.Millisecond
	taken = mustAcquire(t, all[0], short)
	want(models.LockAcquired, taken, alice)
	e := next()
	for e.Name != models.LockExpired {
		e = next()
	}
	if e.Resource != "process:3" || e.Holder.Email != alice.Email {
		t.Errorf("expired %+v", e)
	}
}

func TestWithLockPassesOneLeaseOn(t *testing.T) {
	server := servicestest.StartRedis(t)
	all := lockers(t, server, 2, lock.Options{})
	counter := 0 // guarded by the lock itself: -race would tell
	last := int64(0)
	grants := map[string]int{}
	var wg sync.WaitGroup
	for i := range 400 {
		wg.Go(func() {
			err := all[i%2].WithLock(t.Context(), request("process:1", alice), func(_ context.Context, taken lock.Lock) error {
				counter++
				grants[taken.Grant]++
				if *taken.Fence <= last {
					t.Errorf("fence %d after %d", *taken.Fence, last)
				}
				last = *taken.Fence
				if taken.Token != "" {
					t.Error("the work has a token that could release the next one's lock")
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if counter != 400 {
		t.Errorf("%d ran, want 400", counter)
	}
	if len(grants) > 100 {
		t.Errorf("%d grants for 400 calls: the lease is not passed on", len(grants))
	}
	if s, err := all[0].Status(t.Context(), "process:1"); err != nil || s.Held {
		t.Errorf("still held: %+v, %v", s, err)
	}
}

func TestWithLockWaiterThatLeaves(t *testing.T) {
	l := lockers(t, servicestest.StartRedis(t), 1, lock.Options{})[0]
	inside, leave := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := l.WithLock(t.Context(), request("process:1", alice), func(context.Context, lock.Lock) error {
			close(inside)
			<-leave
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
	<-inside
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := l.WithLock(ctx, request("process:1", alice), func(context.Context, lock.Lock) error { return errors.New("ran") })
	if !errors.Is(err, models.ErrNotAcquired) || !errors.Is(err, context.Canceled) {
		t.Errorf("a waiter that left: %v", err)
	}
	close(leave)
	wg.Wait()
	if err := l.WithLock(t.Context(), request("process:1", alice), func(context.Context, lock.Lock) error { return nil }); err != nil {
		t.Errorf("the next one: %v", err)
	}
}
