package lock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

const (
	// historyTurn is how often the clients turn to another lock: a history that
	// faults leave many open ends in must stay short to be checked.
	historyTurn = 350 * time.Millisecond
	// offered is how long after a waiter gave up its lock may still count as held: it
	// is given back when Redis gets the release, or ends with its lease.
	offered = 2*proofTTL + time.Second
)

// lockHistory is what clients asked of locks and what they were answered, to be
// held against lockModel.
type lockHistory struct {
	start time.Time // without a monotonic part if other processes take part
	first int       // grants of one instance are named from here

	mu      sync.Mutex
	ops     map[string][]porcupine.Operation // by resource
	grants  int                              // names the acquires
	unknown int
	open    int            // histories that check came to no end with
	kinds   map[string]int // how many were answered ok
}

// historyLine is an operation as a process prints it.
type historyLine struct {
	Resource       string
	Op             operation
	Call, Returned int64
	Got            lockAnswer
}

func newLockHistory() *lockHistory {
	return &lockHistory{start: time.Now(), ops: map[string][]porcupine.Operation{}, kinds: map[string]int{}}
}

func (h *lockHistory) now() int64 { return int64(time.Since(h.start)) }

func (h *lockHistory) add(resource string, op operation, called int64, got lockAnswer) {
	returned := h.now()
	if got.Result == "unknown" {
		returned = math.MaxInt64 // it may still be done
	}
	h.addUntil(resource, op, called, got, returned)
}

func (h *lockHistory) addUntil(resource string, op operation, called int64, got lockAnswer, returned int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if got.Result == "unknown" && op.Kind != "end" {
		h.unknown++
	}
	if got.Result == "ok" {
		h.kinds[op.Kind]++
	}
	h.ops[resource] = append(h.ops[resource], porcupine.Operation{ClientId: op.Grant, Input: op, Call: called, Output: got, Return: returned})
}

// print writes the history for the test that has run this process.
func (h *lockHistory) print(t *testing.T) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for resource, ops := range h.ops {
		for _, op := range ops {
			printLine(t, "op ", historyLine{resource, op.Input.(operation), op.Call, op.Return, op.Output.(lockAnswer)})
		}
	}
}

func printLine(t *testing.T, prefix string, v any) {
	t.Helper()
	doc, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(prefix + string(doc))
}

// take adds what a process has printed.
func (h *lockHistory) take(t *testing.T, process *servicestest.Process) {
	t.Helper()
	for _, line := range process.Lines("op ") {
		var op historyLine
		if err := json.Unmarshal([]byte(line), &op); err != nil {
			t.Fatal(err)
		}
		h.addUntil(op.Resource, op.Op, op.Call, op.Got, op.Returned)
	}
}

func answer(err error, fence *int64) lockAnswer {
	switch {
	case err == nil && fence != nil:
		return lockAnswer{"ok", *fence}
	case err == nil:
		return lockAnswer{Result: "ok"}
	case errors.Is(err, models.ErrUnavailable):
		return lockAnswer{Result: "unknown"}
	case isOneOfErrors(err, models.ErrNotAcquired, models.ErrNotHeld, models.ErrNotFound):
		return lockAnswer{Result: "refused"}
	}
	return lockAnswer{Result: "unknown"}
}

// work asks for locks, waits for them, extends, checks, releases and forces them by
// hand until ctx ends.
func (h *lockHistory) work(ctx context.Context, l *Locker, random *rand.Rand) {
	for ctx.Err() == nil {
		turn := time.Duration(h.now()) / historyTurn
		resource := fmt.Sprintf("h:%d", max(0, int(turn)-random.IntN(3)))
		if random.IntN(30) == 0 {
			h.force(context.WithoutCancel(ctx), l, resource)
		} else {
			h.round(context.WithoutCancel(ctx), l, random, resource)
		}
		pause(ctx, time.Duration(1+random.IntN(4))*time.Millisecond)
	}
}

func (h *lockHistory) force(ctx context.Context, l *Locker, resource string) {
	called := h.now()
	was, err := l.ForceRelease(ctx, resource, nil)
	h.add(resource, operation{Kind: "force"}, called, answer(err, was.Fence))
}

// mayWait: in some of the histories only, because a waiter that Redis offers the
// lock to makes it taken, whether the waiter ever knows or not.
func mayWait(resource string) bool { return resource[len(resource)-1]%3 == 0 }

