package lock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"gatehouse/models"
)

const (
	handOversInARow = 64                   // fences reserved at once
	handOverFor     = 5 * time.Millisecond // then other instances are asked for
)

// LostError is the cause of WithLock's context when the lock ended before
// the work did. It matches models.ErrNotHeld.
type LostError struct {
	Resource string
	Reason   Loss
}

// Loss says how a lock was lost.
type Loss string

// The ways to lose a lock while working under it.
const (
	LostExpired Loss = "expired" // the longest hold was reached
	LostRevoked Loss = "revoked" // forced, or forgotten by the server and taken by another holder
	LostBackend Loss = "backend" // Redis could not be asked in time to extend
)

func (e *LostError) Error() string { return "lock " + e.Resource + " lost: " + string(e.Reason) }

// Unwrap makes errors.Is(err, models.ErrNotHeld) true.
func (e *LostError) Unwrap() error { return models.ErrNotHeld }

// WithLock waits for the lock as Acquire does, runs fn while it extends the lease
// by itself, and gives the lock back. fn's context ends before the lease can have
// ended at the server, with a *LostError as its cause; fn must stop then. After a
// wait fn may start before the grant is confirmed to this instance; its context ends if
// it is not. The error is fn's, joined with the cause if the lock was lost under it, or
// that of Acquire if fn did not run.
//
// Calls in one instance for the same resource, holder and TTL hand one lease over
// among themselves, each with a fence of its own: at most 64 in a row, and for
// 5 ms while another instance waits. The Lock that fn gets has no Token: it cannot
// release what the next one runs under.
func (l *Locker) WithLock(ctx context.Context, req Request, fn func(ctx context.Context, lock Lock) error) error {
	waited := l.metrics.wait()
	lease, err := l.takeLease(ctx, req)
	waited(err)
	if err != nil {
		return err
	}
	defer l.handOver(ctx, lease)
	work, done := lease.under(ctx)
	defer done()
	err = fn(work, lease.slot())
	var lost *LostError
	if errors.As(context.Cause(work), &lost) && !errors.Is(err, lost) {
		return errors.Join(err, lost)
	}
	return err
}

// leaseGroups are the WithLock calls of this instance that share leases. The first
// of a group asks Redis; the others wait until it hands its lease over.
type leaseGroups struct {
	mu      sync.Mutex
	waiting map[leaseKey][]chan *lease // a group exists while its lease, or the asking for it, does
	leases  map[string]*lease          // those extended now, by grant
}

func newLeaseGroups() *leaseGroups {
	return &leaseGroups{waiting: map[leaseKey][]chan *lease{}, leases: map[string]*lease{}}
}

// leaseKey identifies the calls that can share a lease.
type leaseKey struct {
	resource, holder string
	ttl              time.Duration
}

// takeLease waits for a lease of another call in this instance, or takes one from
// Redis if there is none.
func (l *Locker) takeLease(ctx context.Context, req Request) (*lease, error) {
	req.TTL = min(leaseOf(req.TTL), l.opt.MaxHold)
	req.Token = newToken()
	key := leaseKey{req.Resource, writeRecord("", req.Holder), req.TTL}
	g := l.groups
	g.mu.Lock()
	queue, shared := g.waiting[key]
	if !shared {
		g.waiting[key] = nil
		g.mu.Unlock()
		return l.newLease(ctx, key, req)
	}
	handed := make(chan *lease, 1)
	g.waiting[key] = append(queue, handed)
	g.mu.Unlock()
	select {
	case lease := <-handed:
		if lease == nil { // the next lease is ours to take
			return l.newLease(ctx, key, req)
		}
		return lease, nil
	case <-ctx.Done():
	}
	g.mu.Lock()
	i := slices.Index(g.waiting[key], handed)
	if i >= 0 {
		g.waiting[key] = slices.Delete(g.waiting[key], i, i+1)
	}
	g.mu.Unlock()
	if i < 0 { // it was handed over already
		if lease := <-handed; lease != nil {
			l.handOver(ctx, lease)
		} else {
			g.lead(key)
		}
	}
	return nil, fmt.Errorf("acquire %s: %w: %w", req.Resource, models.ErrNotAcquired, context.Cause(ctx))
}

// lead makes the next in line take a lease from Redis; without one the group ends.
func (g *leaseGroups) lead(key leaseKey) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiting[key]) == 0 {
		delete(g.waiting, key)
		return
	}
	g.waiting[key][0] <- nil
	g.waiting[key] = g.waiting[key][1:]
}

func (l *Locker) newLease(ctx context.Context, key leaseKey, req Request) (*lease, error) {
	a := l.newAttempt(req)
	a.block, a.extends = handOversInARow, true
	lock, err := l.acquire(ctx, a)
	if err != nil {
		l.groups.lead(key)
		return nil, err
	}
	return l.startLease(ctx, key, lock), nil
}

// handOver hands the lease to the next call in this instance. When other instances are to be
// served, or no call waits here, it gives the lock back, and the next call asks Redis.
func (l *Locker) handOver(ctx context.Context, lease *lease) {
	if !lease.mayHandOver() && !l.renewLease(ctx, lease) {
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
	// A call that comes while the lock is given back waits for a lease of its own.
	l.endLease(ctx, lease)
	g.lead(lease.key)
}

func (g *leaseGroups) alone(key leaseKey) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.waiting[key]) == 0
}
