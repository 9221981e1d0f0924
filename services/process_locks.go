package services

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"gatehouse/models"
	"gatehouse/services/lock"
)

// DefaultProcessTTL is the lease of a process lock without a TTL of its own.
const DefaultProcessTTL = 300 * time.Second

// ProcessLockOptions says how to lock a process. The zero value does not wait.
type ProcessLockOptions struct {
	TTL            time.Duration // zero is 300 s
	Reason         string
	Wait           time.Duration // how long to queue; zero answers at once
	IfMatch        *models.IfMatch
	IdempotencyKey string // the same key gets the same grant and token while that lives
	// TakeOver ends the grant of a holder who is the same user, or who gave no sign of life for
	// ProcessesOptions.Protection, in place of a refusal. Client is for the audit.
	TakeOver bool
	Client   Client
	// Most is how many processes the user can have locked, with this one. The user never keeps
	// more; of several requests at the same time, more than necessary can be refused. Without
	// Redis an instance counts the locks that it knows itself. Zero is no limit.
	Most int
	// Allowed is called after a wait, before the grant is used: the user may have lost the right
	// in the meantime. Its error gives the lock back. Nil allows.
	Allowed func(ctx context.Context) error
}

// ProcessLock is a lock on a process, and the process as read after the grant.
type ProcessLock struct {
	lock.Lock
	Token   string // the signed lock token
	Process models.Process
}

// Lock locks a process for a user. Errors:
//
//   - models.ErrNotFound: there is no such process,
//   - *models.NotAcquiredError: another grant holds the lock, or waiters come first; with
//     opt.TakeOver it says from when on the lock can be taken over,
//   - *models.TooManyLocksError: the user would have more than opt.Most,
//   - *models.ConflictError (models.ErrPreconditionFailed): opt.IfMatch does not match,
//   - models.ErrNotAcquired and the cause of ctx: ctx ended during the wait; models.ErrUnavailable
//     and that cause: it ended just after the wait,
//   - the error of opt.Allowed.
//
// With an error the user holds no lock that the user did not hold before. Whether there is the
// process shows only after the grant, or explains a refusal: the lock of one that does not exist is
// given back. Degraded is set even
// with an error, if the grant was made, and given back, without Redis.
func (p *Processes) Lock(ctx context.Context, user models.UserRef, id string, opt ProcessLockOptions) (ProcessLock, error) {
	token, others := p.idempotentTokens(user, id, opt.IdempotencyKey)
	if opt.Wait > 0 && token == "" && !opt.TakeOver { // refused before the wait; a repeated request takes no new lock
		if err := p.checkLimit(ctx, user, opt.Most-1, opt.Most); err != nil {
			return ProcessLock{}, p.orNotFound(ctx, id, err)
		}
	}
	req := lock.Request{
		Resource: Resource(id), TTL: cmp.Or(opt.TTL, DefaultProcessTTL), Token: token,
		Holder: models.Holder{UserID: user.ID, Email: user.Email, Reason: opt.Reason},
	}
	take := p.acquire
	if opt.TakeOver {
		take = p.acquireOrTakeOver(id, user, opt)
	}
	taken, err := take(ctx, opt.Wait, req, others)
	if err != nil {
		return ProcessLock{}, p.orNotFound(ctx, id, err)
	}
	err = allowedAfter(ctx, opt.Wait, opt.Allowed)
	if err == nil && !taken.Repeated { // this lock counts, too: of two concurrent requests each sees the other's
		if err = p.checkLimit(context.WithoutCancel(ctx), user, opt.Most, opt.Most); err != nil {
			err = p.orNotFound(ctx, id, err)
		}
	}
	var granted ProcessLock
	if err == nil { // ctx may end a wait, not the work after it
		granted, err = p.granted(context.WithoutCancel(ctx), user, id, taken, opt)
	}
	if err == nil && !taken.Repeated && ctx.Err() != nil { // the client has left
		granted, err = ProcessLock{}, fmt.Errorf("lock process %s: %w: %w", id, models.ErrUnavailable, context.Cause(ctx))
	}
	if err != nil && !taken.Repeated {
		p.locks.ReleaseAfter(ctx, taken.Claim)
	}
	granted.Degraded = taken.Degraded
	return granted, err
}

