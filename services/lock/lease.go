package lock

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
)

// lease is a lock in Redis that WithLock extends, for the calls that share it.
type lease struct {
	key   leaseKey
	lock  Lock
	alive context.Context //nolint:containedctx // the lease is what it stands for; ends, with the cause, when the lease is lost
	lose  context.CancelCauseFunc
	stop  context.CancelFunc
	done  chan struct{} // closed when the lease is not extended any more

	givenBack bool // set by the call that runs under the lease

	mu           sync.Mutex
	fence        *int64    // of the next slot
	slots        int       // in this row
	since        time.Time // of the first slot in this row
	trustedUntil time.Time // before the lease can end at the server
	reason       Loss      // why it would end then
}

// startLease extends a lock until it is given back or lost.
func (l *Locker) startLease(ctx context.Context, key leaseKey, lock Lock) *lease {
	alive, lose := context.WithCancelCause(context.WithoutCancel(ctx))
	extending, stop := context.WithCancel(alive)
	lease := &lease{
		key: key, lock: lock, alive: alive, lose: lose, stop: stop, done: make(chan struct{}),
		fence: lock.Fence, since: time.Now(), trustedUntil: lock.trustedUntil, reason: LostBackend,
	}
	l.groups.mu.Lock()
	l.groups.leases[lock.Grant] = lease
	l.groups.mu.Unlock()
	go func() {
		defer close(lease.done)
		l.keepExtending(extending, lease)
		l.metrics.lease(context.Cause(alive))
		l.groups.mu.Lock()
		defer l.groups.mu.Unlock()
		delete(l.groups.leases, lock.Grant)
	}()
	return lease
}

// keepExtending extends each time a third of the lease has passed, until ctx ends,
// and ends the work when the lease could end.
func (l *Locker) keepExtending(ctx context.Context, lease *lease) {
	lock := lease.lock
	first := lock.TTL / 3
	if lock.unconfirmed {
		first = 0
	}
	next := time.NewTimer(first)
	defer next.Stop()
	end := time.NewTimer(time.Until(lock.trustedUntil))
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
		callCtx, cancel := context.WithDeadline(redis.WithBudget(ctx), lock.trustedUntil)
		extended, err := l.Extend(callCtx, lock.Claim, lease.key.ttl)
		cancel()
		switch {
		case errors.Is(err, models.ErrNotHeld):
			lease.revoke()
			return
		case err != nil:
			// Sooner when little is left, or one failed call would cost a short rest of a lease.
			next.Reset(min(lease.key.ttl/10, time.Second, max(time.Until(lock.trustedUntil)/4, 5*time.Millisecond)))
			continue
		}
		lease.extended(extended.trustedUntil)
		lock = extended
		end.Reset(time.Until(lock.trustedUntil))
		next.Reset(max(lock.TTL/3, time.Millisecond))
	}
}

func (l *Locker) endLease(ctx context.Context, lease *lease) {
	lease.stop()
	<-lease.done
	if !lease.givenBack {
		l.ReleaseAfter(ctx, lease.lock.Claim)
	}
}

// ReleaseAfter is Release at the end of a caller's work. It outlives ctx by up to 1 s, so that
// a caller who leaves gives the lock back, too. What cannot be sent waits in the outbox.
func (l *Locker) ReleaseAfter(ctx context.Context, claim Claim) {
	ctx, cancel := context.WithTimeout(redis.WithBudget(context.WithoutCancel(ctx)), cleanUpTime)
	defer cancel()
	_, _ = l.Release(ctx, claim)
}

// renewLease reserves fences for another row. If another instance waits it gives
// the lock back in the same step; an old lease is not renewed either.
func (l *Locker) renewLease(ctx context.Context, lease *lease) bool {
	if l.groups.alone(lease.key) || lease.alive.Err() != nil || lease.overdue(time.Now()) != nil ||
		time.Since(lease.lock.grantedAt) > l.opt.MaxHold/2 {
		return false
	}
	ctx, cancel := context.WithTimeout(redis.WithBudget(context.WithoutCancel(ctx)), cleanUpTime)
	defer cancel()
	lock := lease.lock
	got, err := l.run(ctx, l.scripts.extend, lock.Resource, credential(lock.Claim),
		milliseconds(lease.key.ttl), "renew", strconv.Itoa(handOversInARow))
	if err == nil && got.code == codeGivenBack {
		lease.givenBack = true
		l.table.release(lock.Claim)
		l.passedOn(got)
		return false
	}
	fence, parseErr := strconv.ParseInt(got.extra, 10, 64)
	if err != nil || parseErr != nil || got.code != codeDone {
		return false
	}
	lease.mu.Lock()
	defer lease.mu.Unlock()
	lease.fence, lease.slots, lease.since = &fence, 0, time.Now()
	return true
}

