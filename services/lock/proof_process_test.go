package lock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// lockProcess makes the test binary, run again, an instance: the variable says what
// it does, as a lockInstance.
const lockProcess = "GATEHOUSE_PROOF_LOCK"

// lockInstance is an instance in a process of its own.
type lockInstance struct {
	Addr    string
	Timeout time.Duration // of Redis calls; 0: the default
	Skew    time.Duration // of its wall clock
	Start   time.Time     // of the history
	First   int           // its grants in the history are named from here
	Long    int           // see field
	Seed    uint64
}

// TestProofProcess is such an instance, for other tests. It prints what its
// holders believed, and the history of its clients.
func TestProofProcess(t *testing.T) {
	text := os.Getenv(lockProcess)
	if text == "" {
		return // it is not run as a process of another test
	}
	var me lockInstance
	if err := json.Unmarshal([]byte(text), &me); err != nil {
		t.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGTERM)
	defer stop()
	clock := func() time.Time { return time.Now().Add(me.Skew) }
	l := New(redistest.At(t, me.Addr, redis.Options{Timeout: me.Timeout}), Options{Logger: redistest.Quiet(), Clock: clock})
	if taken, err := l.TryAcquire(ctx, request(fmt.Sprint("own:", me.First), alice)); err == nil {
		if off := taken.ExpiresAt.Sub(time.Now().Add(taken.TTL)); (off - me.Skew).Abs() > 2*time.Second {
			t.Fatalf("the clock is %v off, not %v", off, me.Skew)
		}
		if _, err := l.Release(ctx, taken.Claim); err != nil && !errors.Is(err, models.ErrUnavailable) {
			t.Fatal(err)
		}
	}
	f := &field{t: t, long: me.Long}
	h := newLockHistory()
	h.start, h.first = me.Start, me.First
	fmt.Println("ready")
	var wg sync.WaitGroup
	for w := range uint64(2) {
		wg.Go(func() {
			f.work(ctx, l, fmt.Sprintf("process %d.%d", me.First, w), fmt.Sprintf("r:%d", w), rand.New(rand.NewPCG(me.Seed, w)))
		})
	}
	wg.Go(func() { h.work(ctx, l, rand.New(rand.NewPCG(me.Seed, 2))) })
	wg.Wait()
	for _, b := range f.beliefs {
		printLine(t, "belief ", b)
	}
	h.print(t)
	if !t.Failed() {
		fmt.Println("done")
	}
}

// startLockInstances starts processes on the Redis of f, each behind a proxy of its
// own, and waits until they work.
func startLockInstances(t *testing.T, f *field, history *lockHistory, each ...lockInstance) []*servicestest.Process {
	t.Helper()
	history.start = history.start.Round(0) // comparable between processes
	var all []*servicestest.Process
	for i, instance := range each {
		proxy := servicestest.NewProxy(t, f.server.Addr)
		f.proxies = append(f.proxies, proxy)
		instance.Addr, instance.Timeout, instance.Start = proxy.Addr, f.timeout, history.start
		instance.First, instance.Seed = (i+1)*1_000_000, f.random.Uint64()
		doc, err := json.Marshal(instance)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, servicestest.RunAgain(t, "TestProofProcess", lockProcess+"="+string(doc)))
	}
	for _, process := range all {
		servicestest.Eventually(t, func() bool {
			select {
			case <-process.Ended():
				t.Fatalf("an instance ended at once: %v", process.Lines(""))
			default:
			}
			return len(process.Lines("ready")) == 1
		}, "an instance did not start")
	}
	return all
}

// endLockInstances ends the processes and adds what they believed and saw to that of f and
// history.
func endLockInstances(t *testing.T, f *field, history *lockHistory, all []*servicestest.Process) (theirs int) {
	t.Helper()
	for _, process := range all {
		process.Terminate()
	}
	for _, process := range all {
		select {
		case <-process.Ended():
		case <-time.After(20 * time.Second):
			t.Fatal("an instance does not end")
		}
		lines := process.Lines("belief ")
		if len(process.Lines("done")) != 1 || len(lines) == 0 {
			t.Fatalf("an instance told %d beliefs: %v", len(lines), process.Lines(""))
		}
		for _, line := range lines {
			var b belief
			if err := json.Unmarshal([]byte(line), &b); err != nil {
				t.Fatal(err)
			}
			f.beliefs = append(f.beliefs, b)
		}
		theirs += len(lines)
		history.take(t, process)
	}
	for i := range f.beliefs { // comparable between processes
		f.beliefs[i].From, f.beliefs[i].Until = f.beliefs[i].From.Round(0), f.beliefs[i].Until.Round(0)
	}
	return theirs
}

// TestProofInstancePaused stops a whole instance for longer than its leases:
// when it goes on, none of its holders may believe in what has ended, and none of
// its clients may have seen what cannot be.
func TestProofInstancePaused(t *testing.T) {
	t.Parallel()
	f := newField(t, 0)
	history := newLockHistory()
	// It holds long, so that it is stopped while it holds.
	processes := startLockInstances(t, f, history, lockInstance{Long: 1})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	for i, l := range f.lockers[:2] {
		seed := f.random.Uint64()
		wg.Go(func() { f.work(ctx, l, fmt.Sprint(i), fmt.Sprint("r:", i), rand.New(rand.NewPCG(seed, 4))) })
		wg.Go(func() { history.work(ctx, l, rand.New(rand.NewPCG(seed, 5))) })
	}
	rounds := 4
	if servicestest.LongProof() {
		rounds = 40
	}
	for range rounds {
		pause(ctx, time.Duration(f.random.IntN(300))*time.Millisecond)
		processes[0].Freeze()
		pause(ctx, proofTTL+200*time.Millisecond)
		processes[0].Thaw()
	}
	pause(ctx, 2*time.Second) // it takes part in the end, however the pauses fell
	stop()
	allEnd(t, &wg)
	theirs := endLockInstances(t, f, history, processes)
	checkBeliefs(t, f.beliefs)
	history.check(t)
	checkClean(t, f.server)
	t.Logf("%d holds, %d of them by the instance that was paused %d times; %s", len(f.beliefs), theirs, rounds, history)
}
