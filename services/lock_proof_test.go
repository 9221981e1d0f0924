package services_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"testing"
	"time"

	"gatehouse/services"
	"gatehouse/services/servicestest"
)

// proofFault is something that goes wrong for a while.
type proofFault struct {
	name    string
	timeout time.Duration // of Redis calls; 0: the default
	strike  func(f *field)
	heal    func(f *field)
}

func each(f *field, do func(*servicestest.Proxy)) {
	for _, proxy := range f.proxies {
		do(proxy)
	}
}

func proofFaults() []proofFault {
	nothing := func(*field) {}
	return []proofFault{
		{"none", 0, nothing, nothing},
		{"Redis frozen", 0, func(f *field) { f.server.Freeze() }, func(f *field) { f.server.Thaw() }},
		{"Redis killed with its data kept", 0, func(f *field) { f.server.Kill() }, func(f *field) { f.server.Start() }},
		{"SCRIPT FLUSH", 0, func(f *field) { f.server.Do("SCRIPT", "FLUSH") }, func(f *field) { f.server.Do("SCRIPT", "FLUSH") }},
		{"connections reset", 0, func(f *field) { each(f, (*servicestest.Proxy).Reset) }, func(f *field) { each(f, (*servicestest.Proxy).Reset) }},
		{"replies lost after execution", 0, func(f *field) { each(f, func(p *servicestest.Proxy) { p.LoseReplies(4) }) },
			func(f *field) { each(f, func(p *servicestest.Proxy) { p.LoseReplies(2) }) }},
		{"200 ms latency, calls that wait for it", time.Second, slow(100 * time.Millisecond), slow(0)},
		{"200 ms latency, calls that do not", 0, slow(100 * time.Millisecond), slow(0)},
		{"one instance cut off", 0, func(f *field) { f.proxies[0].Cut() }, func(f *field) { f.proxies[0].Restore() }},
		{"one instance cut off, half open", 0, func(f *field) { f.proxies[0].Stall() }, func(f *field) { f.proxies[0].Resume() }},
	}
}

func slow(each time.Duration) func(*field) {
	return func(f *field) {
		for _, proxy := range f.proxies {
			proxy.SetLatency(each)
		}
	}
}

// TestProofLockExcludesUnderFaults: with OnRedisDown closed, whatever happens to
// Redis short of losing its data, no two holders believe at a time, fences grow,
// every waiter ends, and nothing is left.
func TestProofLockExcludesUnderFaults(t *testing.T) {
	rounds := 1
	if servicestest.LongProof() {
		rounds = 10
	}
	for _, fault := range proofFaults() {
		noGoroutineLeft(t, fault.name, func(t *testing.T) { proveExclusion(t, fault, rounds) })
	}
}

func proveExclusion(t *testing.T, fault proofFault, rounds int) {
	f := newField(t, fault.timeout)
	history := newLockHistory(t)
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
	servicestest.Eventually(t, 20*time.Second, func() bool { return f.holds(time.Time{}) >= 10*rounds }, "too few holds: nothing is proven")
	stop()
	allEnd(t, &wg)
	checkBeliefs(t, f.beliefs)
	history.check(t)
	checkClean(t, f.server)
	t.Logf("%d holds, none at a time with another; %d calls without the lock; %s", len(f.beliefs), f.failed, history)
}

// allEnd wants every worker to end: nobody waits longer than it said.
func allEnd(t *testing.T, wg *sync.WaitGroup) {
	t.Helper()
	ended := make(chan struct{})
	go func() {
		wg.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("a waiter does not end")
	}
}

// lockProcess makes the test binary, run again, an instance: at which Redis.
const lockProcess = "GATEHOUSE_PROOF_LOCK"

// TestProofLockProcess is an instance for TestProofLockInstancePaused, in a
// process of its own. It prints what its holders believed.
func TestProofLockProcess(t *testing.T) {
	addr := os.Getenv(lockProcess)
	if addr == "" {
		t.Skip("only as a process of another test")
	}
	ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGTERM)
	defer stop()
	l := services.NewLocker(proofRedis(t, addr, 0), &services.LockerOptions{Logger: quiet()})
	f := &field{t: t, long: 1} // so that it is stopped while it holds
	fmt.Println("ready")
	f.work(ctx, l, "process", "r:0", rand.New(rand.NewPCG(uint64(os.Getpid()), 3)))
	for _, b := range f.beliefs {
		doc, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("belief " + string(doc))
	}
	fmt.Println("done")
}

// TestProofLockInstancePaused stops a whole instance for longer than its leases:
// when it goes on, none of its holders may believe in what has ended.
func TestProofLockInstancePaused(t *testing.T) {
	f := newField(t, 0)
	f.server.Do("PING")
	process := servicestest.RunAgain(t, "TestProofLockProcess", lockProcess+"="+f.server.Addr)
	servicestest.Eventually(t, 20*time.Second, func() bool { return len(process.Lines("ready")) == 1 }, "the instance did not start")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	for i, l := range f.lockers[:2] {
		wg.Go(func() { f.work(ctx, l, fmt.Sprint(i), "r:0", rand.New(rand.NewPCG(uint64(i), 4))) })
	}
	rounds := 4
	if servicestest.LongProof() {
		rounds = 40
	}
	for range rounds {
		pause(ctx, time.Duration(f.random.IntN(300))*time.Millisecond)
		process.Freeze()
		pause(ctx, proofTTL+200*time.Millisecond)
		process.Thaw()
	}
	pause(ctx, 2*time.Second) // it takes part in the end, however the pauses fell
	process.Terminate()
	select {
	case <-process.Ended():
	case <-time.After(10 * time.Second):
		t.Fatal("the instance does not end")
	}
	stop()
	allEnd(t, &wg)
	theirs := process.Lines("belief ")
	if len(process.Lines("done")) != 1 || len(theirs) == 0 {
		t.Fatalf("the instance told %d beliefs", len(theirs))
	}
	for _, line := range theirs {
		var b belief
		if err := json.Unmarshal([]byte(line), &b); err != nil {
			t.Fatal(err)
		}
		f.beliefs = append(f.beliefs, b)
	}
	for i := range f.beliefs { // comparable between processes
		f.beliefs[i].From, f.beliefs[i].Until = f.beliefs[i].From.Round(0), f.beliefs[i].Until.Round(0)
	}
	checkBeliefs(t, f.beliefs)
	checkClean(t, f.server)
	t.Logf("%d holds, %d of them by the instance that was paused %d times", len(f.beliefs), len(theirs), rounds)
}
