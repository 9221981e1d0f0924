package lock

import (
	"cmp"
	"crypto/subtle"
	"fmt"
	"slices"
	"sync"
	"time"

	"gatehouse/models"
)

// lockTable is what one instance knows of locks: the grants it made, through
// Redis or without it. While Redis is away it excludes within the instance; what
// could not be sent waits here until Redis returns. Times are monotonic.
type lockTable struct {
	maxHold time.Duration    // how long an instance can ask about a grant
	wall    func() time.Time // for what is told; all else is monotonic

	mu     sync.Mutex
	locks  map[string]*localLock // by resource
	ended  *endedGrants
	owed   map[string]owedRelease       // by grant: releases that Redis has not seen
	forced map[string]models.LockStatus // by grant: forces that Redis has not seen
	users  map[string]int               // disabled or deleted without Redis: how often to look for their locks there
	epochs [lockShards]string           // the last one heard of
	swept  time.Time

	expired []Lock // whose place was taken before expire was called
}

// epochUnknown stands for the epoch of a shard that was never heard of.
const epochUnknown = "unknown"

type localLock struct {
	lock    Lock
	epoch   string    // the shard's when Redis granted it; "" when it did not
	made    bool      // by this instance, through Redis or without it
	adopted bool      // made by another instance, perhaps without Redis, and taken over here without it: epoch is the last one heard of
	told    time.Time // when it ends there, as Redis told last
	queue   []localWaiter
}

type localWaiter struct {
	grant string
	seen  time.Time
}

func newLockTable(maxHold time.Duration, wall func() time.Time) *lockTable {
	return &lockTable{
		maxHold: maxHold, wall: wall,
		locks: map[string]*localLock{}, ended: newEndedGrants(maxHold),
		owed: map[string]owedRelease{}, forced: map[string]models.LockStatus{}, users: map[string]int{},
	}
}

// learn remembers a grant that Redis extended or, for this instance, made, unless its
// end was heard of before that reply.
func (t *lockTable) learn(lock Lock, epoch string, made bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweep(time.Now())
	t.epochs[shardOf(lock.Resource)] = cmp.Or(epoch, t.epochs[shardOf(lock.Resource)])
	if t.ended.has(lock.Grant) {
		return
	}
	t.replacing(lock.Resource, lock.Grant)
	learnt := &localLock{lock: lock, epoch: epoch, made: made, told: lock.endsThere()}
	if old := t.locks[lock.Resource]; old != nil && old.lock.Grant == lock.Grant {
		learnt.made, learnt.adopted = made || old.made, old.adopted
		learnt.lock.began, learnt.lock.Holder = old.beginning(lock), old.holder(lock)
	}
	t.locks[lock.Resource] = learnt
}

// holder is who holds a grant that is known here, now that a reply tells it, too. An
// instance that took it over may have claimed it first, and knows less than its maker.
func (l *localLock) holder(lock Lock) models.Holder {
	if !l.made {
		return lock.Holder
	}
	known := l.lock.Holder
	known.Since = lock.Holder.Since
	return known
}

// beginning is when a grant that is known here began, now that a reply tells it, too.
// What is known stays, or the rounding of many replies would add up; of one that
// was taken over it may be a guess.
func (l *localLock) beginning(lock Lock) time.Time {
	if l.adopted {
		return lock.began
	}
	return l.lock.began
}

// replacing remembers that whatever grant was there before is over.
func (t *lockTable) replacing(resource, grant string) {
	if old := t.locks[resource]; old != nil && old.lock.Grant != "" && old.lock.Grant != grant {
		now := time.Now()
		t.ended.add(now, old.lock.Grant)
		if old.expired(now) {
			t.expired = append(t.expired, old.lock)
		}
	}
}

// heardEnd follows what ends on other instances, so that an outage finds no grant
// here that has ended elsewhere. A grant that is not known here may be one whose
// reply is on its way.
func (t *lockTable) heardEnd(g *storedGrant) { t.end(g.resource, g.id) }

// made reports whether this instance made the grant, so that no other instance knows of it
// unless Redis says so.
func (t *lockTable) made(claim Claim) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.locks[claim.Resource]
	return l != nil && l.lock.Grant == claim.Grant && l.made
}

// others is what a release has to say of the instances that may know of the grant:
// nothing if this one made it. One that may have made it without Redis must not claim
// it later.
func (t *lockTable) others(claim Claim) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.locks[claim.Resource]
	switch {
	case l == nil || !l.heldBy(claim):
		return []string{""}
	case l.made:
		return nil
	case l.adopted:
		return []string{milliseconds(t.maxHold)}
	}
	return []string{""}
}

