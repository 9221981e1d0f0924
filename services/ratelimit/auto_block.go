package ratelimit

import (
	"context"
	"math/rand/v2"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
)

// In microseconds. A busy key gets blocks of autoSpan of its pace, which can be used for longer, as
// hits do not come evenly. maxAhead is known to lua/sliding_log.lua.
const (
	autoSpan = int64(20_000)
	maxAhead = int64(50_000)
)

// autoLength is how long a block that sizes itself can be used, in microseconds.
func autoLength(window int64) int64 { return min(maxAhead, window/50) }

// autoBlock is a number of admissions that Redis has counted ahead, where it counts all others of
// the key, and that this instance hands out. The zero value is none. A log has each as one that is
// admitted when the block ends. A bucket is at least as full as all that blocks hold, however much
// leaks out of it meanwhile. So whenever an admission is used, no window holds more than the limit.
type autoBlock struct {
	first, count int64 // the id of the first admission, the others follow; how many
	used         int64 // how many were handed out, from the first on
	cost         int64 // of each
	at           int64 // from when on they count, by the server's clock; 0 if that is not known
	until        int64 // usable before then, by this instance's clock
	// As Redis said with the block, for decisions.
	remaining, quotaAt int64
}

func (a *autoBlock) left() int64 { return a.count - a.used }

// covers reports whether the block has an admission of this cost.
func (a *autoBlock) covers(cost, now int64) bool {
	return a.used < a.count && a.cost == cost && now < a.until
}

// standing is the result for a hit that the block covers, before it is handed out.
func (a *autoBlock) standing(now int64) result {
	v := result{passes: true, remaining: a.remaining + a.left()*a.cost, at: now}
	if a.quotaAt > 0 {
		v.more = max(1, a.quotaAt-now)
	}
	return v
}

// handOut takes one admission out of the block, which covers it.
func (a *autoBlock) handOut(r rule, now int64) result {
	unit := int64(0) // a bucket knows none by its id
	if r.burst == 0 {
		unit = a.first + a.used
	}
	a.used++
	v := a.standing(now)
	v.fromBlock, v.unit, v.at = true, unit, a.at
	return v
}

// autoCall is a call that decides about requests and fetches blocks for their keys.
type autoCall struct {
	done   chan struct{} // closed when it has ended
	sent   int64         // the clock before it was sent
	states []*outboxState
	asked  []autoBlock // for each request
	unused []autoBlock // of each key's log, given back with the call
}

// wait waits until the call has ended, however: who fetched may have had little time left, and who
// waits has a budget of its own, of which the wait is part.
func (c *autoCall) wait(ctx context.Context) {
	began := time.Now()
	defer func() { redis.Spend(ctx, time.Since(began)) }()
	select {
	case <-c.done:
	case <-ctx.Done():
	}
}

// allSizeBlocks reports whether all requests take something of policies whose blocks size
// themselves.
func allSizeBlocks(requests []request) bool {
	for i := range requests {
		if requests[i].hit.Policy.Block != models.BlockAuto || requests[i].cost == 0 {
			return false
		}
	}
	return true
}

// autoCount is how many admissions a block for hits like this one should have. None has more than
// a fiftieth of all that can be there at once.
func (s *outboxState) autoCount(req *request, now int64) int64 {
	most := req.rule.limit
	if req.rule.burst > 0 {
		most = req.rule.burst
	}
	span := min(autoSpan, autoLength(req.rule.window)/2) // else some of it would often be left
	return min(s.pace.within(now, span), most/50) / req.cost
}

