package ratelimit

import (
	"slices"
	"sync"
	"sync/atomic"

	"gatehouse/models"
)

// maxAdmissionsPerKey bounds the blocks remembered of a key; a log has no more.
const maxAdmissionsPerKey = models.MaxSlidingLogLimit

// outbox is what this instance admitted and still counts, by key: through Redis, which may
// lose it, and without, which Redis does not have yet. A key is behind while Redis may lack
// some of that. It is flushed before Redis decides about it again, and soon in any case. Of a
// key that is forgotten nothing is put back.
type outbox struct {
	now     func() int64 // microseconds, monotonic
	pending atomic.Bool  // keys may be behind
	running atomic.Bool  // they are being flushed

	mu sync.Mutex
	bounded[taggedKey, *outboxState]
	losses uint64 // how often Redis may have lost something

	withBlocks map[taggedKey]*outboxState // those that may have an autoBlock
	leftovers  []leftover
}

// outboxState is what the algorithm of one key needs: the log, the bucket or the blocks.
type outboxState struct {
	usage
	policy models.Policy
	rule   rule

	behind     bool          // Redis may lack something of it
	underway   int           // calls: a flush waits for them, and new ones for the flush
	idle       chan struct{} // closed when none is under way, if a flush waits
	flushing   bool          // new calls wait
	losses     uint64        // those of the outbox after which it was flushed
	serverTime int64         // the latest time that Redis answered
	resetAt    int64         // by the server's clock; 0: not within a window

	refunded []int64    // of a log, during a flush
	log      slidingLog // all admissions; of a policy with blocks those made without Redis
	latest   admission  // of a log, the one that Redis has had last
	leaves   int64      // of a log, before when nothing leaves it at Redis; 0: not known
	bucket   bucket     // what Redis does not have
	seen     serverBucket
	blocks   []countedBlock // oldest first
	block    int64          // the id under which Redis may have log as a block, its reply lost; 0: none

	// Of a policy whose blocks size themselves:
	pace       pace
	auto       autoBlock
	fetch      *autoCall // under way
	exactUntil int64     // no block is fetched before: too little was left
}

// serverBucket is a bucket as Redis last showed it, all times the server's. It holds what all
// instances admitted. The zero value is none.
type serverBucket struct {
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

func newOutbox(maxKeys int, now func() int64) *outbox {
	return &outbox{now: now, bounded: newBounded[taggedKey, *outboxState](maxKeys), withBlocks: map[taggedKey]*outboxState{}}
}

func (s *outboxState) size() int    { return len(s.log.entries) + len(s.blocks) }
func (s *outboxState) pinned() bool { return s.underway > 0 || s.flushing || s.fetch != nil }

// follow takes over the policy as it is now.
func (s *outboxState) follow(req *request) {
	s.leaves = 0
	if s.policy, s.rule = req.hit.Policy, req.rule; req.usesBlocks() {
		s.rule.burst = 0 // blocks are counted like a log, whatever the algorithm
	}
}

// countsAlike reports whether the policy is counted in the same place and units as before.
func (s *outboxState) countsAlike(p *models.Policy, r rule) bool {
	usesBlocks := p.Block > 0
	bucket := r.burst > 0 && !usesBlocks
	return (s.rule.burst > 0) == bucket && (s.policy.Block > 0) == usesBlocks && (!bucket || s.rule.window == r.window)
}

// state returns the key's state for a policy, a new one if there is none. The caller holds b.mu.
func (b *outbox) state(key taggedKey, req *request, now int64) *outboxState {
	s := b.keys[key]
	if s != nil && s.policy != req.hit.Policy {
		b.leave(key, s, s.auto)
		s.auto = autoBlock{}
	}
	if s != nil && !s.countsAlike(&req.hit.Policy, req.rule) {
		b.drop(key)
		s = nil
	}
	if s == nil {
		s = &outboxState{losses: b.losses}
		b.add(key, s, now)
	}
	if s.policy != req.hit.Policy {
		s.follow(req)
	}
	s.used = now
	return s
}

// lasts is how long something may matter after it was recorded.
func (s *outboxState) lasts() int64 {
	if s.policy.Block > 0 {
		return s.rule.window + blockLength(s.rule.window)
	}
	return s.rule.window
}

// addLocal records an admission made without Redis at a moment of the instance's clock.
func (b *outbox) addLocal(key taggedKey, req *request, id, at int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.state(key, req, at)
	s.behind, s.block = true, 0
	b.pending.Store(true)
	last := len(s.log.entries) - 1
	switch {
	case s.rule.burst > 0:
		s.bucket.add(at, s.rule, req.cost)
	case !req.usesBlocks():
		s.admit(admission{at: at, id: id, cost: req.cost}, at)
	case last >= 0 && at-s.log.entries[last].at < s.rule.window/128:
		s.log.entries[last].cost += req.cost
		s.log.used += req.cost
	default:
		s.log.add(s.log.forget(at, s.rule), id, req.cost)
	}
	b.resize(key, s, at)
}

// remove takes an admission back, so that it is not published any more. restore undoes that
// with what remove returns.
func (b *outbox) remove(key taggedKey, req *request, id, at int64) (removed admission) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.keys[key]
	if s == nil || !s.countsAlike(&req.hit.Policy, req.rule) {
		return admission{}
	}
	switch {
	case s.rule.burst > 0:
		s.bucket.remove(b.now(), s.rule, req.cost, at)
	case req.usesBlocks(): // several are in one entry
		s.block = 0
		s.log.removeAt(at, req.cost)
	default:
		if i := slices.IndexFunc(s.log.entries, func(e admission) bool { return e.id == id }); i >= 0 {
			removed = s.log.entries[i]
			s.log.remove(id)
		}
		if s.latest.id == id {
			s.findLatest()
		}
		s.leaves = 0
		if s.flushing {
			s.refunded = append(s.refunded, id)
		}
	}
	b.resize(key, s, b.now())
	return removed
}

func (s *outboxState) findLatest() {
	s.latest = admission{}
	for _, e := range s.log.entries {
		if e.serverAt > 0 && e.serverAt >= s.latest.serverAt {
			s.latest = e
		}
	}
}

// restore undoes the removal of a log's admission: its refund was not sent.
func (b *outbox) restore(key taggedKey, req *request, removed admission) {
	if removed.id == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.state(key, req, b.now())
	at := slices.IndexFunc(s.log.entries, func(e admission) bool { return e.at > removed.at })
	if at < 0 {
		at = len(s.log.entries)
	}
	s.log.entries = slices.Insert(s.log.entries, at, removed)
	s.log.used += removed.cost
	if removed.serverAt >= s.latest.serverAt {
		s.latest = removed
	}
	s.behind = s.behind || removed.serverAt == 0
	b.resize(key, s, b.now())
}

// reset drops what was admitted until a moment of the server's clock, or all if Redis did not
// get the reset: 0.
func (b *outbox) reset(key taggedKey, req *request, at int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drop(key)
	if at > 0 {
		b.state(key, req, b.now()).resetAt = at
	}
}