// live is the lock of a resource if it has not ended, nil otherwise.
func (t *lockTable) live(now time.Time, resource string) *localLock {
	l := t.locks[resource]
	if l == nil || l.lock.Grant == "" || !now.Before(l.lock.ends) {
		return nil
	}
	return l
}

func (l *localLock) status(now time.Time) models.LockStatus {
	left := l.lock.ends.Sub(now)
	return models.LockStatus{
		Resource: l.lock.Resource, Held: true, Holder: l.lock.Holder, Grant: l.lock.Grant, Fence: l.lock.Fence,
		TTL: left, ExpiresAt: l.lock.ExpiresAt.UTC(), Waiting: len(l.queue), Degraded: true,
	}
}

func (l *localLock) heldBy(claim Claim) bool {
	return l.lock.Grant == claim.Grant && l.hasToken(claim.Token)
}

func (l *localLock) hasToken(token string) bool {
	return subtle.ConstantTimeCompare([]byte(l.lock.Token), []byte(token)) == 1
}

// acquire grants without Redis, or answers who is in the way.
func (t *lockTable) acquire(now time.Time, claim Claim, holder models.Holder, ttl time.Duration, queue bool) (Lock, *models.LockStatus) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweep(now)
	l := t.live(now, claim.Resource)
	if l != nil && l.hasToken(claim.Token) {
		lock := l.lock
		lock.TTL, lock.Repeated, lock.Degraded = l.lock.ends.Sub(now), true, true
		return lock, nil
	}
	if l == nil && t.locks[claim.Resource] == nil {
		t.locks[claim.Resource] = &localLock{}
	}
	place := t.locks[claim.Resource]
	place.queue = slices.DeleteFunc(place.queue, func(w localWaiter) bool { return now.Sub(w.seen) > waiterAlive && w.grant != claim.Grant })
	first := len(place.queue) == 0 || place.queue[0].grant == claim.Grant
	if l != nil || !first {
		if queue {
			place.join(claim.Grant, now)
		}
		status := models.LockStatus{Resource: claim.Resource, Held: true, TTL: waiterAlive, ExpiresAt: t.wall().Add(waiterAlive).UTC(), Degraded: true}
		if l != nil {
			status = l.status(now)
		}
		status.Waiting = len(place.queue)
		return Lock{}, &status
	}
	t.replacing(claim.Resource, claim.Grant)
	holder.Since = t.wall().UTC()
	place.queue = slices.DeleteFunc(place.queue, func(w localWaiter) bool { return w.grant == claim.Grant })
	place.epoch, place.made, place.adopted, place.told = "", true, false, time.Time{}
	if queue {
		t.oweLocked(claim, asPlace)
	}
	place.lock = Lock{
		Claim: claim, Holder: holder, TTL: ttl, ExpiresAt: holder.Since.Add(ttl), Degraded: true, began: now, ends: now.Add(ttl),
	}
	return place.lock, nil
}

func (l *localLock) join(grant string, now time.Time) {
	for i := range l.queue {
		if l.queue[i].grant == grant {
			l.queue[i].seen = now
			return
		}
	}
	l.queue = append(l.queue, localWaiter{grant: grant, seen: now})
}

// stillTaken reports whether the lock that a waits for is another's, as Redis told a before
// it could not be asked any more: another instance may have granted it, which is not in this
// table. Then a lease is believed in until it was to end, unless its end was heard of here.
func (t *lockTable) stillTaken(now time.Time, a *attempt) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return a.told.Held && now.Before(a.until) && !t.ended.has(a.told.Grant)
}

// check passes a claim unless the table knows better.
func (t *lockTable) check(now time.Time, claim Claim) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.checkLocked(now, claim)
}

func (t *lockTable) checkLocked(now time.Time, claim Claim) error {
	if l := t.live(now, claim.Resource); l != nil {
		if l.heldBy(claim) {
			return nil
		}
		return &models.NotHeldError{Status: l.status(now)}
	}
	own := t.locks[claim.Resource]
	if t.ended.has(claim.Grant) || (own != nil && own.lock.Grant == claim.Grant) {
		return &models.NotHeldError{Status: models.LockStatus{Resource: claim.Resource, Degraded: true}}
	}
	return nil
}

