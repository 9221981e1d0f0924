package lock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
)

const (
	handOversInARow = 64                   // fences reserved at once
	handOverFor     = 5 * time.Millisecond // then other instances are asked for
)

// lockGroups are the WithLock calls of this instance that share leases. The first
// of a group asks Redis; the others wait for it to pass its lease on.
type lockGroups struct {
	mu      sync.Mutex
	waiting map[leaseKey][]chan *lockLease // a group exists while its lease, or the asking for it, does
	leases  map[string]*lockLease          // those extended now, by grant
}

func newLockGroups() *lockGroups {
	return &lockGroups{waiting: map[leaseKey][]chan *lockLease{}, leases: map[string]*lockLease{}}
}

// leaseKey is what calls must have in common to share a lease.
type leaseKey struct {
	resource, holder string
	ttl              time.Duration
}

// lockLease is a lock in Redis and the turns taken under it.
type lockLease struct {
	key   leaseKey
	req   Request
	lock  Lock
	alive context.Context //nolint:containedctx // the lease is what it tells of; ends, with the cause, when the lease is lost
	lose  context.CancelCauseFunc
	stop  context.CancelFunc
	done  chan struct{} // closed when the lease is not extended any more

	givenBack bool // whoever has the turn sets it

	mu     sync.Mutex
	fence  *int64 // of the next turn
	turns  int
	since  time.Time // of the first turn in this row
	ends   time.Time // before the lease can end at the server
	reason Loss      // why it would end then
}

// turn is the lock as the next one to run under the lease sees it.
func (e *lockLease) turn() Lock {
	e.mu.Lock()
	defer e.mu.Unlock()
	lock := e.lock
	lock.Token = ""
	if e.fence != nil {
		fence := *e.fence
		next := fence + 1
		lock.Fence, e.fence = &fence, &next
	}
	e.turns++
	return lock
}

// mayPass reports whether the next in this instance may go on without asking.
func (e *lockLease) mayPass() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now() // a process that was paused is ahead of the timer that ends alive
	return e.alive.Err() == nil && now.Before(e.ends) && e.turns < handOversInARow && now.Sub(e.since) < handOverFor
}

// takeLease waits for a lease of another call in this instance, or takes one from
// Redis if there is none.
func (l *Locker) takeLease(ctx context.Context, req Request) (*lockLease, error) {
	req.TTL = min(leaseOf(req.TTL), l.opt.MaxHold)
	req.Token = NewToken()
	key := leaseKey{req.Resource, writeGrant("", req.Holder), req.TTL}
	g := l.groups
	g.mu.Lock()
	queue, shared := g.waiting[key]
	if !shared {
		g.waiting[key] = nil
		g.mu.Unlock()
		return l.newLease(ctx, key, req)
	}
	turn := make(chan *lockLease, 1)
	g.waiting[key] = append(queue, turn)
	g.mu.Unlock()
	select {
	case lease := <-turn:
		if lease == nil { // the next lease is ours to take
			return l.newLease(ctx, key, req)
		}
		return lease, nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	place := slices.Index(g.waiting[key], turn)
	if place >= 0 {
		g.waiting[key] = slices.Delete(g.waiting[key], place, place+1)
	}
	g.mu.Unlock()
	if place < 0 { // it was our turn already
		if lease := <-turn; lease != nil {
			l.passLease(ctx, lease)
		} else {
			g.lead(key)
		}
	}
	return nil, fmt.Errorf("acquire %s: %w: %w", req.Resource, models.ErrNotAcquired, context.Cause(ctx))
}

// lead makes the next in line take a lease from Redis; without one the group ends.
func (g *lockGroups) lead(key leaseKey) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiting[key]) == 0 {
		delete(g.waiting, key)
		return
	}
	g.waiting[key][0] <- nil
	g.waiting[key] = g.waiting[key][1:]
}

