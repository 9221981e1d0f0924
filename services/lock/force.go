package lock

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
)

// ForceRelease ends the lock, whoever its holder is, and returns how it stood before.
// With a fence it ends only that grant: another one is a *models.NotHeldError.
// A free lock is models.ErrNotFound. Without Redis (open) that is what this instance
// knows; the status then says Degraded, beside an error, too.
func (l *Locker) ForceRelease(ctx context.Context, resource string, fence *int64) (models.LockStatus, error) {
	return l.force(ctx, resource, fence, "")
}

// force ends a lock; with a fence or a grant only that one.
func (l *Locker) force(ctx context.Context, resource string, fence *int64, grant string) (models.LockStatus, error) {
	wanted := ""
	if fence != nil {
		wanted = strconv.FormatInt(*fence, 10)
	}
	got, err := l.run(ctx, l.scripts.force, resource, wanted, grant)
	switch {
	case err == nil && got.code == codeRefused:
		return models.LockStatus{}, fmt.Errorf("force %s: %w", resource, models.ErrNotFound)
	case err == nil && got.code == codeOtherFence:
		return models.LockStatus{}, &models.NotHeldError{Status: got.status(resource)}
	case err == nil:
		l.count("force", "done")
		l.table.end(resource, got.grant)
		l.groups.revoke(got.grant)
		l.passedOn(got)
		return got.status(resource), nil
	case !l.mayDegrade(err):
		l.count("force", "unavailable")
		return models.LockStatus{}, fmt.Errorf("force %s: %w", resource, err)
	}
	l.count("force", "degraded")
	was, err := l.table.force(time.Now(), resource, fence, grant)
	if err == nil {
		l.groups.revoke(was.Grant)
		l.events.publishOwn(models.LockForced, Lock{Claim: Claim{Resource: resource}, Holder: was.Holder, Fence: was.Fence})
	}
	return was, err
}

// ReleaseUser ends every lock that a user holds. Without Redis it ends those that this
// instance knows (open), or returns models.ErrUnavailable (closed). Either way the others
// end when Redis is back, also those that another instance reasserts up to 2 s later;
// Options.Ended hears of them. It returns those that have ended, also with an error.
func (l *Locker) ReleaseUser(ctx context.Context, userID string) (ended []models.LockStatus, err error) {
	page := models.Page{Limit: 200}
	for {
		locks, degraded, err := l.List(redis.WithBudget(ctx), page)
		if degraded || err != nil {
			l.table.put(op{kind: opForceUser, userID: userID})
		}
		if err != nil {
			return ended, fmt.Errorf("release the locks of user %s: %w", userID, err)
		}
		for _, lock := range locks.Items {
			if lock.Holder.UserID != userID {
				continue
			}
			// Only if it is still the one that was listed.
			was, err := l.force(redis.WithBudget(ctx), lock.Resource, nil, lock.Grant)
			if was.Degraded || errors.Is(err, models.ErrUnavailable) {
				l.table.put(op{kind: opForceUser, userID: userID})
			}
			if err != nil && !errors.Is(err, models.ErrNotFound) && !errors.Is(err, models.ErrNotHeld) { // those ended meanwhile
				return ended, err
			}
			if err == nil {
				ended = append(ended, was)
			}
		}
		if locks.NextCursor == nil {
			return ended, nil
		}
		page.Cursor = *locks.NextCursor
	}
}
