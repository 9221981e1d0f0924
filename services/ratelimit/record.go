package ratelimit

import (
	"slices"
)

// recordReply ends a call about a key. It records what Redis answered at a time of its own clock,
// unless the key has another policy by now.
func (b *outbox) recordReply(key taggedKey, s *outboxState, at int64, take func(now int64)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.callDone(key, s)
	if b.keys[key] != s {
		return
	}
	now := b.now()
	s.serverTime = max(s.serverTime, at)
	take(now)
	if s.behind {
		b.pending.Store(true)
	}
	b.resize(key, s, now)
}

// recordDecision records what Redis decided about a request, which ends the call. nonce is that
// of the bucket, 0 if there is none. block is what the call fetched, if it did. It returns how many
// units of the key this instance has at hand.
func (b *outbox) recordDecision(
	key taggedKey, req *request, e *expectation, id int64, counted bool, v result, nonce int64, call *autoCall, block autoBlock,
) (held int64) {
	counted = counted && v.passes && req.cost > 0
	s := e.state
	b.recordReply(key, s, v.at, func(now int64) {
		s.leaves = 0
		if nonce == 0 && v.remaining > 0 && v.more > 0 { // the oldest is the next that leaves
			s.leaves = v.at + v.more
		}
		switch {
		case v.at <= s.resetAt:
		case nonce > 0:
			s.observeBucket(nonce, v, req, counted, now)
		case counted:
			// If two calls expected nothing, Redis may have lost what the first added before the
			// second.
			s.behind = s.behind || e.member == "" && s.latest.serverAt > 0
			s.admit(admission{at: now, id: id, cost: req.cost, serverAt: v.at}, now)
		}
		if call != nil && v.at > s.resetAt {
			s.hold(block, call, v, now)
			b.withBlocks[key] = s
		}
		held = s.holds(now)
	})
	return held
}

// admit adds an admission to the log at a time now. It may be ahead of that.
func (s *outboxState) admit(e admission, now int64) {
	e.at = max(e.at, s.log.forget(now, s.rule))
	s.log.insert(e)
	for s.log.used > s.rule.limit && len(s.log.entries) > 1 && s.log.entries[0].serverAt > 0 { // Redis forgot sooner than we do
		s.log.used -= s.log.entries[0].cost
		s.log.entries = s.log.entries[1:]
	}
	if e.serverAt >= s.latest.serverAt {
		s.latest = e
	}
}

// observeBucket records what a decision shows of the bucket. If that is another bucket than
// the one seen before, one of the two is lost: what was admitted from it is to be published.
func (s *outboxState) observeBucket(nonce int64, v result, req *request, counted bool, now int64) {
	switch known := s.seen.nonce; {
	case known != 0 && nonce != known && v.at < s.seen.at:
		if counted {
			s.behind = true
			s.bucket.add(now, req.rule, req.cost)
		}
		return
	case nonce != known:
		lost := bucket{level: s.seen.level, last: s.seen.at}.leaked(v.at, req.rule)
		if s.bucket = s.bucket.leaked(now, req.rule); lost.level > 0 {
			s.behind = true
			s.bucket.level += lost.level
		}
		s.seen = serverBucket{nonce: nonce}
	}
	if counted {
		s.seen.wrote = max(s.seen.wrote, v.at)
	}
	// Decisions of one batch have one time: the fullest is the last.
	if level := v.level(req.rule); v.at > s.seen.at || v.at == s.seen.at && level > s.seen.level {
		s.seen.at, s.seen.level = v.at, level
	}
}

// recordRefund records how full the bucket is after a refund.
func (b *outbox) recordRefund(key taggedKey, e *expectation, nonce, level, at int64) {
	b.recordReply(key, e.state, at, func(int64) {
		if s := e.state; nonce == s.seen.nonce && at >= s.seen.at {
			s.seen.level, s.seen.at = level, at
		}
	})
}

// level is how full a bucket is by a decision, up to a microsecond too full.
func (v result) level(r rule) int64 {
	if v.more == 0 {
		return 0
	}
	return v.more*r.refill() + (r.burst-v.remaining-1)*r.window
}

// recordBlocks records what Redis counts now: a block taken, and others returned. It ends the
// call.
func (b *outbox) recordBlocks(key taggedKey, e *expectation, id int64, got blockReply, call blockTerms, returned []block) {
	s := e.state
	b.recordReply(key, s, got.at, func(now int64) {
		for _, o := range returned {
			i := slices.IndexFunc(s.blocks, func(c countedBlock) bool { return c.id == o.id })
			if i < 0 {
				continue
			}
			c := &s.blocks[i]
			if o.used < 0 {
				c.units += o.used
			} else {
				c.units = min(c.units, o.used)
			}
			c.leaves = min(c.leaves, got.at+call.window)
			c.gone = now + c.leaves - got.at
		}
		s.blocks = slices.DeleteFunc(s.blocks, func(c countedBlock) bool { return c.units <= 0 || c.leaves <= got.at })
		known := slices.ContainsFunc(s.blocks, func(c countedBlock) bool { return c.id == id })
		if got.units > 0 && !known && got.at > s.resetAt {
			lasts := call.length + call.window
			s.blocks = append(s.blocks, countedBlock{id: id, units: got.units, taken: got.at, leaves: got.at + lasts, gone: now + lasts})
		}
		if n := len(s.blocks); n > maxAdmissionsPerKey {
			s.blocks = slices.Clone(s.blocks[n-maxAdmissionsPerKey:])
		}
	})
}
