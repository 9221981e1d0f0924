package services

import (
	"context"
	"fmt"
	"time"

	"gatehouse/models"
)

// LockTokens are the signed tokens under which locks leave the server, for holders
// that are clients: LockTokenSigner signs, Locker knows whether they still hold.
// middleware.RequireLock asks it.
type LockTokens struct {
	locks  *Locker
	signer *LockTokenSigner
}

// NewLockTokens joins the two.
func NewLockTokens(locks *Locker, signer *LockTokenSigner) *LockTokens {
	return &LockTokens{locks: locks, signer: signer}
}

// Sign makes the token of a lock just granted, for one user; "" is whoever has the
// token. version is that of what the user read after the grant, 0 if there is no
// such thing. The token ends with the longest hold of the lock.
func (t *LockTokens) Sign(lock Lock, userID string, version int64) (string, error) {
	return t.signer.Sign(models.LockGrant{
		LockClaim: lock.LockClaim, UserID: userID, Fence: lock.Fence, Version: version, End: lock.Holder.Since.Add(t.locks.opt.MaxHold),
	})
}

// Verify answers what the token was signed for while it holds the resource's lock
// for that user. An empty token is models.ErrLockTokenRequired; one that is forged,
// another user's or resource's, ended or no longer the holder's is a
// *models.NotHeldError. Without Redis (open) a token that ought to hold passes
// unless this instance knows better, and degraded says so; closed, it is
// models.ErrUnavailable.
func (t *LockTokens) Verify(ctx context.Context, resource, userID, token string) (grant models.LockGrant, degraded bool, err error) {
	if grant, err = t.open(ctx, resource, userID, token); err != nil {
		return grant, false, err
	}
	degraded, err = t.locks.Check(ctx, grant.LockClaim)
	return grant, degraded, err
}

// open is Verify without asking whether the lock is still held.
func (t *LockTokens) open(ctx context.Context, resource, userID, token string) (models.LockGrant, error) {
	if token == "" {
		return models.LockGrant{}, fmt.Errorf("lock %s: %w", resource, models.ErrLockTokenRequired)
	}
	grant, ok := t.signer.Open(token, time.Now())
	if ok && grant.UserID == userID && grant.Resource == resource {
		return grant, nil
	}
	status, err := t.locks.Status(ctx, resource)
	if err != nil {
		return models.LockGrant{}, err
	}
	return models.LockGrant{}, &models.NotHeldError{Status: status}
}