func (l *Locker) newLease(ctx context.Context, key leaseKey, req Request) (*lockLease, error) {
	try := l.newAttempt(req)
	try.block, try.extends = handOversInARow, true
	lock, err := l.acquire(ctx, try)
	if err != nil {
		l.groups.lead(key)
		return nil, err
	}
	alive, lost := context.WithCancelCause(context.WithoutCancel(ctx))
	extending, stop := context.WithCancel(alive)
	lease := &lockLease{
		key: key, req: req, lock: lock, alive: alive, lose: lost, stop: stop, done: make(chan struct{}),
		fence: lock.Fence, since: time.Now(), ends: lock.ends, reason: LostBackend,
	}
	l.groups.begin(lease)
	go func() {
		defer close(lease.done)
		defer l.groups.end(lease)
		l.keepExtending(extending, lease)
		l.metrics.lease(context.Cause(alive))
	}()
	return lease, nil
}

// passLease hands the lease to the next call in this instance, or gives the lock
// back and lets the next one queue behind the other instances.
func (l *Locker) passLease(ctx context.Context, lease *lockLease) {
	if !lease.mayPass() && !l.renewLease(ctx, lease) {
		l.endLease(ctx, lease)
		l.groups.lead(lease.key)
		return
	}
	g := l.groups
	g.mu.Lock()
	if queue := g.waiting[lease.key]; len(queue) > 0 {
		g.waiting[lease.key] = queue[1:]
		g.mu.Unlock()
		l.metrics.handOvers.Inc()
		queue[0] <- lease
		return
	}
	g.mu.Unlock()
	// Whoever comes while the lock is given back waits for a lease of its own.
	l.endLease(ctx, lease)
	g.lead(lease.key)
}

func (l *Locker) endLease(ctx context.Context, lease *lockLease) {
	lease.stop()
	<-lease.done
	if !lease.givenBack {
		l.ReleaseAfter(ctx, lease.lock.Claim)
	}
}

// renewLease reserves fences for another row. If another instance waits it gives
// the lock back in the same step; an old lease is not renewed either.
func (l *Locker) renewLease(ctx context.Context, lease *lockLease) bool {
	g := l.groups
	g.mu.Lock()
	nobody := len(g.waiting[lease.key]) == 0
	g.mu.Unlock()
	if nobody || lease.alive.Err() != nil || lease.overdue(time.Now()) != nil || time.Since(lease.lock.began) > l.opt.MaxHold/2 {
		return false
	}
	ctx, cancel := context.WithTimeout(redis.WithBudget(context.WithoutCancel(ctx)), cleanUpTime)
	defer cancel()
	lock := lease.lock
	got, err := l.run(ctx, l.scripts.extend, lock.Resource, proofOf(lock.Claim),
		milliseconds(lease.req.TTL), milliseconds(l.opt.MaxHold), strconv.Itoa(handOversInARow), "", "1")
	if err == nil && got.code == lockGivenBack {
		lease.givenBack = true
		l.table.release(lock.Claim)
		l.passedOn(got)
		return false
	}
	fence, parseErr := strconv.ParseInt(got.extra, 10, 64)
	if err != nil || parseErr != nil || got.code != lockDone {
		return false
	}
	lease.mu.Lock()
	defer lease.mu.Unlock()
	lease.fence, lease.turns, lease.since = &fence, 0, time.Now()
	return true
}

// keepExtending extends each time a third of the lease has passed, until ctx ends,
// and tells when the lease could end.
func (l *Locker) keepExtending(ctx context.Context, lease *lockLease) {
	lock := lease.lock
	first := lock.TTL / 3
	if lock.unconfirmed {
		first = 0
	}
	next := time.NewTimer(first)
	defer next.Stop()
	end := time.NewTimer(time.Until(lock.ends))
	defer end.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-end.C:
			lease.lose(lease.overdue(time.Now()))
			return
		case <-next.C:
		}
		callCtx, cancel := context.WithDeadline(redis.WithBudget(ctx), lock.ends)
		extended, err := l.Extend(callCtx, lock.Claim, lease.req.TTL)
		cancel()
		switch {
		case errors.Is(err, models.ErrNotHeld):
			lease.revoke()
			return
		case err != nil:
			// Sooner when little is left, or one failed call would cost a short rest of a lease.
			next.Reset(min(lease.req.TTL/10, time.Second, max(time.Until(lock.ends)/4, 5*time.Millisecond)))
			continue
		}
		lease.extended(extended.ends)
		lock = extended
		end.Reset(time.Until(lock.ends))
		next.Reset(max(lock.TTL/3, time.Millisecond))
	}
}
