package services

import (
	"context"
	"errors"
	"time"

	"gatehouse/models"
	"gatehouse/services/merge"
)

// SaveOptions says how a page saves.
type SaveOptions struct {
	// Base is the version from which the user began, or which the user has seen since.
	Base int64
	// TTL is the lease of a lock that has to be taken anew, and the time left of the lock after the
	// save. Zero is 300 s.
	TTL time.Duration
	// Most and Client are those of ProcessLockOptions.
	Most   int
	Client Client
}

// Saved is what a save came to.
type Saved struct {
	Process models.Process
	// Lock is the lock that was taken anew for the save; nil if it was saved under the former one.
	Lock *ProcessLock
	// Degraded: the lock was not checked in Redis, and only the database decided.
	Degraded bool
}

// Save is Replace for a user who edits on a page, and knows nothing of tokens and versions. No
// write of another user is ever overwritten, and the user's own are no conflict:
//
//   - What the user saved since Base under the same lock, in a second tab, merges with fields; of
//     a field that both changed, fields has the later text.
//   - A lock that ran out or was given back, and that nobody took since, is taken anew. So is one
//     that was granted before a write that the user has seen since.
//
// Errors:
//
//   - models.ErrNotFound: there is no such process,
//   - models.ErrLockTokenRequired: token is empty,
//   - *models.NotHeldError: the lock is over, and not for the user to take anew,
//   - *models.ValidationError: the process has no version Base yet,
//   - *models.ConflictError: another write came in since Base.
func (p *Processes) Save(ctx context.Context, user models.UserRef, id, token string, fields models.ProcessFields, opt SaveOptions) (Saved, error) {
	guard, grant, degraded, err := p.guard(ctx, user, id, token, nil)
	if nobodyTook(err, user) {
		return p.saveAnew(ctx, user, id, fields, opt)
	}
	if err != nil {
		return Saved{Degraded: degraded}, err
	}
	guard.IfMatch = &opt.Base
	process, err := p.store.UpdateProcess(ctx, id, user.ID, fields, guard)
	err = knownBase(err, opt.Base)
	var conflict *models.ConflictError
	switch {
	case errors.Is(err, models.ErrVersionConflict): // Base is the current version: only the grant is older
		return p.saveAnew(ctx, user, id, fields, opt)
	case errors.As(err, &conflict) && opt.Base >= grant.Version:
		// If the current version was written under this grant, all since Base were.
		process, err = p.saveOverOwn(ctx, user, id, fields, opt.Base, guard, conflict)
	}
	if err == nil {
		p.keepLease(ctx, user, grant, opt.TTL)
	}
	return Saved{Process: process, Degraded: degraded}, p.withStatus(ctx, err)
}

// nobodyTook reports whether a lock ended without anybody else, and is free.
func nobodyTook(err error, user models.UserRef) bool {
	var lost *models.NotHeldError
	if !errors.As(err, &lost) || lost.Status.Held || lost.EndedBy == nil {
		return false
	}
	end := lost.EndedBy
	return end.How == models.LockExpired || end.How == models.LockReleased && end.By.ID == user.ID
}

// saveAnew saves under a lock that it takes for it, also in place of the user's own. With an error
// the user has no lock that the user did not have before.
func (p *Processes) saveAnew(ctx context.Context, user models.UserRef, id string, fields models.ProcessFields, opt SaveOptions) (Saved, error) {
	base := &models.IfMatch{Versions: []int64{opt.Base}}
	taken, err := p.Lock(ctx, user, id, ProcessLockOptions{TTL: opt.TTL, IfMatch: base, TakeOver: true, Most: opt.Most, Client: opt.Client})
	if err != nil {
		return Saved{Degraded: taken.Degraded}, knownBase(err, opt.Base)
	}
	process, degraded, err := p.Replace(ctx, user, id, taken.Token, base, fields)
	if err != nil {
		p.locks.ReleaseAfter(ctx, taken.Claim)
		return Saved{Degraded: degraded}, err
	}
	return Saved{Process: process, Lock: &taken, Degraded: degraded}, nil
}

// knownBase is a refusal, unless it was for a version that there is not yet: then it says that.
func knownBase(refused error, base int64) error {
	var conflict *models.ConflictError
	if errors.As(refused, &conflict) && base > conflict.Current.Version {
		return models.Invalid("base", "must be a version of the process")
	}
	return refused
}

// saveOverOwn merges with what was written under the same grant. The database refuses if that is
// not so.
func (p *Processes) saveOverOwn(ctx context.Context, user models.UserRef, id string, fields models.ProcessFields, base int64, guard models.WriteGuard, conflict *models.ConflictError) (models.Process, error) {
	was, err := p.store.Version(ctx, id, base)
	if err != nil && !errors.Is(err, models.ErrNotFound) {
		return models.Process{}, err
	}
	if err == nil {
		began := models.ProcessPatch{}.Apply(was)
		fields = merge.ThreeWay(&began, fields, models.ProcessPatch{}.Apply(conflict.Current)).Result()
	}
	guard.IfMatch = &conflict.Current.Version
	process, err := p.store.UpdateProcess(ctx, id, user.ID, fields, guard)
	if errors.Is(err, models.ErrVersionConflict) || errors.Is(err, models.ErrPreconditionFailed) {
		return models.Process{}, conflict
	}
	return process, err
}

// keepLease makes the time left of a lock ttl again, as a save is a sign of life. The save stands,
// whatever becomes of that.
func (p *Processes) keepLease(ctx context.Context, user models.UserRef, grant models.LockGrant, ttl time.Duration) {
	if ttl == 0 {
		ttl = DefaultProcessTTL
	}
	_, _ = p.locks.ExtendFor(ctx, grant.LockClaim, p.holderOf(user, grant), ttl)
}

// Editing is a lock as its holder's page shows it.
type Editing struct {
	Process models.Process
	Grant   models.LockGrant
	// Status is that of the lock. Without Redis it may be what this instance does not know: then
	// ExpiresAt is zero.
	Status   models.LockStatus
	Degraded bool // not checked in Redis
}

// Editing returns the process and the lock of a holder. Its errors are those of Replace, but for
// conflicts.
func (p *Processes) Editing(ctx context.Context, user models.UserRef, id, token string) (Editing, error) {
	process, err := p.store.Process(ctx, id)
	if err != nil {
		return Editing{}, err
	}
	grant, degraded, err := p.tokens.Verify(ctx, Resource(id), user.ID, token)
	if err != nil {
		return Editing{Process: process, Degraded: degraded}, p.notHeld(ctx, id, grant, err)
	}
	status, err := p.locks.Status(ctx, Resource(id))
	if err != nil {
		return Editing{Process: process, Degraded: degraded}, err
	}
	if status.Grant != grant.Grant {
		status = models.LockStatus{
			Resource: status.Resource, Degraded: status.Degraded,
			Holder: p.holderOf(user, grant),
		}
	}
	return Editing{Process: process, Grant: grant, Status: status, Degraded: degraded || status.Degraded}, nil
}