// extend counts on this instance's clock; a grant of another instance is adopted, with
// what is known of its holder.
func (t *lockTable) extend(now time.Time, claim Claim, holder models.Holder, ttl time.Duration) (Lock, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.checkLocked(now, claim); err != nil {
		return Lock{}, err
	}
	l := t.live(now, claim.Resource)
	if l == nil {
		wall := t.wall().UTC()
		holder.Since = cmp.Or(holder.Since, wall)
		began := now.Add(min(0, holder.Since.Sub(wall)))
		l = &localLock{adopted: true, epoch: cmp.Or(t.epochs[shardOf(claim.Resource)], epochUnknown), lock: Lock{Claim: claim, Holder: holder, began: began}}
		t.locks[claim.Resource] = l
	}
	ttl = min(ttl, l.lock.began.Add(t.maxHold).Sub(now))
	if ttl <= 0 {
		t.endLocked(claim.Resource, claim.Grant)
		return Lock{}, &models.NotHeldError{Status: models.LockStatus{Resource: claim.Resource, Degraded: true}}
	}
	l.lock.TTL, l.lock.ends, l.lock.ExpiresAt, l.lock.Degraded = ttl, now.Add(ttl), t.wall().Add(ttl).UTC(), true
	return l.lock, nil
}

// heardEpoch notes a shard's epoch; one that has none has forgotten, this instance has not.
func (t *lockTable) heardEpoch(shard int, epoch string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.epochs[shard] = cmp.Or(epoch, t.epochs[shard])
}

// epoch is the last one of a shard that this instance heard of, empty before the first.
func (t *lockTable) epoch(shard int) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.epochs[shard]
}

// knows is the last epoch of the resource's shard that this instance heard of, empty
// before the first, and whether it knows a living grant of the resource.
func (t *lockTable) knows(now time.Time, resource string) (epoch string, living bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.epochs[shardOf(resource)], t.live(now, resource) != nil
}

// release forgets a grant and remembers that it is over.
func (t *lockTable) release(claim Claim) { t.end(claim.Resource, claim.Grant) }

func (t *lockTable) end(resource, grant string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.endLocked(resource, grant)
}

func (t *lockTable) endLocked(resource, grant string) {
	t.ended.add(time.Now(), grant)
	l := t.locks[resource]
	if l == nil {
		return
	}
	l.queue = slices.DeleteFunc(l.queue, func(w localWaiter) bool { return w.grant == grant })
	if l.lock.Grant == grant {
		l.lock = Lock{}
	}
	if l.lock.Grant == "" && len(l.queue) == 0 {
		delete(t.locks, resource)
	}
}

// force ends a grant that this table knows.
func (t *lockTable) force(now time.Time, resource string, fence *int64, grant string) (models.LockStatus, error) {
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
	t.forced[status.Grant] = status
	t.endLocked(resource, status.Grant)
	return status, nil
}

func (t *lockTable) status(now time.Time, resource string) models.LockStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l := t.live(now, resource); l != nil {
		return l.status(now)
	}
	return models.LockStatus{Resource: resource, Degraded: true}
}

func (t *lockTable) list(now time.Time) []models.LockStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []models.LockStatus
	for resource := range t.locks {
		if l := t.live(now, resource); l != nil {
			all = append(all, l.status(now))
		}
	}
	return all
}

// note keeps the first note of a grant and answers the one that stands.
func (t *lockTable) note(resource, grant, note string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.locks[resource]
	if l == nil || l.lock.Grant != grant {
		return note
	}
	l.lock.Note = cmp.Or(l.lock.Note, note)
	return l.lock.Note
}

// shards are those in which this instance holds locks that Redis granted, or held
// them until just now.
func (t *lockTable) shards(now time.Time) (held [lockShards]bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for resource, l := range t.locks {
		if l.epoch != "" && now.Sub(l.lock.ends) < 2*holdingBeat {
			held[shardOf(resource)] = true
		}
	}
	return held
}

// forgotten are the locks that Redis granted in another epoch than the one their shard
// is in now, of the shards in epochs. After a server has forgotten, those taken since
// are of the new epoch, those from before of the old one.
func (t *lockTable) forgotten(now time.Time, epochs map[int]string) (lost [lockShards][]localLock) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for resource, l := range t.locks {
		shard := shardOf(resource)
		if epoch, heard := epochs[shard]; heard && l.epoch != "" && l.epoch != epoch && t.live(now, resource) != nil {
			lost[shard] = append(lost[shard], *l)
		}
	}
	return lost
}
