package lock

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"gatehouse/services/servicestest"
)

// TestProofOnOneServer is what holds on every topology, on the simplest.
func TestProofOnOneServer(t *testing.T) {
	t.Parallel()
	f := newField(t, patient)
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
		wantEvents(t, f.lockers, fmt.Sprintf("events:%d", i))
	}
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
