package lock

import "time"

// endedMost is how many ended grants are remembered at least, whatever their age.
const endedMost = 1 << 15

// endedGrants remembers the grants that are over for as long as an instance could ask
// about them, and the last 32,768 to 65,536 of them if there are more. A grant that
// is forgotten counts without Redis as one of another instance.
type endedGrants struct {
	keep          time.Duration
	newer, before map[string]struct{}
	since         time.Time // of newer
}

func newEndedGrants(keep time.Duration) *endedGrants {
	return &endedGrants{keep: keep, newer: map[string]struct{}{}}
}

func (e *endedGrants) add(now time.Time, grant string) {
	if len(e.newer) >= endedMost || now.Sub(e.since) > e.keep {
		e.newer, e.before, e.since = make(map[string]struct{}, len(e.newer)), e.newer, now
	}
	e.newer[grant] = struct{}{}
}

func (e *endedGrants) has(grant string) bool {
	_, newer := e.newer[grant]
	_, before := e.before[grant]
	return newer || before
}

// expired reports whether the lease of a grant made without Redis has passed.
func (l *localLock) expired(now time.Time) bool {
	return l.lock.Degraded && l.lock.Grant != "" && !now.Before(l.lock.ends)
}

// expire ends the grants made without Redis whose lease has passed, and returns those
// that did since it was called last.
func (t *lockTable) expire(now time.Time) []Lock {
	t.mu.Lock()
	defer t.mu.Unlock()
	ended := t.expired
	t.expired = nil
	for resource, l := range t.locks {
		if l.expired(now) {
			ended = append(ended, l.lock)
			t.endLocked(resource, l.lock.Grant)
		}
	}
	return ended
}

// sweep forgets, once a minute, what no instance can ask for any more.
func (t *lockTable) sweep(now time.Time) {
	if now.Sub(t.swept) < time.Minute {
		return
	}
	t.swept = now
	for resource, l := range t.locks {
		if l.lock.Grant != "" && now.After(l.lock.ends) && len(l.queue) == 0 && !l.expired(now) { // or expire has to tell of it
			t.ended.add(now, l.lock.Grant)
			delete(t.locks, resource)
		}
	}
	for grant, owed := range t.owed {
		if now.After(owed.until) {
			delete(t.owed, grant)
		}
	}
	for grant, status := range t.forced {
		if t.wall().Sub(status.ExpiresAt) > t.maxHold { // no instance can claim it any more
			delete(t.forced, grant)
		}
	}
}
