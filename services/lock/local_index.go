package lock

import "time"

// keep puts a lock into an entry, or takes it out: Lock{}. Whatever changes the grant or the holder
// of an entry, or drops an entry, does it by keep.
func (t *localTable) keep(l *entry, lock Lock) {
	if user := l.lock.Holder.UserID; l.lock.Grant != "" {
		delete(t.byHolder[user], l)
		if len(t.byHolder[user]) == 0 {
			delete(t.byHolder, user)
		}
	}
	l.lock = lock
	if user := lock.Holder.UserID; lock.Grant != "" {
		if t.byHolder[user] == nil {
			t.byHolder[user] = map[*entry]bool{}
		}
		t.byHolder[user][l] = true
	}
}

// grantsOf are the grants of a user that this instance knows and that may stand at the server.
func (t *localTable) grantsOf(userID string) (grants []string) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	for l := range t.byHolder[userID] {
		if now.Before(l.lock.serverExpiry()) {
			grants = append(grants, l.lock.Grant)
		}
	}
	return grants
}

// living are the locks that have not ended and that a condition, called under the
// table's mutex, holds of.
func (t *localTable) living(now time.Time, condition func(*entry) bool) (all []entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range t.locks {
		if l.lives(now) && condition(l) {
			all = append(all, *l)
		}
	}
	return all
}

func anyLock(*entry) bool { return true }

// degraded reports whether a grant was made or extended without Redis, and has not been
// reasserted there yet.
func (l *entry) degraded() bool { return l.lock.Degraded }

// forgotten returns the locks that Redis granted in another epoch of their shard than the one given
// for it, of the shards that one is given for.
func (t *localTable) forgotten(now time.Time, epochs map[int]string) []entry {
	return t.living(now, func(l *entry) bool {
		epoch, asked := epochs[shardOf(l.lock.Resource)]
		return asked && l.before(epoch)
	})
}

// unsyncedLock is the lock of a resource, if Redis is not known to have it: one of forgotten, or a
// degraded one.
func (t *localTable) unsyncedLock(now time.Time, resource, epoch string) (known entry, unsynced bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.live(now, resource)
	if l == nil || (!l.before(epoch) && !l.degraded()) {
		return entry{}, false
	}
	return *l, true
}

// before reports whether Redis granted the lock in another epoch of its shard.
func (l *entry) before(epoch string) bool { return l.epoch != "" && l.epoch != epoch }

// shards are those in which this instance holds locks that Redis granted, or held
// them until just now.
func (t *localTable) shards(now time.Time) (held [shardCount]bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for resource, l := range t.locks {
		if l.epoch != "" && now.Sub(l.lock.trustedUntil) < 2*holdingHeartbeat {
			held[shardOf(resource)] = true
		}
	}
	return held
}
