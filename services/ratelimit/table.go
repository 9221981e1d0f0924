package ratelimit

import (
	"sync"
	"time"

	"gatehouse/models"
)

const (
	// denialMemory is how long a denial is believed without asking again.
	denialMemory = int64(time.Second / time.Microsecond)
	// probeGrace is how long a denial goes on being believed while one call asks.
	probeGrace = int64(100 * time.Millisecond / time.Microsecond)
)

// limitKey names what is counted.
type limitKey struct{ policy, key string }

// limitTable is what one instance knows about its keys: the admissions it made,
// through Redis or without, and the denials it was told. The first lets it go on
// from the recent past when Redis goes away, the second spares Redis a flood.
// Its times are microseconds of a monotonic clock.
type limitTable struct {
	clock   func() time.Time // nil is the monotonic clock
	started time.Time

	mu sync.Mutex
	bounded[limitKey, *keyState]
	generation uint64 // grows with each refund and reset
}

type keyState struct {
	usage
	policy  models.Policy
	log     slidingLog
	bucket  bucket
	latest  verdict // of Redis, its time ours
	denials denials
	settled uint64 // the generation of the latest refund or reset
}

func (s *keyState) size() int    { return len(s.log.entries) }
func (s *keyState) lasts() int64 { return s.policy.Window.Microseconds() }
func (s *keyState) pinned() bool { return false }

func newLimitTable(maxKeys int, clock func() time.Time) *limitTable {
	t := &limitTable{clock: clock, started: time.Now(), bounded: newBounded[limitKey, *keyState](maxKeys)}
	if clock != nil {
		t.started = clock()
	}
	return t
}

// now is the table's clock.
func (t *limitTable) now() int64 {
	if t.clock == nil {
		return time.Since(t.started).Microseconds() // cheaper than time.Now
	}
	return t.clock().Sub(t.started).Microseconds()
}

// state is the key's state, a new one if there is none. t.mu is held.
func (t *limitTable) state(a *ask, now int64) *keyState {
	s := t.keys[a.name]
	if s == nil {
		s = &keyState{policy: a.hit.Policy}
		t.add(a.name, s, now)
	}
	if s.policy != a.hit.Policy {
		s.denials = denials{}
		s.latest = verdict{}
		if s.policy.Window != a.hit.Policy.Window {
			s.bucket = bucket{} // a unit had another size
		}
		s.policy = a.hit.Policy
	}
	s.used = now
	return s
}

// after is the verdict some microseconds later.
func (v verdict) after(elapsed int64) verdict {
	v.more = max(0, v.more-elapsed)
	v.retry = max(0, v.retry-elapsed)
	return v
}

// learn records what Redis decided. sent and generation are from before the
// question was sent; the verdicts' times are the server's. It returns the
// table's clock.
func (t *limitTable) learn(asks []ask, verdicts []verdict, counted bool, id, sent int64, generation uint64) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	for i := range asks {
		a, v := &asks[i], verdicts[i]
		s := t.state(a, now)
		s.latest = v
		s.latest.at = now
		switch {
		case v.passes && a.cost >= s.denials.low.cost:
			s.denials = denials{}
		case !v.passes && !a.hit.Policy.Shadow && generation >= s.settled:
			no := denial{cost: a.cost, until: sent + min(v.retry, denialMemory), over: sent + v.retry, passes: now + v.retry}
			s.denials.learn(no, v.remaining, now)
		}
		if counted && v.passes && a.cost > 0 && a.local() {
			t.count(s, a, now, id)
		}
	}
	return now
}

// countUnit records an admission that a block was taken for.
func (t *limitTable) countUnit(a *ask, id, now int64) {
	if !a.local() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count(t.state(a, now), a, now, id)
}

