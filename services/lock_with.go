package services

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gatehouse/models"
)

// LockLostError is the cause of WithLock's context when the lock ended before
// the work did. It matches models.ErrNotHeld.
type LockLostError struct {
	Resource string
	Reason   LockLost
}

// LockLost says how a lock was lost.
type LockLost string

// The ways to lose a lock while working under it.
const (
	LockExpired LockLost = "expired" // the longest hold was reached
	LockRevoked LockLost = "revoked" // forced, or forgotten by the server and taken by somebody else
	LockBackend LockLost = "backend" // Redis could not be asked in time to extend
)

func (e *LockLostError) Error() string { return "lock " + e.Resource + " lost: " + string(e.Reason) }

// Unwrap makes errors.Is(err, models.ErrNotHeld) true.
func (e *LockLostError) Unwrap() error { return models.ErrNotHeld }

// WithLock waits for the lock as Acquire does, runs fn while it extends the
// lease by itself, and releases. fn's context ends before the lease can have
// ended at the server, with a *LockLostError as its cause; fn must stop then.
// The error is fn's, joined with the cause if the lock was lost under it.
func (l *Locker) WithLock(ctx context.Context, req LockRequest, fn func(ctx context.Context, lock Lock) error) error {
	lock, err := l.Acquire(ctx, req)
	if err != nil {
		return err
	}
	work, cancel := context.WithCancelCause(ctx)
	extending := make(chan struct{})
	stop := make(chan struct{})
	go func() {
		defer close(extending)
		l.keepExtending(ctx, lock, orDefault(req.TTL, DefaultLockTTL), stop, cancel)
	}()
	defer func() {
		close(stop)
		<-extending
		cancel(nil)
		l.releaseAfter(ctx, lock.LockClaim)
	}()
	err = fn(work, lock)
	var lost *LockLostError
	if errors.As(context.Cause(work), &lost) && !errors.Is(err, lost) {
		return errors.Join(err, lost)
	}
	return err
}

// releaseAfter outlives the caller's context: a lock is given back even when the
// caller has left.
func (l *Locker) releaseAfter(ctx context.Context, claim LockClaim) {
	ctx, cancel := context.WithTimeout(WithRedisBudget(context.WithoutCancel(ctx)), cleanUpTime)
	defer cancel()
	_, _ = l.Release(ctx, claim) // a release that cannot be sent is owed
}

// keepExtending extends each time a third of the lease has passed, and ends the
// work when the lease could end.
func (l *Locker) keepExtending(ctx context.Context, lock Lock, ttl time.Duration, stop <-chan struct{}, lost context.CancelCauseFunc) {
	reason := LockBackend
	next := time.NewTimer(lock.TTL / 3)
	defer next.Stop()
	end := time.NewTimer(time.Until(lock.ends))
	defer end.Stop()
	for {
		select {
		case <-stop:
			return
		case <-end.C:
			lost(&LockLostError{Resource: lock.Resource, Reason: reason})
			return
		case <-next.C:
		}
		callCtx, cancel := context.WithDeadline(WithRedisBudget(ctx), lock.ends)
		extended, err := l.Extend(callCtx, lock.LockClaim, ttl)
		cancel()
		switch {
		case errors.Is(err, models.ErrNotHeld):
			lost(&LockLostError{Resource: lock.Resource, Reason: LockRevoked})
			return
		case err != nil:
			next.Reset(min(ttl/10, time.Second))
			continue
		}
		if !extended.ends.After(lock.ends) {
			reason = LockExpired // capped by MaxHold: nothing more to gain
		}
		lock = extended
		end.Reset(time.Until(lock.ends))
		next.Reset(max(lock.TTL/3, time.Millisecond))
	}
}

func isOneOf(err error, targets ...error) bool {
	for _, target := range targets {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// fenceText is the fence as the scripts read it, "" if there is none.
func fenceText(s models.LockStatus) string {
	if s.Fence == nil {
		return ""
	}
	return fmt.Sprint(*s.Fence)
}
