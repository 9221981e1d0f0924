package services

import (
	"context"
	"errors"
	"time"

	"gatehouse/models"
	"gatehouse/services/lock"
)

const quickUpdateTTL = 60 * time.Second

// QuickUpdateOptions are options of QuickUpdate; its fields are those of ProcessLockOptions.
type QuickUpdateOptions struct {
	Wait    time.Duration
	IfMatch *models.IfMatch
	Allowed func(ctx context.Context) error
}

// QuickUpdate changes the named fields under a lock of its own, which lasts up to 60 s. It waits
// opt.Wait for the lock, and tries again within that time if a write without the lock came in
// between. degraded: the lock was granted without Redis. Errors:
//
//   - models.ErrNotFound: there is no such process,
//   - *models.NotAcquiredError: the lock was not free in time,
//   - *models.ConflictError: opt.IfMatch does not match (models.ErrPreconditionFailed), or other
//     writes kept coming in between (models.ErrVersionConflict),
//   - the error of opt.Allowed.
func (p *Processes) QuickUpdate(ctx context.Context, user models.UserRef, id string, opt QuickUpdateOptions, patch models.ProcessPatch) (process models.Process, degraded bool, err error) {
	deadline := time.Now().Add(opt.Wait)
	taken, err := p.acquire(ctx, opt.Wait, lock.Request{
		Resource: Resource(id), TTL: quickUpdateTTL,
		Holder: models.Holder{UserID: user.ID, Email: user.Email, Reason: "quick update"},
	}, nil)
	if err != nil {
		return models.Process{}, false, p.orNotFound(ctx, id, err)
	}
	defer p.locks.ReleaseAfter(ctx, taken.Claim)
	if err := allowedAfter(ctx, opt.Wait, opt.Allowed); err != nil {
		return models.Process{}, taken.Degraded, err
	}
	ctx = context.WithoutCancel(ctx) // ctx may end a wait, not a write
	for {
		process, err = p.patch(ctx, user, id, taken, opt.IfMatch, patch)
		if !errors.Is(err, models.ErrVersionConflict) || !time.Now().Before(deadline) {
			return process, taken.Degraded, p.withStatus(ctx, err)
		}
	}
}

func (p *Processes) patch(ctx context.Context, user models.UserRef, id string, taken lock.Lock, match *models.IfMatch, patch models.ProcessPatch) (models.Process, error) {
	current, err := p.store.Process(ctx, id)
	if err != nil {
		return models.Process{}, err
	}
	if !match.Matches(current.Version) {
		return models.Process{}, &models.ConflictError{Reason: models.ErrPreconditionFailed, Current: current}
	}
	// The condition is the version that was read under this grant, which no other request has.
	return p.store.UpdateProcess(ctx, id, user.ID, patch.Apply(current), models.WriteGuard{
		Grant: taken.Grant, GrantedVersion: current.Version, How: models.HowQuickUpdate, Fence: taken.Fence,
	})
}
