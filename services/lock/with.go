package lock

import (
	"context"
	"errors"

	"gatehouse/models"
	"gatehouse/services/redis"
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
// ended at the server, with a *LockLostError as its cause; fn must stop then. After a
// wait fn may begin before the grant is confirmed to this instance; its context ends if
// it is not. The error is fn's, joined with the cause if the lock was lost under it.
//
// Calls in one instance for the same resource, holder and TTL pass one lease on
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
	defer l.passLease(ctx, lease)
	work, done := lease.under(ctx)
	defer done()
	err = fn(work, lease.turn())
	var lost *LostError
	if errors.As(context.Cause(work), &lost) && !errors.Is(err, lost) {
		return errors.Join(err, lost)
	}
	return err
}

// ReleaseAfter outlives the caller's context: a lock is given back even when the
// caller has left.
func (l *Locker) ReleaseAfter(ctx context.Context, claim Claim) {
	ctx, cancel := context.WithTimeout(redis.WithBudget(context.WithoutCancel(ctx)), cleanUpTime)
	defer cancel()
	_, _ = l.Release(ctx, claim) // a release that cannot be sent is owed
}
