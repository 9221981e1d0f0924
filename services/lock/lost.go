package lock

import (
	"context"
	"time"

	"gatehouse/services/redis"
)

// leaseContext is what work under a lease gets. Its Err asks the clock, so that
// it is right at the first look after the process was paused, when the timers that
// end the context have not run yet.
type leaseContext struct {
	context.Context //nolint:containedctx // it is a context itself
	lease           *lockLease
	cancel          context.CancelCauseFunc
}

func (c leaseContext) Err() error {
	if lost := c.lease.overdue(time.Now()); lost != nil {
		c.cancel(lost)
	}
	return c.Context.Err()
}

// under is ctx until it or the lease ends.
func (e *lockLease) under(ctx context.Context) (work context.Context, done func()) {
	ended, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(e.alive, func() { cancel(context.Cause(e.alive)) })
	return leaseContext{ended, e, cancel}, func() { stop(); cancel(nil) }
}

// overdue is the loss of a lease that could have ended at the server by now.
func (e *lockLease) overdue(now time.Time) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if now.Before(e.ends) {
		return nil
	}
	return &LostError{Resource: e.lock.Resource, Reason: e.reason}
}

func (e *lockLease) extended(ends time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !ends.After(e.ends) {
		e.reason = LostExpired // capped by MaxHold: nothing more to gain
	}
	e.ends = ends
}

func (e *lockLease) revoke() {
	e.lose(&LostError{Resource: e.lock.Resource, Reason: LostRevoked})
}

func (g *lockGroups) begin(lease *lockLease) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.leases[lease.lock.Grant] = lease
}

func (g *lockGroups) end(lease *lockLease) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.leases, lease.lock.Grant)
}

// revoke tells the holder of a grant that it is over. A message that brings this may
// be lost: the shard's count of forces makes up for it.
func (g *lockGroups) revoke(grant string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if lease := g.leases[grant]; lease != nil {
		lease.revoke()
	}
}

// reclaimed ends the row of a lease that the server had forgotten: others may
// have had the lock meanwhile, and the next turn needs a fence above theirs.
func (g *lockGroups) reclaimed(grant string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if lease := g.leases[grant]; lease != nil {
		lease.mu.Lock()
		defer lease.mu.Unlock()
		lease.turns = handOversInARow
	}
}

func (g *lockGroups) in(shard int) []*lockLease {
	g.mu.Lock()
	defer g.mu.Unlock()
	var found []*lockLease
	for _, lease := range g.leases {
		if shardOf(lease.lock.Resource) == shard {
			found = append(found, lease)
		}
	}
	return found
}

// lookAfter asks which leases of the shard stand. It fails if Redis did not tell of
// one.
func (l *Locker) lookAfter(ctx context.Context, shard int) (failed error) {
	for _, lease := range l.groups.in(shard) {
		ctx := redis.WithBudget(ctx)
		got, err := l.run(ctx, l.scripts.status, lease.lock.Resource)
		stands := got.grant == lease.lock.Grant
		if err == nil && !stands {
			// A free lock may be one that the server forgot: that is claimed again.
			stands, err = l.claimAgain(ctx, lease.lock.Claim, got)
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

// lockSigns call for a look at the leases of a shard when they change.
type lockSigns struct {
	forced string // how many locks were, as a beat has answered
	lost   uint64 // how many connections were before it: behind a new one may be a replica that missed a write
}
