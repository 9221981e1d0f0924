package ratelimit

import (
	"slices"
	"sync"
	"sync/atomic"

	"gatehouse/models"
)

// maxAdmissionsPerKey bounds the blocks remembered of a key; a log has no more.
const maxAdmissionsPerKey = models.MaxSlidingLogLimit

// admittedBook is what this instance admitted and still counts, by place: through
// Redis, which may lose it, and without, which Redis is to be told. A key is behind
// while Redis may not have all of that; it is brought up to date before Redis decides
// about it again, and all keys that are behind soon.
//
// Of a key that is forgotten nothing is put back.
type admittedBook struct {
	now  func() int64 // microseconds, monotonic
	some atomic.Bool  // some keys may be behind
	busy atomic.Bool  // they are being brought up to date

	mu sync.Mutex
	bounded[placedKey, *admittedState]
	losses uint64 // how often Redis may have lost something
}

// admittedState is what one key's algorithm needs: the log, the bucket or the blocks.
type admittedState struct {
	usage
	policy models.Policy
	rule   rule

	behind    bool          // Redis is to be told something
	asking    int           // calls under way: a report waits for them, and they for a report
	asked     chan struct{} // closed when asking is 0, if a report waits
	reporting bool          // it is being told
	losses    uint64        // those of the book that Redis has been told after
	heard     int64         // the server's latest time
	resetAt   int64         // by the server's clock; 0: not within a window

	refunded []int64    // of a log, while it is being told
	log      slidingLog // of a log all admissions; of a leased policy those that Redis was not told
	latest   admission  // of a log, that Redis was told last
	bucket   bucket     // what Redis was not told
	seen     seenBucket
	blocks   []countedBlock // oldest first
	block    int64          // the id under which just log may be at Redis as a block, its reply lost; 0: it is not
}

// seenBucket is a bucket as Redis told it, all times the server's. It holds what
// every instance admitted. Zero is none.
type seenBucket struct {
	nonce     int64 // the id of the call that made it
	level, at int64
	wrote     int64 // when this instance last added to it
}

// countedBlock is a block of admissions as Redis counts it.
type countedBlock struct {
	id, units     int64
	taken, leaves int64 // by the server's clock
	gone          int64 // when it leaves, by this instance's clock
}

func newAdmittedBook(maxKeys int, now func() int64) *admittedBook {
	return &admittedBook{now: now, bounded: newBounded[placedKey, *admittedState](maxKeys)}
}

func (s *admittedState) size() int    { return len(s.log.entries) + len(s.blocks) }
func (s *admittedState) pinned() bool { return s.asking > 0 || s.reporting }

// follow takes over the policy as it is now.
func (s *admittedState) follow(a *ask) {
	if s.policy, s.rule = a.hit.Policy, a.rule; a.leased() {
		s.rule.burst = 0 // blocks are counted like a log, whatever the algorithm
	}
}

// alike reports whether the policy is counted in the same place and units as before.
func (s *admittedState) alike(p *models.Policy, r rule) bool {
	leased := p.Lease > 0
	bucket := r.burst > 0 && !leased
	return (s.rule.burst > 0) == bucket && (s.policy.Lease > 0) == leased && (!bucket || s.rule.window == r.window)
}

// state is the key's state for a policy, a new one if there is none. b.mu is held.
func (b *admittedBook) state(key placedKey, a *ask, now int64) *admittedState {
	s := b.keys[key]
	if s != nil && !s.alike(&a.hit.Policy, a.rule) {
		b.drop(key)
		s = nil
	}
	if s == nil {
		s = &admittedState{losses: b.losses}
		b.add(key, s, now)
	}
	if s.policy != a.hit.Policy {
		s.follow(a)
	}
	s.used = now
	return s
}

// lasts is how long something may be of use after it was recorded.
func (s *admittedState) lasts() int64 {
	if s.policy.Lease > 0 {
		return s.rule.window + leaseLength(s.rule.window)
	}
	return s.rule.window
}

// addLocal records an admission made without Redis at a moment of the instance's clock.
func (b *admittedBook) addLocal(key placedKey, a *ask, id, at int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.state(key, a, at)
	s.behind, s.block = true, 0
	b.some.Store(true)
	last := len(s.log.entries) - 1
	switch {
	case s.rule.burst > 0:
		s.bucket.add(at, s.rule, a.cost)
	case !a.leased():
		s.admit(admission{at: at, id: id, cost: a.cost})
	case last >= 0 && at-s.log.entries[last].at < s.rule.window/128:
		s.log.entries[last].cost += a.cost
		s.log.used += a.cost
	default:
		s.log.add(s.log.forget(at, s.rule.window), id, a.cost)
	}
	b.resize(key, s, at)
}

// remove takes an admission back, so that it is not told any more; it is put there
// again with what is returned.
func (b *admittedBook) remove(key placedKey, a *ask, id, at int64) (removed admission) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.keys[key]
	if s == nil || !s.alike(&a.hit.Policy, a.rule) {
		return admission{}
	}
	switch {
	case s.rule.burst > 0:
		s.bucket.remove(b.now(), s.rule, a.cost, at)
	case a.leased(): // several are in one entry
		s.block = 0
		s.log.removeAt(at, a.cost)
	default:
		if i := slices.IndexFunc(s.log.entries, func(e admission) bool { return e.id == id }); i >= 0 {
			removed = s.log.entries[i]
			s.log.remove(id)
		}
		if s.latest.id == id {
			s.findLatest()
		}
		if s.reporting {
			s.refunded = append(s.refunded, id)
		}
	}
	b.resize(key, s, b.now())
	return removed
}

func (s *admittedState) findLatest() {
	s.latest = admission{}
	for _, e := range s.log.entries {
		if e.told > 0 && e.told >= s.latest.told {
			s.latest = e
		}
	}
}

// restore undoes the removal of a log's admission: its refund was not sent.
func (b *admittedBook) restore(key placedKey, a *ask, removed admission) {
	if removed.id == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.state(key, a, b.now())
	at := slices.IndexFunc(s.log.entries, func(e admission) bool { return e.at > removed.at })
	if at < 0 {
		at = len(s.log.entries)
	}
	s.log.entries = slices.Insert(s.log.entries, at, removed)
	s.log.used += removed.cost
	if removed.told >= s.latest.told {
		s.latest = removed
	}
	s.behind = s.behind || removed.told == 0
	b.resize(key, s, b.now())
}

// reset drops what was admitted until a moment of the server's clock, or all if Redis
// could not be told of the reset: 0.
func (b *admittedBook) reset(key placedKey, a *ask, at int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drop(key)
	if at > 0 {
		b.state(key, a, b.now()).resetAt = at
	}
}