// slot is the lock as the next call to run under the lease sees it.
func (e *lease) slot() Lock {
	e.mu.Lock()
	defer e.mu.Unlock()
	lock := e.lock
	lock.Token = ""
	if e.fence != nil {
		fence := *e.fence
		next := fence + 1
		lock.Fence, e.fence = &fence, &next
	}
	e.slots++
	return lock
}

// mayHandOver reports whether the next call in this instance may go on without asking.
func (e *lease) mayHandOver() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := time.Now() // a process that was paused is ahead of the timer that ends alive
	return e.alive.Err() == nil && now.Before(e.trustedUntil) && e.slots < handOversInARow && now.Sub(e.since) < handOverFor
}

// overdue is the loss of a lease that could have ended at the server by now.
func (e *lease) overdue(now time.Time) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if now.Before(e.trustedUntil) {
		return nil
	}
	return &LostError{Resource: e.lock.Resource, Reason: e.reason}
}

func (e *lease) extended(until time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !until.After(e.trustedUntil) {
		e.reason = LostExpired // capped by MaxHold: nothing more to gain
	}
	e.trustedUntil = until
}

func (e *lease) revoke() {
	e.lose(&LostError{Resource: e.lock.Resource, Reason: LostRevoked})
}

// under is ctx until it or the lease ends.
func (e *lease) under(ctx context.Context) (work context.Context, done func()) {
	ended, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(e.alive, func() { cancel(context.Cause(e.alive)) })
	return leaseContext{ended, e, cancel}, func() { stop(); cancel(nil) }
}

// leaseContext is the context of work under a lease. Its Err asks the clock: after the process
// was paused, the timers that end the context have not run yet at the first look.
type leaseContext struct {
	context.Context //nolint:containedctx // it is a context itself
	lease           *lease
	cancel          context.CancelCauseFunc
}

func (c leaseContext) Err() error {
	if lost := c.lease.overdue(time.Now()); lost != nil {
		c.cancel(lost)
	}
	return c.Context.Err()
}

// revoke ends the work under a grant that is over. The message that brings this may
// be lost: the shard's count of forces makes up for it.
func (g *leaseGroups) revoke(grant string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if lease := g.leases[grant]; lease != nil {
		lease.revoke()
	}
}

// reasserted ends the row of a lease that the server had forgotten: others may
// have had the lock meanwhile, and the next slot needs a fence above theirs.
func (g *leaseGroups) reasserted(grant string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if lease := g.leases[grant]; lease != nil {
		lease.mu.Lock()
		defer lease.mu.Unlock()
		lease.slots = handOversInARow
	}
}

func (g *leaseGroups) in(shard int) (found []*lease) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, lease := range g.leases {
		if shardOf(lease.lock.Resource) == shard {
			found = append(found, lease)
		}
	}
	return found
}

// verifyLeases asks which leases of the shard stand. It fails if Redis did not answer
// about one.
func (l *Locker) verifyLeases(ctx context.Context, shard int) (failed error) {
	for _, lease := range l.groups.in(shard) {
		ctx := redis.WithBudget(ctx)
		epoch := l.table.epochOf(lease.lock.Claim)
		got, err := l.run(ctx, l.scripts.status, lease.lock.Resource)
		stands := got.grant == lease.lock.Grant
		if err == nil && !stands {
			// A free lock may be one that the server forgot: that is reasserted.
			stands, err = l.reassertClaim(ctx, lease.lock.Claim, epoch, got)
		}
		switch {
		case err != nil:
			failed = err
		case !stands:
			lease.revoke()
		}
	}
	return failed
}
