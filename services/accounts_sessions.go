package services

import (
	"context"
	"errors"
	"fmt"
	"time"

	"gatehouse/models"
)

// SignOut ends a session. One that has ended already is no error.
func (a *Accounts) SignOut(ctx context.Context, session models.Session, client Client) error {
	return a.audited(ctx, func(ctx context.Context) error {
		if err := a.sessions.End(ctx, models.Ending{Hash: session.Hash}); !errors.Is(err, models.ErrNotFound) {
			return err
		}
		return nil
	}, auditOf(models.AuditSignOut, session.User.Email, session.User.ID, client, ""))
}

// Supersede ends the session that a client had when it signed in and got fresh. If that
// fails fresh ends as well: the client does not get its token.
func (a *Accounts) Supersede(ctx context.Context, old, fresh models.Session, client Client) error {
	err := a.SignOut(ctx, old, client)
	if err != nil {
		_ = a.sessions.End(ctx, models.Ending{Hash: fresh.Hash}) // if this fails, the session ends unused
	}
	return err
}

// EndSession ends one session of the user of session. models.ErrNotFound if the user has none
// with this ID.
func (a *Accounts) EndSession(ctx context.Context, session models.Session, id string, client Client) error {
	return a.audited(ctx, func(ctx context.Context) error {
		return a.sessions.End(ctx, models.Ending{UserID: session.User.ID, ID: id})
	}, auditOf(models.AuditSessionRevoked, session.User.Email, session.User.ID, client, "session "+id))
}

// EndOtherSessions ends all sessions of the user of session but this one. If this one has ended
// in the meantime it does nothing and returns models.ErrNotFound.
func (a *Accounts) EndOtherSessions(ctx context.Context, session models.Session, client Client) error {
	return a.audited(ctx, func(ctx context.Context) error {
		return a.sessions.End(ctx, models.Ending{UserID: session.User.ID, Keep: session.Hash})
	}, auditOf(models.AuditSessionsRevoked, session.User.Email, session.User.ID, client, "all others"))
}

// EndUserSessions ends all sessions of a user; models.ErrNotFound if there is no such user.
func (a *Accounts) EndUserSessions(ctx context.Context, actor, userID string, client Client) error {
	return a.audited(ctx, func(ctx context.Context) error {
		return a.sessions.DeleteUser(ctx, userID)
	}, auditOf(models.AuditSessionsRevoked, actor, userID, client, "all"))
}

// EndAllSessions ends all sessions of all users but this one. If this one has ended in the
// meantime it does nothing and returns models.ErrNotFound.
func (a *Accounts) EndAllSessions(ctx context.Context, session models.Session, client Client) error {
	return a.audited(ctx, func(ctx context.Context) error {
		return a.sessions.End(ctx, models.Ending{Everybody: true, Keep: session.Hash})
	}, client.entry(models.AuditSessionsRevoked, session.User.Email, "everybody", "all but this one"))
}

// ForceLock ends the lock of a resource, whoever holds it, and returns its former state. With a
// fence it ends only the grant of that fence: models.ErrOtherFence if the lock has another one
// by now. models.ErrNotFound if the resource is not locked. Without Redis it does what the
// locker's OnRedisDown says: the state is Degraded, or the error is models.ErrUnavailable.
//
// It stores the audit entry first: Redis and the database share no transaction, and no lock is
// forced without an entry. If Redis does not acknowledge, a second entry says so.
func (a *Accounts) ForceLock(ctx context.Context, actor models.UserRef, resource, reason string, fence *int64, client Client) (models.LockStatus, error) {
	now, err := a.locks.Status(ctx, resource)
	switch {
	case err != nil:
		return now, err
	case !now.Held:
		return now, fmt.Errorf("force %s: %w", resource, models.ErrNotFound)
	case fence != nil && now.Fence != nil && *now.Fence != *fence:
		return now, fmt.Errorf("%w: %w", models.ErrOtherFence, &models.NotHeldError{Status: now})
	}
	entry := client.entry(models.AuditLockForced, actor.Email, resource, "held by "+now.Holder.Email+": "+reason)
	if err := a.audit(ctx, entry); err != nil {
		return now, err
	}
	was, err := a.locks.ForceRelease(ctx, resource, fence)
	if err == nil {
		a.recordEnds(ctx, models.LockEnd{How: models.LockForced, By: actor, Reason: reason}, was)
		return was, nil
	}
	entry.Detail = "not acknowledged: " + entry.Detail // the lock may have ended, if only the answer was lost
	_ = a.audit(ctx, entry)                            // without it the first entry claims too much, which is safe
	if errors.Is(err, models.ErrNotHeld) {
		err = fmt.Errorf("%w: %w", models.ErrOtherFence, err)
	}
	return was, err
}

// recordEnds stores that locks have ended, for who held them. It outlives the request.
func (a *Accounts) recordEnds(ctx context.Context, end models.LockEnd, locks ...models.LockStatus) {
	if len(locks) == 0 {
		return
	}
	end.At = time.Now().UTC()
	ends := make([]models.EndedLock, 0, len(locks))
	for _, was := range locks {
		ends = append(ends, was.Ended(end))
	}
	if err := a.store.AddLockEnds(context.WithoutCancel(ctx), ends...); err != nil {
		a.log.Warn("holders are not told why they lost their locks", "locks", len(ends), "error", err)
	}
}
