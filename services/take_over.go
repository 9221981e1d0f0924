package services

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gatehouse/models"
	"gatehouse/services/lock"
)

// defaultProtection is the default of ProcessesOptions.Protection.
const defaultProtection = 5 * time.Minute

// TakeOver says why a user may take a held lock over; "" if not.
type TakeOver string

// The reasons to take over.
const (
	TakeOverOwn            TakeOver = "own"             // the holder is the same user
	TakeOverProtectionOver TakeOver = "protection-over" // the holder gave no sign of life for ProcessesOptions.Protection
)

func (p *Processes) mayTakeOver(user models.UserRef, status models.LockStatus) TakeOver {
	switch {
	case !status.Held:
		return ""
	case status.Holder.UserID == user.ID:
		return TakeOverOwn
	case !time.Now().Before(status.ActiveAt.Add(p.opt.Protection)):
		return TakeOverProtectionOver
	}
	return ""
}

// activeAt is the holder's last sign of life: the grant, an extend, a write under the grant, or a
// draft. The first two are by the clock of Redis, the others by that of the instance that wrote.
// asked is how many requests for the lock are pending.
func (p *Processes) activeAt(ctx context.Context, id string, status models.LockStatus) (active time.Time, asked int, err error) {
	written, asked, err := p.store.LastActivity(ctx, id, status.Holder.UserID, status.Grant)
	if err != nil {
		return time.Time{}, 0, err
	}
	return later(written, status.ActiveAt), asked, nil
}

// acquireOrTakeOver is acquire for a user who wants to take the lock over if it is held. Who may
// not queues, if the request waits.
func (p *Processes) acquireOrTakeOver(id string, user models.UserRef, opt ProcessLockOptions) func(context.Context, time.Duration, lock.Request, []string) (lock.Lock, error) {
	return func(ctx context.Context, wait time.Duration, req lock.Request, others []string) (lock.Lock, error) {
		taken, err := p.acquire(ctx, 0, req, others)
		if errors.Is(err, models.ErrNotAcquired) {
			taken, err = p.takeOver(ctx, id, user, req, opt)
		}
		var refused *models.NotAcquiredError
		if wait <= 0 || !errors.As(err, &refused) {
			return taken, err
		}
		if req.Token == "" { // as Lock: refused before the wait, but for a lock of the user's own
			if err := p.checkLimit(ctx, user, opt.Most-1, opt.Most); err != nil {
				return lock.Lock{}, err
			}
		}
		taken, err = p.acquire(ctx, wait, req, nil)
		var stillRefused *models.NotAcquiredError
		if errors.As(err, &stillRefused) && stillRefused.Status.Held {
			// If the database does not tell, the refusal says nothing of a take-over.
			if active, _, err := p.activeAt(ctx, id, stillRefused.Status); err == nil {
				stillRefused.TakeOverAt = active.Add(p.opt.Protection)
			}
		}
		return taken, err
	}
}

// takeOver replaces the holder of a lock, if the user may. Its audit entry comes first, as that of
// ForceLock. The end of the former grant is stored before the new one is used: the database refuses
// the former holder from then on, also without Redis.
func (p *Processes) takeOver(ctx context.Context, id string, user models.UserRef, req lock.Request, opt ProcessLockOptions) (lock.Lock, error) {
	status, err := p.locks.Status(ctx, req.Resource)
	switch {
	case err != nil:
		return lock.Lock{}, err
	case !status.Held: // it ended since it was refused, or is promised to another request
		return p.locks.TryAcquire(ctx, req)
	}
	if status.ActiveAt, _, err = p.activeAt(ctx, id, status); err != nil {
		return lock.Lock{}, err
	}
	old := lock.Replaced{Grant: status.Grant, How: models.LockTakenOver}
	switch p.mayTakeOver(user, status) {
	case TakeOverOwn:
	case TakeOverProtectionOver:
		old.Idle = p.opt.Protection
		if err := p.checkLimit(ctx, user, opt.Most-1, opt.Most); err != nil {
			return lock.Lock{}, err
		}
	default:
		return lock.Lock{}, &models.NotAcquiredError{Status: status, TakeOverAt: status.ActiveAt.Add(p.opt.Protection)}
	}
	process, err := p.store.Process(ctx, id) // before the holder loses the lock for nothing
	if err != nil {
		return lock.Lock{}, err
	}
	if !opt.IfMatch.Matches(process.Version) {
		return lock.Lock{}, &models.ConflictError{Reason: models.ErrPreconditionFailed, Current: process}
	}
	entry := opt.Client.entry(models.AuditLockTakenOver, user.Email, req.Resource, "held by "+status.Holder.Email+because(req.Holder.Reason))
	taken, err := p.replaceHolder(ctx, req, old, entry, status.Ended(models.LockEnd{How: models.LockTakenOver, By: user, Reason: req.Holder.Reason}))
	var refused *models.NotAcquiredError
	if errors.As(err, &refused) && refused.Status.Held {
		refused.TakeOverAt = refused.Status.ActiveAt.Add(p.opt.Protection)
	}
	return taken, err
}

// replaceHolder gives the lock of one grant to a request: the audit entry first, and the end of the
// former grant before the new one is used.
func (p *Processes) replaceHolder(ctx context.Context, req lock.Request, old lock.Replaced, entry models.AuditEntry, ended models.EndedLock) (lock.Lock, error) {
	if err := p.audits.add(ctx, entry); err != nil {
		return lock.Lock{}, err
	}
	taken, err := p.locks.Replace(ctx, req, old)
	if err != nil {
		entry.Detail = "not done: " + entry.Detail
		if errors.Is(err, models.ErrUnavailable) {
			entry.Detail = "not acknowledged: " + entry.Detail
		}
		_ = p.audits.add(ctx, entry) // without it the first entry claims too much, which is safe
		return lock.Lock{}, err
	}
	ended.End.At = time.Now().UTC()
	if err := p.store.AddLockEnds(context.WithoutCancel(ctx), ended); err != nil {
		p.locks.ReleaseAfter(ctx, taken.Claim)
		return lock.Lock{}, fmt.Errorf("store that the lock of %s ended: %w", req.Resource, err)
	}
	return taken, nil
}

// because is a reason at the end of the detail of an audit entry.
func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}
