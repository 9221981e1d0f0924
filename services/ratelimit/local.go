package ratelimit

import (
	"sync"
	"time"

	"gatehouse/models"
)

// localTable is what one instance knows about its keys: the admissions that it made, through
// Redis or without, and the refusals by Redis. With the former it goes on from the recent
// past when Redis goes away; the latter keep a flood from Redis. Its times are microseconds of
// a monotonic clock.
type localTable struct {
	clock   func() time.Time // nil is the monotonic clock
	started time.Time

	mu sync.Mutex
	bounded[policyKey, *localState]
	generation uint64 // grows with each refund and reset
}

type localState struct {
	usage
	policy models.Policy
	counter
	latest      result // by Redis, at a time of ours
	denials     denials
	invalidated uint64 // the generation of the latest refund or reset
}

func (s *localState) size() int    { return len(s.log.entries) }
func (s *localState) lasts() int64 { return s.policy.Window.Microseconds() }
func (s *localState) pinned() bool { return false }

func newLocalTable(maxKeys int, clock func() time.Time) *localTable {
	t := &localTable{clock: clock, started: time.Now(), bounded: newBounded[policyKey, *localState](maxKeys)}
	if clock != nil {
		t.started = clock()
	}
	return t
}

// now is the table's clock.
func (t *localTable) now() int64 {
	if t.clock == nil {
		return time.Since(t.started).Microseconds() // cheaper than time.Now
	}
	return t.clock().Sub(t.started).Microseconds()
}

// state returns the key's state, a new one if there is none. The caller holds t.mu.
func (t *localTable) state(req *request, now int64) *localState {
	s := t.keys[req.name]
	if s == nil {
		s = &localState{policy: req.hit.Policy}
		t.add(req.name, s, now)
	}
	if s.policy != req.hit.Policy {
		s.denials = denials{}
		s.latest = result{}
		if s.policy.Window != req.hit.Policy.Window {
			s.bucket = bucket{} // a unit had another size
		}
		s.policy = req.hit.Policy
	}
	s.used = now
	return s
}

// observe records what Redis decided. sent and generation are from before the call was sent;
// the times of the results are the server's. It returns the table's clock.
func (t *localTable) observe(requests []request, results []result, counted bool, id, sent int64, generation uint64) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	for i := range requests {
		req, v := &requests[i], results[i]
		s := t.state(req, now)
		s.latest = v
		s.latest.at = now
		switch {
		case v.passes && req.cost >= s.denials.low.cost:
			s.denials = denials{}
		case !v.passes && !req.hit.Policy.Shadow && generation >= s.invalidated:
			s.denials.add(denialOf(req, v, sent, now), v.remaining, now)
		}
		if counted && v.passes && req.cost > 0 && req.local() {
			t.count(s, req, now, id)
		}
	}
	return now
}

// countFromBlock records an admission that came out of a block.
func (t *localTable) countFromBlock(req *request, id, now int64) {
	if !req.local() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count(t.state(req, now), req, now, id)
}

// count adds an admission without deciding about it.
func (t *localTable) count(s *localState, req *request, now, id int64) {
	s.counter.addAdmitted(now, req.rule, id, req.cost)
	t.resize(req.name, s, now)
}

// decide is lua/take.lua in this instance: all requests count, or none does. A request that is
// not to be counted locally passes. With id 0 it only looks. What Redis denied before counts
// no longer.
func (t *localTable) decide(requests []request, id int64) (results []result, counted bool) {
	return t.decideAt(t.now(), requests, id, nil)
}

// decideAt appends the results to buffer.
func (t *localTable) decideAt(now int64, requests []request, id int64, buffer []result) (results []result, counted bool) {
	var stateBuffer [4]*localState
	states := append(stateBuffer[:0], make([]*localState, len(requests))...)
	results = append(buffer, make([]result, len(requests))...)
	t.mu.Lock()
	defer t.mu.Unlock()
	counted = id != 0
	for i := range requests {
		req := &requests[i]
		if !req.local() {
			t.dropDenials(req)
			results[i] = result{passes: true, remaining: req.hit.Policy.Limit, at: now}
			continue
		}
		states[i] = t.state(req, now)
		states[i].denials = denials{}
		results[i] = states[i].look(now, req.rule, req.cost)
		if !results[i].passes && !req.hit.Policy.Shadow {
			counted = false
		}
	}
	if !counted {
		return results, false
	}
	for i := range requests {
		req, s, v := &requests[i], states[i], &results[i]
		if s == nil || !v.passes || req.cost == 0 {
			continue
		}
		s.counter.add(v.at, req.rule, id, req.cost)
		*v = s.look(now, req.rule, 0)
		t.resize(req.name, s, now)
	}
	return results, true
}

// lastKnown is what Redis last said of the key. A key that this instance does not know counts as
// unused.
func (t *localTable) lastKnown(req request) result {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lastKnownAt(&req, t.now())
}

func (t *localTable) lastKnownAt(req *request, now int64) result {
	s := t.keys[req.name]
	if s == nil || s.latest.at == 0 {
		return result{passes: true, remaining: req.hit.Policy.Limit}
	}
	v := s.latest.after(now - s.latest.at)
	v.passes, v.retry = true, 0
	return v
}

// sending is the clock and the generation to hand to observe.
func (t *localTable) sending() (sent int64, generation uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.now(), t.generation
}

// refund takes back an admission and drops the denial, also one whose reply is still on its way. at
// is the table's clock at the admission.
func (t *localTable) refund(req request, id, at int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	s := t.state(&req, now)
	t.invalidate(s)
	s.remove(now, req.rule, id, req.cost, at)
	t.resize(req.name, s, now)
}

// reset forgets the key's admissions and its denials.
func (t *localTable) reset(req request) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	s := t.state(&req, now)
	t.invalidate(s)
	s.counter, s.latest = counter{}, result{}
	t.resize(req.name, s, now)
}

func (t *localTable) invalidate(s *localState) {
	t.generation++
	s.invalidated = t.generation
	s.denials = denials{}
}