// count adds an admission to a state that was not looked at before.
func (t *limitTable) count(s *keyState, a *ask, now, id int64) {
	if a.rule.burst > 0 {
		s.bucket.add(now, a.rule, a.cost)
		s.bucket.level = min(s.bucket.level, a.rule.burst*a.rule.window)
	} else {
		at := s.log.forget(now, a.rule.window)
		s.log.add(at, id, a.cost)
		for s.log.used > a.rule.limit && len(s.log.entries) > 1 { // Redis forgot sooner than we do
			s.log.used -= s.log.entries[0].cost
			s.log.entries = s.log.entries[1:]
		}
	}
	t.resize(a.name, s, now)
}

// decide is rate_limit_take.lua in this instance: all hits count, or none. Hits
// that do not count locally pass. With id 0 it only looks. What Redis denied
// before no longer counts.
func (t *limitTable) decide(asks []ask, id int64) (verdicts []verdict, counted bool) {
	return t.decideAt(t.now(), asks, id, nil)
}

// decideAt puts the verdicts in room if it is large enough.
func (t *limitTable) decideAt(now int64, asks []ask, id int64, room []verdict) (verdicts []verdict, counted bool) {
	var roomForStates [4]*keyState
	states := append(roomForStates[:0], make([]*keyState, len(asks))...)
	verdicts = append(room, make([]verdict, len(asks))...)
	t.mu.Lock()
	defer t.mu.Unlock()
	counted = id != 0
	for i := range asks {
		a := &asks[i]
		if !a.local() {
			t.forgetDenials(a)
			verdicts[i] = verdict{passes: true, remaining: a.hit.Policy.Limit, at: now}
			continue
		}
		states[i] = t.state(a, now)
		states[i].denials = denials{}
		verdicts[i] = states[i].look(a.rule, now, a.cost)
		if !verdicts[i].passes && !a.hit.Policy.Shadow {
			counted = false
		}
	}
	if !counted {
		return verdicts, false
	}
	for i := range asks {
		a, s, v := &asks[i], states[i], &verdicts[i]
		if s == nil || !v.passes || a.cost == 0 {
			continue
		}
		if a.rule.burst > 0 {
			s.bucket.add(v.at, a.rule, a.cost)
		} else {
			s.log.add(v.at, id, a.cost)
		}
		*v = s.look(a.rule, now, 0)
		t.resize(a.name, s, now)
	}
	return verdicts, true
}

func (s *keyState) look(r rule, now, cost int64) verdict {
	if r.burst > 0 {
		return s.bucket.look(now, r, cost)
	}
	return s.log.look(now, r, cost)
}

// recall is what was last known of the key, for telling only: a key never seen
// here counts as unused.
func (t *limitTable) recall(a ask) verdict {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.recalled(&a, t.now())
}

func (t *limitTable) recalled(a *ask, now int64) verdict {
	s := t.keys[a.name]
	if s == nil || s.latest.at == 0 {
		return verdict{passes: true, remaining: a.hit.Policy.Limit}
	}
	v := s.latest.after(now - s.latest.at)
	v.passes, v.retry = true, 0
	return v
}

// sending is the clock and the generation to hand to learn.
func (t *limitTable) sending() (sent int64, generation uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.now(), t.generation
}

// refund takes back an admission here and drops the denial, also one whose
// answer is still on its way. at is the table's clock at the admission.
func (t *limitTable) refund(a ask, id, at int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	s := t.state(&a, now)
	t.settle(s)
	if a.rule.burst > 0 {
		s.bucket.remove(now, a.rule, a.cost, at)
		return
	}
	s.log.remove(id)
	t.resize(a.name, s, now)
}

// reset forgets the key's admissions and its denial.
func (t *limitTable) reset(a ask) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	s := t.state(&a, now)
	t.settle(s)
	s.log, s.bucket, s.latest = slidingLog{}, bucket{}, verdict{}
	t.resize(a.name, s, now)
}

func (t *limitTable) settle(s *keyState) {
	t.generation++
	s.settled = t.generation
	s.denials = denials{}
}
