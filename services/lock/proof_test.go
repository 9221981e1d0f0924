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

// proofFault is something that goes wrong for a while.
type proofFault struct {
	name    string
	timeout time.Duration // of Redis calls; 0: the default
	strike  func(f *field)
	heal    func(f *field)
	apart   bool // with instances in processes of their own, whose clocks are 5 s off
}

func each(f *field, do func(*servicestest.Proxy)) {
	for _, proxy := range f.proxies {
		do(proxy)
	}
}

func proofFaults() []proofFault {
	nothing := func(*field) {}
	return []proofFault{
		{"none", 0, nothing, nothing, false},
		{"Redis frozen", 0, func(f *field) { f.server.Freeze() }, func(f *field) { f.server.Thaw() }, false},
		{"Redis killed with its data kept", 0, func(f *field) { f.server.Kill() }, func(f *field) { f.server.Start() }, false},
		{"SCRIPT FLUSH", 0, func(f *field) { f.server.Do("SCRIPT", "FLUSH") }, func(f *field) { f.server.Do("SCRIPT", "FLUSH") }, false},
		{"connections reset", 0, func(f *field) { each(f, (*servicestest.Proxy).Reset) }, func(f *field) { each(f, (*servicestest.Proxy).Reset) }, false},
		{"replies lost after execution", 0, func(f *field) { each(f, func(p *servicestest.Proxy) { p.LoseReplies(4) }) },
			func(f *field) { each(f, func(p *servicestest.Proxy) { p.LoseReplies(2) }) }, false},
		{"200 ms latency, calls that wait for it", time.Second, slow(100 * time.Millisecond), slow(0), false},
		{"200 ms latency, calls that do not", 0, slow(100 * time.Millisecond), slow(0), false},
		{"one instance cut off", 0, func(f *field) { f.proxies[0].Cut() }, func(f *field) { f.proxies[0].Restore() }, false},
		{"one instance cut off, half open", 0, func(f *field) { f.proxies[0].Stall() }, func(f *field) { f.proxies[0].Resume() }, false},
		{"clocks 5 s off either way, connections reset", 0, func(f *field) { each(f, (*servicestest.Proxy).Reset) }, nothing, true},
	}
}

func slow(each time.Duration) func(*field) {
	return func(f *field) {
		for _, proxy := range f.proxies {
			proxy.SetLatency(each)
		}
	}
}

// TestProofExcludesUnderFaults: with OnRedisDown closed, whatever happens to
// Redis short of losing its data, and whatever the clocks of the instances say, no
// two holders believe at a time, fences grow, every waiter ends, the many locks held
// meanwhile stay with their holders, and nothing is left.
func TestProofExcludesUnderFaults(t *testing.T) {
	rounds := 1
	if servicestest.LongProof() {
		rounds = 10
	}
	noGoroutineLeft(t, "faults", func(t *testing.T) {
		for _, fault := range proofFaults() {
			t.Run(fault.name, func(t *testing.T) {
				t.Parallel()
				proveExclusion(t, fault, rounds)
			})
		}
	})
}

func proveExclusion(t *testing.T, fault proofFault, rounds int) {
	f := newField(t, fault.timeout)
	history := newLockHistory()
	many := holdMany(t, f.lockers, "many", 80)
	var processes []*servicestest.Process
	if fault.apart || servicestest.LongProof() {
		processes = startLockInstances(t, f, history, lockInstance{Skew: 5 * time.Second}, lockInstance{Skew: -5 * time.Second})
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	for i, l := range f.lockers {
		for w := range 4 {
			seed := f.random.Uint64()
			// Two holders with one name hand over within their instance.
			name, resource := fmt.Sprintf("%d.%d", i, w/2), fmt.Sprintf("r:%d", w%2)
			wg.Go(func() { f.work(ctx, l, name, resource, rand.New(rand.NewPCG(seed, 1))) })
		}
		seed := f.random.Uint64()
		wg.Go(func() { history.work(ctx, l, rand.New(rand.NewPCG(seed, 2))) })
	}
	for range rounds {
		pause(ctx, 300*time.Millisecond)
		fault.strike(f)
		pause(ctx, proofTTL+300*time.Millisecond)
		fault.heal(f)
		pause(ctx, 700*time.Millisecond)
	}
	servicestest.Eventually(t, func() bool { return f.holds(time.Time{}) >= 10*rounds }, "too few holds: nothing is proven")
	stop()
	allEnd(t, &wg)
	theirs := endLockInstances(t, f, history, processes)
	checkBeliefs(t, f.beliefs)
	history.check(t)
	giveBackMany(t, f.lockers, many)
	checkClean(t, f.server)
	t.Logf("%d holds, none at a time with another, %d of them by instances whose clocks are off; %d calls without the lock; %s",
		len(f.beliefs), theirs, f.failed, history)
}

// allEnd wants every worker to end: none waits longer than it said.
func allEnd(t *testing.T, wg *sync.WaitGroup) {
	t.Helper()
	ended := make(chan struct{})
	go func() {
		wg.Wait()
		close(ended)
	}()
	servicestest.Within(t, 10*time.Second, func() bool {
		select {
		case <-ended:
			return true
		default:
			return false
		}
	}, "a waiter does not end")
}
