package services_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"gatehouse/models"
	"gatehouse/services"
)

// lockHistory is what clients asked of locks and what they were answered, to be
// held against lockModel.
type lockHistory struct {
	start time.Time

	mu      sync.Mutex
	ops     map[string][]porcupine.Operation // by resource
	grants  int                              // names the acquires
	unknown int
}

func newLockHistory(t *testing.T) *lockHistory {
	t.Helper()
	return &lockHistory{start: time.Now(), ops: map[string][]porcupine.Operation{}}
}

type lockOp struct {
	kind  string // acquire, extend, check, release, or end: what may happen by itself
	grant int    // the acquire meant
}

type lockAnswer struct {
	result string // ok, refused, unknown
	fence  int64
}

type lockState struct {
	holder int // the acquire that has the lock, 0 when free
	fence  int64
}

// lockModel is a lock as its clients may see it. What was answered "unavailable"
// may have been done or not; a lease may end by itself once its time has passed.
func lockModel() porcupine.Model {
	model := porcupine.NondeterministicModel{
		Init: func() []any { return []any{lockState{}} },
		Step: func(from, input, output any) []any {
			var next []any
			for _, state := range stepLock(from.(lockState), input.(lockOp), output.(lockAnswer)) {
				next = append(next, state)
			}
			return next
		},
		DescribeOperation: func(input, output any) string { return fmt.Sprintf("%v -> %v", input, output) },
	}
	return model.ToModel()
}

func stepLock(s lockState, op lockOp, got lockAnswer) []lockState {
	free := lockState{fence: s.fence}
	mine := s.holder == op.grant
	switch {
	case op.kind == "end" && mine:
		return []lockState{free}
	case op.kind == "end":
		return []lockState{s}
	case op.kind == "acquire" && got.result == "refused" && s.holder != 0:
		return []lockState{s}
	case op.kind == "acquire" && got.result == "ok" && s.holder == 0 && got.fence > s.fence:
		return []lockState{{holder: op.grant, fence: got.fence}}
	case op.kind == "acquire" && got.result == "unknown" && s.holder == 0:
		return []lockState{s, {holder: op.grant, fence: s.fence}}
	case op.kind == "acquire" && got.result == "unknown":
		return []lockState{s}
	case op.kind == "acquire":
		return nil
	case got.result == "unknown" && mine && op.kind == "release":
		return []lockState{s, free}
	case got.result == "unknown":
		return []lockState{s}
	case (got.result == "ok") != mine:
		return nil
	case op.kind == "release" && mine:
		return []lockState{free}
	}
	return []lockState{s}
}

func (h *lockHistory) now() int64 { return int64(time.Since(h.start)) }

func (h *lockHistory) add(resource string, op lockOp, called int64, got lockAnswer) {
	returned := h.now()
	if got.result == "unknown" {
		returned = math.MaxInt64 // it may still be done
	}
	h.addUntil(resource, op, called, got, returned)
}

func (h *lockHistory) addUntil(resource string, op lockOp, called int64, got lockAnswer, returned int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if got.result == "unknown" && op.kind != "end" {
		h.unknown++
	}
	h.ops[resource] = append(h.ops[resource], porcupine.Operation{ClientId: op.grant, Input: op, Call: called, Output: got, Return: returned})
}

func answer(err error, fence *int64) lockAnswer {
	switch {
	case err == nil && fence != nil:
		return lockAnswer{"ok", *fence}
	case err == nil:
		return lockAnswer{result: "ok"}
	case errors.Is(err, models.ErrNotAcquired), errors.Is(err, models.ErrNotHeld):
		return lockAnswer{result: "refused"}
	}
	return lockAnswer{result: "unknown"}
}

// work acquires, extends, checks and releases by hand until ctx ends.
func (h *lockHistory) work(ctx context.Context, l *services.Locker, random *rand.Rand) {
	for n := 0; ctx.Err() == nil; n++ {
		h.round(context.WithoutCancel(ctx), l, random, fmt.Sprintf("h:%d", (n/8)%20))
		pause(ctx, time.Duration(1+random.IntN(4))*time.Millisecond)
	}
}

func (h *lockHistory) round(ctx context.Context, l *services.Locker, random *rand.Rand, resource string) {
	h.mu.Lock()
	h.grants++
	grant := h.grants
	h.mu.Unlock()
	leased := h.now() // no lease can end before this and its TTL
	lock, err := l.TryAcquire(ctx, services.LockRequest{Resource: resource, TTL: proofTTL, Holder: alice})
	got := answer(err, lock.Fence)
	h.add(resource, lockOp{"acquire", grant}, leased, got)
	if got.result == "unknown" { // given back by the Locker, some time
		h.addUntil(resource, lockOp{"end", grant}, leased, got, math.MaxInt64)
		pause(ctx, 25*time.Millisecond)
	}
	if got.result != "ok" {
		return
	}
	for range random.IntN(3) {
		pause(ctx, time.Duration(random.IntN(3))*time.Millisecond)
		called := h.now()
		if random.IntN(2) == 0 {
			_, err := l.Extend(ctx, lock.LockClaim, proofTTL)
			got = answer(err, nil)
			if got.result == "ok" {
				leased = called
			}
			h.add(resource, lockOp{"extend", grant}, called, got)
			continue
		}
		_, err := l.Check(ctx, lock.LockClaim)
		h.add(resource, lockOp{"check", grant}, called, answer(err, nil))
	}
	if random.IntN(20) > 0 { // else it is left to its TTL
		called := h.now()
		_, err := l.Release(ctx, lock.LockClaim)
		got = answer(err, nil)
		h.add(resource, lockOp{"release", grant}, called, got)
		if got.result == "ok" {
			return
		}
	}
	// Redis counts in whole milliseconds.
	h.addUntil(resource, lockOp{"end", grant}, leased+int64(proofTTL-time.Millisecond), lockAnswer{}, math.MaxInt64)
}

// check wants a linearization of what happened to each resource.
func (h *lockHistory) check(t *testing.T) {
	t.Helper()
	for resource, ops := range h.ops {
		switch porcupine.CheckOperationsTimeout(lockModel(), ops, 20*time.Second) {
		case porcupine.Illegal:
			t.Errorf("the history of %s is not that of a lock:", resource)
			for _, op := range ops {
				t.Logf("%v .. %v %v -> %v", time.Duration(op.Call), time.Duration(op.Return), op.Input, op.Output)
			}
		case porcupine.Unknown:
			t.Errorf("no answer about the history of %s, of %d operations", resource, len(ops))
		}
	}
}

func (h *lockHistory) String() string {
	count := 0
	for _, ops := range h.ops {
		count += len(ops)
	}
	return fmt.Sprintf("%d operations on %d locks linearizable, %d of them unanswered", count, len(h.ops), h.unknown)
}
