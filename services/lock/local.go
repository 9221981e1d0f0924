package lock

import (
	"crypto/subtle"
	"slices"
	"sync"
	"time"

	"gatehouse/models"
)

// localTable holds the locks that one instance knows: the grants it made or extended, through
// Redis or without it. While Redis is away it excludes within the instance. Its outbox keeps
// the operations that could not be sent until Redis is back. Times are monotonic.
type localTable struct {
	maxHold time.Duration    // how long an instance can ask about a grant
	wall    func() time.Time // for the times in answers
	alone   bool             // Redis is disabled: there is nothing to keep for it

	mu         sync.Mutex
	locks      map[string]*entry          // by resource
	byHolder   map[string]map[*entry]bool // those with a grant, by the holder's user id: see keep
	tombstones *tombstones
	outbox     map[string]op // by grant or user: operations that Redis has not acknowledged
	swept      time.Time
	expired    []Lock // whose place was taken before expire was called
}

// entry is a grant as one instance knows it, or the queue of one that is over.
type entry struct {
	lock        Lock
	origin      origin
	epoch       string    // of the shard when Redis answered about it last; "" while Redis has not
	syncedUntil time.Time // when it ends at the server, as Redis answered last
	activeAt    time.Time // when it was granted or extended here last, as far as this instance knows
	reasserted  bool      // it was sent to Redis again: that may arrive there after its release
	queue       []localWaiter
}

// origin says how a grant came to be known. The scripts get it, too.
type origin string

const (
	originLocal   origin = "local"   // this instance made it, through Redis or without it
	originRedis   origin = "redis"   // another instance made it, and Redis answered about it
	originAdopted origin = "adopted" // another instance made it, and this one extended it without Redis
)

// epochUnknown stands for the epoch of a shard of which none was ever observed.
const epochUnknown = "unknown"

type localWaiter struct {
	grant  string
	holder models.Holder // who waits; Since is since when
	seen   time.Time
}

func newLocalTable(maxHold time.Duration, wall func() time.Time) *localTable {
	return &localTable{
		maxHold: maxHold, wall: wall,
		locks: map[string]*entry{}, byHolder: map[string]map[*entry]bool{}, tombstones: newTombstones(maxHold), outbox: map[string]op{},
	}
}

// record keeps a grant that Redis answered about, unless its end was observed before that
// reply.
func (l *Locker) record(lock Lock, epoch string, origin origin) {
	l.shards.observe(shardOf(lock.Resource), epoch)
	l.table.record(lock, epoch, origin)
}

func (t *localTable) record(lock Lock, epoch string, origin origin) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweep(time.Now())
	if t.tombstones.has(lock.Grant) {
		return
	}
	t.supersede(lock.Resource, lock.Grant)
	known := &entry{origin: origin, epoch: epoch, syncedUntil: lock.serverExpiry(), activeAt: time.Now()}
	if old := t.locks[lock.Resource]; old != nil {
		if old.lock.Grant == lock.Grant {
			if origin == originRedis {
				known.origin = old.origin
			}
			known.reasserted = old.reasserted || old.lock.Degraded // a heartbeat may have it in hand
			lock = old.merge(lock)
		}
		t.keep(old, Lock{})
	}
	t.keep(known, lock)
	t.locks[lock.Resource] = known
}

// merge returns a grant as Redis answered it, except for what this instance knows better. The
// instance that made it knows the holder; another one that reasserted it may not. The
// beginning stays, or the rounding of many replies would add up, unless the grant is adopted:
// its beginning may be a guess.
func (l *entry) merge(lock Lock) Lock {
	if l.origin != originAdopted {
		lock.grantedAt = l.lock.grantedAt
	}
	if l.origin == originLocal {
		since := lock.Holder.Since
		lock.Holder = l.lock.Holder
		lock.Holder.Since = since
	}
	return lock
}

// synced records that a known grant stands in Redis, unless it has ended here meanwhile. A
// grant that was extended here meanwhile stays degraded.
func (t *localTable) synced(known entry, lock Lock, epoch string) (stands, extended bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.live(time.Now(), lock.Resource)
	if l == nil || l.lock.Grant != lock.Grant {
		return false, false
	}
	l.syncedUntil = lock.serverExpiry()
	if extended = l.lock.Degraded && !l.lock.trustedUntil.Equal(known.lock.trustedUntil); extended {
		lock.trustedUntil, lock.ExpiresAt, lock.Degraded = l.lock.trustedUntil, l.lock.ExpiresAt, true
	}
	t.keep(l, l.merge(lock))
	l.epoch = epoch
	return true, extended
}

// reasserting notes that a known grant is sent to Redis again; false if it has ended meanwhile.
func (t *localTable) reasserting(known entry) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.locks[known.lock.Resource]
	if l == nil || l.lock.Grant != known.lock.Grant {
		return false
	}
	l.reasserted = true
	return true
}

// supersede adds a tombstone for the grant that was there before.
func (t *localTable) supersede(resource, grant string) {
	if old := t.locks[resource]; old != nil && old.lock.Grant != "" && old.lock.Grant != grant {
		now := time.Now()
		t.tombstones.add(now, old.lock.Grant)
		if old.expired(now) {
			t.expired = append(t.expired, old.lock)
		}
	}
}

// live is the lock of a resource if it has not ended, nil otherwise.
func (t *localTable) live(now time.Time, resource string) *entry {
	if l := t.locks[resource]; l != nil && l.lives(now) {
		return l
	}
	return nil
}

