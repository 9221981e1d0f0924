package lock_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/lock"
	"gatehouse/services/servicestest"
)

// TestProofLockOnOneServer is what holds on every topology, on the simplest.
func TestProofLockOnOneServer(t *testing.T) {
	f := newField(t, 500*time.Millisecond)
	topologySmoke(t, f)
	topologySuite(t, f)
	checkClean(t, f.server)
}

// topologySuite is what holds wherever Redis is: the order of the queue, the events of
// all instances, and histories of a lock.
func topologySuite(t *testing.T, f *field) {
	t.Helper()
	resources, lasting := 2, 600*time.Millisecond
	if servicestest.LongProof() {
		resources, lasting = 16, 10*time.Second
	}
	for i := range resources { // on several shards
		wantQueueOrder(t, f.lockers, fmt.Sprintf("queue:%d", i))
	}
	wantEvents(t, f.lockers, resources)
	history := newLockHistory()
	ctx, stop := context.WithTimeout(t.Context(), lasting)
	defer stop()
	var wg sync.WaitGroup
	for i, l := range f.lockers {
		wg.Go(func() { history.work(ctx, l, rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), uint64(i)))) })
	}
	<-ctx.Done()
	allEnd(t, &wg)
	history.check(t)
	if history.kinds["acquire"]+history.kinds["wait"] == 0 {
		t.Error("no lock was held: nothing is proven")
	}
	t.Logf("%s", history)
}

// wantQueueOrder lets waiters of all instances queue one after the other.
func wantQueueOrder(t *testing.T, all []*lock.Locker, resource string) {
	t.Helper()
	held := mustAcquire(t, all[0], request(resource, alice))
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
			order <- i
			if _, err := l.Release(t.Context(), taken.Claim); err != nil {
				t.Error(err)
			}
		})
		servicestest.Eventually(t, func() bool {
			s, err := all[0].Status(t.Context(), resource)
			return err == nil && s.Waiting == i+1
		}, "a waiter did not join")
	}
	if _, err := all[0].Release(t.Context(), held.Claim); err != nil {
		t.Fatal(err)
	}
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

// wantEvents wants the last instance to get the events of what the first does, in every shard.
func wantEvents(t *testing.T, all []*lock.Locker, resources int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events := all[len(all)-1].Events(ctx)
	for i := range resources {
		resource := fmt.Sprintf("events:%d", i)
		want := func(name string) {
			t.Helper()
			e, ok := nextEvent(t, events)
			for ok && e.Resource != resource { // the end of others'
				e, ok = nextEvent(t, events)
			}
			if !ok || e.Name != name || e.Holder.Email != alice.Email || e.Fence == nil {
				t.Fatalf("event %+v (%v), want %s of %s", e, ok, name, resource)
			}
		}
		taken := mustAcquire(t, all[0], request(resource, alice))
		want(models.LockAcquired)
		if _, err := all[0].Extend(ctx, taken.Claim, 5*time.Second); err != nil {
			t.Fatal(err)
		}
		want(models.LockExtended)
		if _, err := all[0].Release(ctx, taken.Claim); err != nil {
			t.Fatal(err)
		}
		want(models.LockReleased)
		mustAcquire(t, all[0], request(resource, alice))
		want(models.LockAcquired)
		if _, err := all[0].ForceRelease(ctx, resource, nil); err != nil {
			t.Fatal(err)
		}
		want(models.LockForced)
	}
}