// takeAhead takes an admission out of the block of each request's key, if all have one, and returns
// the results and when that was. If another request fetches blocks of them, it returns that call to
// wait for. Else, if all keys are busy and have used their blocks, it begins a call that the caller
// must make and end. A request that asks again is counted once for the pace.
func (b *outbox) takeAhead(tag string, requests []request, again bool) (taken []result, now int64, under, begun *autoCall) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var buffer [4]*outboxState
	states := buffer[:0]
	now = b.now()
	covered, busy := true, true
	for i := range requests {
		req := &requests[i]
		s := b.state(taggedKey{tag, req.name}, req, now)
		if !again {
			s.pace.add(now, req.cost)
		}
		states = append(states, s)
		covered = covered && s.auto.covers(req.cost, now)
		busy = busy && now >= s.exactUntil && s.autoCount(req, now) > 0
		if s.fetch != nil {
			under = s.fetch
		}
	}
	switch {
	case covered:
		for i, s := range states {
			taken = append(taken, s.auto.handOut(requests[i].rule, now))
		}
		return taken, now, nil, nil
	case under != nil && !again:
		return nil, now, under, nil
	case under != nil || !busy:
		return nil, now, nil, nil
	}
	for i, s := range states {
		switch {
		case s.auto.left() == 0:
		case now < s.auto.until: // of another cost
			return nil, now, nil, nil
		case requests[i].rule.burst > 0: // it may have to leak out, which must not happen often
			b.leave(taggedKey{tag, requests[i].name}, s, s.auto)
			s.auto, s.exactUntil = autoBlock{}, now+pacePeriod
			return nil, now, nil, nil
		}
	}
	return nil, now, nil, b.beginFetch(requests, states, now)
}

// beginFetch makes ready a call for blocks. The caller holds b.mu.
func (b *outbox) beginFetch(requests []request, states []*outboxState, now int64) *autoCall {
	call := &autoCall{done: make(chan struct{}), sent: now}
	for i, s := range states {
		cost, old := requests[i].cost, s.auto
		count := s.autoCount(&requests[i], now)
		if old.left() > 0 { // they came less often than it seemed
			count = min(count, max(1, old.used))
		}
		s.auto, s.fetch = autoBlock{}, call
		s.forgetUnused(&old)
		call.states = append(call.states, s)
		call.unused = append(call.unused, old)
		call.asked = append(call.asked, autoBlock{first: rand.Int64N(maxCallID-count) + 1, count: count, cost: cost})
	}
	return call
}

// endFetch ends a call for blocks. After one that failed, what it may have counted is given back,
// as far as that is known: of logs.
func (b *outbox) endFetch(tag string, requests []request, call *autoCall, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, s := range call.states {
		if s.fetch == call {
			s.fetch = nil
		}
		if err != nil && requests[i].rule.burst == 0 {
			key := taggedKey{tag, requests[i].name}
			b.leave(key, s, call.unused[i])
			b.leave(key, s, call.asked[i])
		}
	}
	close(call.done)
}

// hold puts a block to use that a call fetched. v is what Redis answered at a time now.
func (s *outboxState) hold(block autoBlock, call *autoCall, v result, now int64) {
	if block.count == 0 {
		s.exactUntil = now + autoSpan
		return
	}
	length := autoLength(s.rule.window)
	block.at, block.until = v.at, call.sent+length-length/100-blockDrift
	block.remaining = v.remaining
	if v.more > 0 {
		block.quotaAt = now + v.more
	}
	if s.rule.burst == 0 {
		block.at += length
		for i := block.count - 1; i >= 0; i-- { // the first is the latest, as it is given back last
			s.admit(admission{at: now + length, id: block.first + i, cost: block.cost, serverAt: block.at}, now)
		}
	}
	s.auto = block
}

// holds is how many units of the key this instance has at hand.
func (s *outboxState) holds(now int64) int64 {
	if now >= s.auto.until {
		return 0
	}
	return s.auto.left() * s.auto.cost
}

// standing returns how requests stand whose keys all have a block that covers them, else nil.
func (b *outbox) standing(tag string, requests []request) (results []result) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	for i := range requests {
		s := b.keys[taggedKey{tag, requests[i].name}]
		if s == nil || s.policy != requests[i].hit.Policy || !s.auto.covers(requests[i].cost, now) {
			return nil
		}
		results = append(results, s.auto.standing(now))
	}
	return results
}