// checkLimit refuses if the user has more than held locks; a limit of 0 is no limit.
func (p *Processes) checkLimit(ctx context.Context, user models.UserRef, held, limit int) error {
	if limit > 0 && p.locks.HoldsMore(ctx, user.ID, held) {
		return &models.TooManyLocksError{Limit: limit}
	}
	return nil
}

// allowedAfter calls allowed for a request that may have waited.
func allowedAfter(ctx context.Context, wait time.Duration, allowed func(context.Context) error) error {
	if wait <= 0 || allowed == nil {
		return nil
	}
	return allowed(ctx)
}

// acquire looks for a grant with one of the other tokens before it waits.
func (p *Processes) acquire(ctx context.Context, wait time.Duration, req lock.Request, others []string) (lock.Lock, error) {
	if wait <= 0 || len(others) > 0 {
		taken, err := p.locks.TryAcquire(ctx, req)
		for _, token := range others {
			if errors.Is(err, models.ErrNotAcquired) {
				repeat := req
				repeat.Token = token
				taken, err = p.locks.TryAcquire(ctx, repeat)
			}
		}
		if wait <= 0 || !errors.Is(err, models.ErrNotAcquired) {
			return taken, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return p.locks.Acquire(ctx, req)
}

// granted reads the process after the grant and makes the token.
func (p *Processes) granted(ctx context.Context, user models.UserRef, id string, taken lock.Lock, opt ProcessLockOptions) (ProcessLock, error) {
	process, err := p.store.Process(ctx, id)
	if err != nil {
		return ProcessLock{}, err
	}
	if !opt.IfMatch.Matches(process.Version) {
		return ProcessLock{}, &models.ConflictError{Reason: models.ErrPreconditionFailed, Current: process}
	}
	if token, ok := p.signer.Unseal(taken.Metadata); ok && taken.Metadata != "" {
		return ProcessLock{Lock: taken, Token: token, Process: process}, nil
	}
	token, err := p.tokens.Sign(taken, user.ID, process.Version)
	if err != nil {
		return ProcessLock{}, err
	}
	if opt.IdempotencyKey != "" {
		if token, err = p.keepToken(ctx, taken, token); err != nil {
			return ProcessLock{}, err
		}
	}
	return ProcessLock{Lock: taken, Token: token, Process: process}, nil
}

// keepToken stores the sealed token with its grant, so that a repeated acquire returns the same
// token. Of two concurrent acquires the first one's token stays.
func (p *Processes) keepToken(ctx context.Context, taken lock.Lock, token string) (string, error) {
	sealed, err := p.signer.Seal(token)
	if err != nil {
		return "", err
	}
	stands, err := p.locks.Metadata(ctx, taken, sealed)
	if err != nil {
		return "", err
	}
	if kept, ok := p.signer.Unseal(stands); ok {
		return kept, nil
	}
	return token, nil
}

// idempotentTokens derives the grant's token from user, process and key: it is always the same,
// and unguessable without the secret. others are the tokens of the older secrets. Without a
// key both are empty: the locker makes a new token.
func (p *Processes) idempotentTokens(user models.UserRef, id, key string) (token string, others []string) {
	if key == "" {
		return "", nil
	}
	var tokens []string
	for _, secret := range p.secrets {
		mac := hmac.New(sha256.New, secret)
		fmt.Fprintf(mac, "%q %q %q", user.ID, id, key)
		tokens = append(tokens, hex.EncodeToString(mac.Sum(nil)))
	}
	return tokens[0], tokens[1:]
}

// Extend sets the time left of a lock to ttl, zero is 300 s, but not beyond the locker's longest
// hold. Errors are models.ErrNotFound, models.ErrLockTokenRequired and *models.NotHeldError as
// in Replace.
func (p *Processes) Extend(ctx context.Context, user models.UserRef, id, token string, ttl time.Duration) (lock.Lock, error) {
	grant, err := p.tokens.Open(ctx, Resource(id), user.ID, token)
	if err != nil {
		return lock.Lock{}, p.notHeld(ctx, id, grant, err)
	}
	extended, err := p.locks.ExtendFor(ctx, grant.LockClaim, p.holderOf(user, grant), cmp.Or(ttl, DefaultProcessTTL))
	if err != nil {
		return lock.Lock{}, p.notHeld(ctx, id, grant, err)
	}
	return extended, nil
}

// Unlock releases a lock. degraded: it is released once Redis is back. Its errors are those of
// Extend.
func (p *Processes) Unlock(ctx context.Context, user models.UserRef, id, token string) (degraded bool, err error) {
	grant, err := p.tokens.Open(ctx, Resource(id), user.ID, token)
	if err == nil {
		degraded, err = p.locks.Release(ctx, grant.LockClaim)
	}
	if err != nil {
		return degraded, p.notHeld(ctx, id, grant, err)
	}
	p.opt.Ends.LockEnded(p.endedBy(user, grant, models.LockReleased))
	if p.seen.has(id) {
		select {
		case p.freed <- struct{}{}:
		default: // KeepSettling is about to look
		}
	}
	return degraded, nil
}

// endedBy is the grant of a lock token that its holder ends now.
func (p *Processes) endedBy(user models.UserRef, grant models.LockGrant, how string) models.EndedLock {
	return models.EndedLock{
		Grant: grant.Grant, Resource: grant.Resource, Fence: grant.Fence, Holder: p.holderOf(user, grant),
		End: models.LockEnd{How: how, By: user, At: time.Now().UTC()},
	}
}

// holderOf is the holder of a lock token, as far as the token says.
func (p *Processes) holderOf(user models.UserRef, grant models.LockGrant) models.Holder {
	return models.Holder{UserID: user.ID, Email: user.Email, Since: p.tokens.GrantedAt(grant)}
}

// ProcessLockStatus is the state of a process's lock, as one user sees it.
type ProcessLockStatus struct {
	models.LockStatus                      // ActiveAt knows of writes, too, and Waiting of who asked
	TakeOver          TakeOver             // what the user may do
	Asked             int                  // how many of those who wait asked for it
	Requests          []models.LockRequest // the first of theirs; shown to the holder and administrators only
}

// LockStatus returns the state of a process's lock; models.ErrNotFound without such a process.
func (p *Processes) LockStatus(ctx context.Context, user models.UserRef, id string) (ProcessLockStatus, error) {
	process, err := p.store.Process(ctx, id)
	if err != nil {
		return ProcessLockStatus{}, err
	}
	return p.LockStatusOf(ctx, user, process)
}

// LockStatusOf is LockStatus for a caller who has read the process, and does not read it again.
func (p *Processes) LockStatusOf(ctx context.Context, user models.UserRef, process models.Process) (ProcessLockStatus, error) {
	status, err := p.locks.Status(ctx, Resource(process.ID))
	if err != nil || !status.Held {
		return ProcessLockStatus{LockStatus: status}, err
	}
	active, asked, err := p.activeAt(ctx, process.ID, status)
	if err != nil {
		return ProcessLockStatus{}, err
	}
	status.ActiveAt = active
	status.Waiting += asked
	answer := ProcessLockStatus{LockStatus: status, TakeOver: p.mayTakeOver(user, status), Asked: asked}
	if asked > 0 {
		answer.Requests, err = p.store.PendingLockRequests(ctx, process.ID, requestsListed)
	}
	return answer, err
}
