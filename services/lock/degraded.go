package lock

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"gatehouse/models"
)

// acquire grants without Redis, or returns the lock that is in the way. Since of the holder is when
// the request came in.
func (t *localTable) acquire(now time.Time, claim Claim, holder models.Holder, ttl time.Duration, queue bool) (Lock, *models.LockStatus) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweep(now)
	l := t.live(now, claim.Resource)
	if l != nil && l.hasToken(claim.Token) {
		lock := l.lock
		lock.TTL, lock.Repeated, lock.Degraded = l.lock.trustedUntil.Sub(now), true, true
		return lock, nil
	}
	slot := t.locks[claim.Resource]
	if slot == nil {
		slot = &entry{}
		t.locks[claim.Resource] = slot
	}
	slot.queue = slices.DeleteFunc(slot.queue, func(w localWaiter) bool { return now.Sub(w.seen) > waiterAlive && w.grant != claim.Grant })
	first := len(slot.queue) == 0 || slot.queue[0].grant == claim.Grant
	if l != nil || !first {
		if queue {
			slot.join(claim.Grant, holder, now)
		}
		status := models.LockStatus{Resource: claim.Resource, TTL: waiterAlive, Degraded: true} // promised to the first waiter
		if l != nil {
			status = l.status(now)
		}
		status.Waiting = len(slot.queue)
		return Lock{}, &status
	}
	t.supersede(claim.Resource, claim.Grant)
	if queue {
		t.putLocked(op{kind: opLeave, claim: claim})
	}
	t.keep(slot, Lock{})
	*slot = entry{
		origin: originLocal, activeAt: now,
		queue: slices.DeleteFunc(slot.queue, func(w localWaiter) bool { return w.grant == claim.Grant }),
	}
	t.keep(slot, t.grant(now, claim, holder, ttl))
	return slot.lock, nil
}

// grant is a lock made without Redis.
func (t *localTable) grant(now time.Time, claim Claim, holder models.Holder, ttl time.Duration) Lock {
	holder.Since = t.wall().UTC()
	return Lock{
		Claim: claim, Holder: holder, TTL: ttl, ExpiresAt: holder.Since.Add(ttl), Degraded: true, grantedAt: now, trustedUntil: now.Add(ttl),
	}
}

func (l *entry) join(grant string, holder models.Holder, now time.Time) {
	for i := range l.queue {
		if l.queue[i].grant == grant {
			l.queue[i].seen = now
			return
		}
	}
	l.queue = append(l.queue, localWaiter{grant: grant, holder: holder, seen: now})
}

// stillTaken reports whether a waits for a lock that another instance may have granted, which
// is not in this table: Redis answered so before it was away. Such a lease is believed in
// until it was to end, unless its end was observed here.
func (t *localTable) stillTaken(now time.Time, a *attempt) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return a.taken.Held && now.Before(a.heldUntil) && !t.tombstones.has(a.taken.Grant)
}

// extend extends without Redis, by this instance's clock. It adopts a grant of another
// instance, with the holder and the epoch as far as the caller knows them.
func (t *localTable) extend(now time.Time, claim Claim, holder models.Holder, ttl time.Duration, epoch string) (Lock, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.checkLocked(now, claim); err != nil {
		return Lock{}, err
	}
	l := t.live(now, claim.Resource)
	if l == nil {
		wall := t.wall().UTC()
		holder.Since = cmp.Or(holder.Since, wall)
		grantedAt := now.Add(min(0, holder.Since.Sub(wall)))
		if over := t.locks[claim.Resource]; over != nil {
			t.keep(over, Lock{})
		}
		l = &entry{origin: originAdopted, epoch: cmp.Or(epoch, epochUnknown)}
		t.keep(l, Lock{Claim: claim, Holder: holder, grantedAt: grantedAt})
		t.locks[claim.Resource] = l
	}
	ttl = min(ttl, l.lock.grantedAt.Add(t.maxHold).Sub(now))
	if ttl <= 0 {
		t.endLocked(claim.Resource, claim.Grant)
		return Lock{}, &models.NotHeldError{Status: models.LockStatus{Resource: claim.Resource, Degraded: true}}
	}
	l.lock.TTL, l.lock.trustedUntil, l.lock.ExpiresAt, l.lock.Degraded = ttl, now.Add(ttl), t.wall().Add(ttl).UTC(), true
	l.activeAt = now
	return l.lock, nil
}

// force ends a grant that this table knows. As long as an instance could reassert it, the
// outbox keeps the force for Redis.
func (t *localTable) force(now time.Time, resource string, fence *int64, grant string) (models.LockStatus, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.live(now, resource)
	if l == nil {
		return models.LockStatus{Resource: resource, Degraded: true}, fmt.Errorf("force %s: %w", resource, models.ErrNotFound)
	}
	status := l.status(now)
	if (fence != nil && (status.Fence == nil || *status.Fence != *fence)) || (grant != "" && status.Grant != grant) {
		return models.LockStatus{Resource: resource, Degraded: true}, &models.NotHeldError{Status: status}
	}
	t.putLocked(op{kind: opForce, claim: l.lock.Claim, until: now.Add(status.TTL + t.maxHold)})
	t.endLocked(resource, status.Grant)
	return status, nil
}

// replace ends a grant that this table knows and grants to another claim in its place. Redis is
// told of the end as of a force.
func (t *localTable) replace(now time.Time, claim Claim, holder models.Holder, ttl time.Duration, old Replaced) (lock Lock, was models.LockStatus, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.live(now, claim.Resource)
	switch {
	case l == nil:
		return lock, was, &models.NotAcquiredError{Status: models.LockStatus{Resource: claim.Resource, Degraded: true}}
	case l.hasToken(claim.Token):
		lock = l.lock
		lock.TTL, lock.Repeated, lock.Degraded = l.lock.trustedUntil.Sub(now), true, true
		return lock, was, nil
	case l.lock.Grant != old.Grant, now.Sub(l.activeAt) < old.Idle:
		return lock, was, &models.NotAcquiredError{Status: l.status(now)}
	}
	was = l.status(now)
	t.putLocked(op{kind: opForce, claim: l.lock.Claim, until: now.Add(was.TTL + t.maxHold)})
	t.tombstones.add(now, old.Grant)
	l.origin, l.epoch, l.syncedUntil, l.activeAt = originLocal, "", time.Time{}, now
	t.keep(l, t.grant(now, claim, holder, ttl))
	return l.lock, was, nil
}

// metadata keeps the first text of a grant and returns the one that stands.
func (t *localTable) metadata(resource, grant, text string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.locks[resource]
	if l == nil || l.lock.Grant != grant {
		return text
	}
	l.lock.Metadata = cmp.Or(l.lock.Metadata, text)
	return l.lock.Metadata
}