// lives reports whether there is a grant whose lease has not ended.
func (l *entry) lives(now time.Time) bool {
	return l.lock.Grant != "" && now.Before(l.lock.trustedUntil)
}

func (t *localTable) holds(now time.Time, resource string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.live(now, resource) != nil
}

func (t *localTable) find(claim Claim) (entry, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.live(time.Now(), claim.Resource)
	if l == nil || !l.heldBy(claim) {
		return entry{}, false
	}
	return *l, true
}

// epochOf is that of the grant that a claim holds here, empty if it holds none. Of a degraded one
// it is no epoch of any reply: another call may have reasserted it before the caller looks again.
func (t *localTable) epochOf(claim Claim) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.locks[claim.Resource]
	if l == nil || !l.heldBy(claim) {
		return ""
	}
	if l.lock.Degraded {
		return epochUnknown
	}
	return l.epoch
}

// origin is that of the grant that a claim holds here, empty if it holds none.
func (t *localTable) origin(claim Claim) origin {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.locks[claim.Resource]
	if l == nil || !l.heldBy(claim) {
		return ""
	}
	return l.origin
}

// releasesAs says how release.lua is to end the grant.
func (l *entry) releasesAs() opKind {
	switch {
	case l.origin == originAdopted || l.lock.Degraded || l.reasserted:
		return opTombstone
	case l.origin == originLocal: // no other instance knows of it, unless Redis says so
		return ""
	}
	return opShared
}

func (l *entry) status(now time.Time) models.LockStatus {
	left := l.lock.trustedUntil.Sub(now)
	return models.LockStatus{
		Resource: l.lock.Resource, Held: true, Holder: l.lock.Holder, Grant: l.lock.Grant, Fence: l.lock.Fence,
		TTL: left, ExpiresAt: l.lock.ExpiresAt.UTC(), Waiting: len(l.queue), Degraded: true,
		ActiveAt: l.lock.Holder.Since.Add(l.activeAt.Sub(l.lock.grantedAt)).UTC(), // both by one clock
	}
}

func (l *entry) heldBy(claim Claim) bool {
	return l.lock.Grant == claim.Grant && l.hasToken(claim.Token)
}

func (l *entry) hasToken(token string) bool {
	return subtle.ConstantTimeCompare([]byte(l.lock.Token), []byte(token)) == 1
}

// check refuses a claim if the table knows that it holds nothing.
func (t *localTable) check(now time.Time, claim Claim) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.checkLocked(now, claim)
}

func (t *localTable) checkLocked(now time.Time, claim Claim) error {
	if l := t.live(now, claim.Resource); l != nil {
		if l.heldBy(claim) {
			return nil
		}
		return &models.NotHeldError{Status: l.status(now)}
	}
	own := t.locks[claim.Resource]
	if t.tombstones.has(claim.Grant) || (own != nil && own.lock.Grant == claim.Grant) {
		return &models.NotHeldError{Status: models.LockStatus{Resource: claim.Resource, Degraded: true}}
	}
	return nil
}

func (t *localTable) status(now time.Time, resource string) models.LockStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l := t.live(now, resource); l != nil {
		return l.status(now)
	}
	return models.LockStatus{Resource: resource, Degraded: true}
}

// release forgets a grant and remembers that it is over.
func (t *localTable) release(claim Claim) { t.end(claim.Resource, claim.Grant) }

// end records the end of a grant, here or on another instance, so that an outage finds no
// grant that is over. One that is not known here gets a tombstone, too: its reply may be on
// its way.
func (t *localTable) end(resource, grant string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.endLocked(resource, grant)
}

func (t *localTable) endLocked(resource, grant string) {
	t.tombstones.add(time.Now(), grant)
	l := t.locks[resource]
	if l == nil {
		return
	}
	l.queue = slices.DeleteFunc(l.queue, func(w localWaiter) bool { return w.grant == grant })
	if l.lock.Grant == grant {
		t.keep(l, Lock{})
	}
	if l.lock.Grant == "" && len(l.queue) == 0 {
		delete(t.locks, resource)
	}
}

// knowsEnd reports whether the end of a grant was observed here.
func (t *localTable) knowsEnd(grant string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.tombstones.has(grant)
}

// expired reports whether the lease of a grant made without Redis has passed.
func (l *entry) expired(now time.Time) bool {
	return l.lock.Degraded && l.lock.Grant != "" && !now.Before(l.lock.trustedUntil)
}

// expire ends the grants made without Redis whose lease has passed, and returns those
// that did since it was called last.
func (t *localTable) expire(now time.Time) []Lock {
	t.mu.Lock()
	defer t.mu.Unlock()
	expired := t.expired
	t.expired = nil
	for resource, l := range t.locks {
		if l.expired(now) {
			expired = append(expired, l.lock)
			t.endLocked(resource, l.lock.Grant)
		}
	}
	return expired
}

// sweep forgets, once a minute, the grants and operations that no instance can ask about.
func (t *localTable) sweep(now time.Time) {
	if now.Sub(t.swept) < time.Minute {
		return
	}
	t.swept = now
	for resource, l := range t.locks {
		if l.lock.Grant != "" && now.After(l.lock.trustedUntil) && len(l.queue) == 0 && !l.expired(now) { // or expire has to return it
			t.tombstones.add(now, l.lock.Grant)
			t.keep(l, Lock{})
			delete(t.locks, resource)
		}
	}
	t.sweepOutbox(now)
}
