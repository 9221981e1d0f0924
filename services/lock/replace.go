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

// Replaced says which grant Replace ends, and when.
type Replaced struct {
	Grant string // that of a LockStatus; another one stays
	// Idle is how long ago the grant must have been made or extended last, by the clock of Redis.
	// Zero is any time.
	Idle time.Duration
	How  string // the name of the event: models.LockTakenOver, LockGiven or LockExpired
}

// Replace ends the grant that has the lock and grants it to the request, in one step. Waiters keep
// their places behind the new holder. If the lock is free by now, another grant has it, or its
// holder was active, it does nothing: a *models.NotAcquiredError says how the lock stands. The same
// Token gets the same grant again, Repeated. Whether the caller may do this is for the caller to know.
//
// Without Redis (open) it replaces a grant that this instance knows, and the lock is Degraded.
func (l *Locker) Replace(ctx context.Context, req Request, old Replaced) (Lock, error) {
	a := l.newAttempt(req)
	sent := time.Now()
	got, err := l.runReplace(ctx, a, old)
	a.sent = !errors.Is(err, redis.ErrNotSent)
	switch {
	case err == nil && got.code == codeRefused:
		l.count("replace", "refused")
		return Lock{}, &models.NotAcquiredError{Status: got.status(req.Resource)}
	case err == nil:
		l.count("replace", "done")
		lock, origin := got.lock(a.claim(), sent), originRedis
		if lock.Grant == a.grant {
			origin = originLocal
		}
		l.observeReplaced(req.Resource, old.Grant)
		l.record(lock, got.epoch, origin)
		return lock, nil
	case ctx.Err() != nil:
		l.giveUp(ctx, a)
		return Lock{}, fmt.Errorf("replace the holder of %s: %w", req.Resource, err)
	case !l.mayDegrade(err):
		l.count("replace", "unavailable")
		l.abandonLater(a)
		return Lock{}, fmt.Errorf("replace the holder of %s: %w", req.Resource, err)
	}
	l.count("replace", "degraded")
	lock, was, err := l.table.replace(sent, a.claim(), req.Holder, a.req.TTL, old)
	if err != nil {
		l.abandonLater(a)
		return Lock{}, err
	}
	if !lock.Repeated {
		l.groups.revoke(old.Grant)
		l.events.publishOwn(old.How, Lock{Claim: Claim{Resource: req.Resource}, Holder: was.Holder, Fence: was.Fence})
		l.events.publishOwn(models.LockAcquired, lock)
	}
	return lock, nil
}

func (l *Locker) observeReplaced(resource, grant string) {
	l.table.end(resource, grant)
	l.groups.revoke(grant)
}

// runReplace sends an attempt to replace a grant.
func (l *Locker) runReplace(ctx context.Context, a *attempt, old Replaced) (reply, error) {
	args := []string{
		credential(a.claim()) + writeRecord(a.req.Resource, a.req.Holder), milliseconds(a.req.TTL), l.givenUp(ctx), random128(),
		old.Grant, milliseconds(old.Idle), old.How,
	}
	keys := l.keys.of(a.req.Resource)
	got, err := l.exec(ctx, l.scripts.replace, keys, args)
	if err == nil && got.code == codeTooLate { // or the server's clock was put forward, see runAcquire
		args[2] = l.givenUp(ctx)
		got, err = l.exec(ctx, l.scripts.replace, keys, args)
	}
	if err == nil && got.code == codeTooLate {
		return got, fmt.Errorf("replace the holder of %s: too late: %w", a.req.Resource, models.ErrUnavailable)
	}
	return got, err
}

// LeaseEnded answers when the lease of a grant ended by itself, for 24 hours after; known is false
// if it did not, or if that cannot be found out.
func (l *Locker) LeaseEnded(ctx context.Context, resource, grant string) (at time.Time, known bool) {
	msg, err := l.redis.Exec(ctx, l.scripts.ended, l.keys.of(resource)[:3], []string{grant})
	if err != nil {
		return at, false
	}
	text, _ := msg.ToString()
	milliseconds, err := strconv.ParseInt(text, 10, 64)
	return time.UnixMilli(milliseconds).UTC(), err == nil
}

// KnowsEnd reports whether this instance observed the end of a grant. Without Redis a lock that it
// does not know to be held may be another instance's; one whose end it knows is not.
func (l *Locker) KnowsEnd(grant string) bool { return l.table.knowsEnd(grant) }