func (h *lockHistory) acquire(ctx context.Context, l *Locker, random *rand.Rand, resource string, grant int) (taken Lock, leased int64, got lockAnswer) {
	req := Request{Resource: resource, TTL: proofTTL, Holder: alice}
	leased = h.now() // no lease can end before this and its TTL
	if mayWait(resource) && random.IntN(2) == 0 {
		ctx, cancel := context.WithTimeout(ctx, time.Duration(20+random.IntN(200))*time.Millisecond)
		defer cancel()
		taken, err := l.Acquire(ctx, req)
		got = answer(err, taken.Fence)
		h.add(resource, operation{Kind: "wait", Grant: grant}, leased, got)
		return taken, leased, got
	}
	kind := "acquire"
	taken, err := l.TryAcquire(ctx, req)
	if errors.Is(err, models.ErrNotAcquired) && random.IntN(4) == 0 { // from its holder, then
		h.add(resource, operation{Kind: kind, Grant: grant}, leased, answer(err, nil))
		status, statusErr := l.Status(ctx, resource)
		if statusErr != nil || !status.Held {
			return taken, leased, lockAnswer{Result: "refused"}
		}
		kind, leased = "replace", h.now()
		taken, err = l.Replace(ctx, req, Replaced{Grant: status.Grant, How: models.LockTakenOver})
	}
	got = answer(err, taken.Fence)
	h.add(resource, operation{Kind: kind, Grant: grant}, leased, got)
	return taken, leased, got
}

func (h *lockHistory) round(ctx context.Context, l *Locker, random *rand.Rand, resource string) {
	h.mu.Lock()
	h.grants++
	grant := h.first + h.grants
	h.mu.Unlock()
	taken, leased, got := h.acquire(ctx, l, random, resource, grant)
	if got.Result == "unknown" { // given back by the Locker, some time
		h.addUntil(resource, operation{Kind: "end", Grant: grant}, leased, got, math.MaxInt64)
		pause(ctx, 50*time.Millisecond)
	}
	if got.Result != "ok" {
		return
	}
	for range random.IntN(3) {
		pause(ctx, time.Duration(random.IntN(3))*time.Millisecond)
		called := h.now()
		if random.IntN(2) == 0 {
			_, err := l.Extend(ctx, taken.Claim, proofTTL)
			got = answer(err, nil)
			if got.Result == "ok" {
				leased = called
			}
			h.add(resource, operation{Kind: "extend", Grant: grant}, called, got)
			continue
		}
		_, err := l.Check(ctx, taken.Claim)
		h.add(resource, operation{Kind: "check", Grant: grant}, called, answer(err, nil))
	}
	if random.IntN(20) > 0 { // else it is left to its TTL
		called := h.now()
		_, err := l.Release(ctx, taken.Claim)
		got = answer(err, nil)
		h.add(resource, operation{Kind: "release", Grant: grant}, called, got)
		if got.Result == "ok" {
			return
		}
	}
	// Redis counts in whole milliseconds.
	h.addUntil(resource, operation{Kind: "end", Grant: grant}, leased+int64(proofTTL-time.Millisecond), lockAnswer{}, math.MaxInt64)
}

// check wants a linearization of what happened to each resource. With each operation
// that has no end the search can double: of a few histories it may not come to one.
func (h *lockHistory) check(t *testing.T) {
	t.Helper()
	for resource, ops := range h.ops {
		if !wantLockHistory(t, resource, markBusy(ops)) {
			h.open++
		}
	}
	if most := max(1, len(h.ops)/20); h.open > most || h.open == len(h.ops) {
		t.Errorf("no answer about %d of %d histories: the proof proves too little", h.open, len(h.ops))
	}
}

// markBusy finds the operations beside which a caller waited. A waiter that gave up
// has changed nothing of its own.
func markBusy(ops []porcupine.Operation) []porcupine.Operation {
	var waits, marked []porcupine.Operation
	for _, op := range ops {
		if op.Input.(operation).Kind == "wait" {
			if op.Output.(lockAnswer).Result != "ok" {
				op.Return = min(op.Return, math.MaxInt64-int64(offered)) + int64(offered)
			}
			waits = append(waits, op)
		}
	}
	for _, op := range ops {
		in, out := op.Input.(operation), op.Output.(lockAnswer)
		if in.Kind == "wait" && out.Result == "refused" {
			continue
		}
		for _, w := range waits {
			in.Busy = in.Busy || (w.Call <= op.Return && op.Call <= w.Return)
		}
		op.Input = in
		marked = append(marked, op)
	}
	return marked
}

func (h *lockHistory) String() string {
	count := 0
	for _, ops := range h.ops {
		count += len(ops)
	}
	return fmt.Sprintf("%d operations on %d locks, linearizable on %d of them, %d unanswered; done: %v", count, len(h.ops), len(h.ops)-h.open, h.unknown, h.kinds)
}
