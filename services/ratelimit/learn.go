package ratelimit

import (
	"slices"
)

// record ends a call about a key and takes in what Redis answered at a time of its own,
// unless the key's policy is another one now.
func (b *admittedBook) record(key placedKey, s *admittedState, at int64, take func(now int64)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.landed(key, s)
	if b.keys[key] != s {
		return
	}
	now := b.now()
	s.heard = max(s.heard, at)
	take(now)
	if s.behind {
		b.some.Store(true)
	}
	b.resize(key, s, now)
}

// learn records what Redis decided about a hit, which ends the call: the server's time is
// the verdict's. nonce is that of the bucket, 0 if there is none.
func (b *admittedBook) learn(key placedKey, a *ask, e *expectation, id int64, counted bool, v verdict, nonce int64) {
	counted = counted && v.passes && a.cost > 0
	s := e.state
	b.record(key, s, v.at, func(now int64) {
		switch {
		case v.at <= s.resetAt:
		case nonce > 0:
			s.sees(nonce, v, a, counted, now)
		case counted:
			// Of two calls that nothing was expected of, the one may have been lost before the other.
			s.behind = s.behind || e.member == "" && s.latest.told > 0
			s.admit(admission{at: now, id: id, cost: a.cost, told: v.at})
		}
	})
}

// admit adds an admission to the log.
func (s *admittedState) admit(e admission) {
	e.at = s.log.forget(e.at, s.rule.window)
	s.log.entries = append(s.log.entries, e)
	s.log.used += e.cost
	for s.log.used > s.rule.limit && len(s.log.entries) > 1 && s.log.entries[0].told > 0 { // Redis forgot sooner than we do
		s.log.used -= s.log.entries[0].cost
		s.log.entries = s.log.entries[1:]
	}
	if e.told >= s.latest.told {
		s.latest = e
	}
}

// sees takes in what a decision says of the bucket. Where that is not the bucket that
// was seen before, one of the two is lost: what was admitted from it is to be told.
func (s *admittedState) sees(nonce int64, v verdict, a *ask, counted bool, now int64) {
	switch known := s.seen.nonce; {
	case known != 0 && nonce != known && v.at < s.seen.at:
		if counted {
			s.behind = true
			s.bucket.add(now, a.rule, a.cost)
		}
		return
	case nonce != known:
		lost := bucket{level: s.seen.level, last: s.seen.at}.leaked(v.at, a.rule)
		if s.bucket = s.bucket.leaked(now, a.rule); lost.level > 0 {
			s.behind = true
			s.bucket.level += lost.level
		}
		s.seen = seenBucket{nonce: nonce}
	}
	if counted {
		s.seen.wrote = max(s.seen.wrote, v.at)
	}
	// Decisions of one bundle have one time: the fullest is the last.
	if level := v.level(a.rule); v.at > s.seen.at || v.at == s.seen.at && level > s.seen.level {
		s.seen.at, s.seen.level = v.at, level
	}
}

// learnRefund records how full the bucket is after a refund.
func (b *admittedBook) learnRefund(key placedKey, e *expectation, nonce, level, at int64) {
	b.record(key, e.state, at, func(int64) {
		if s := e.state; nonce == s.seen.nonce && at >= s.seen.at {
			s.seen.level, s.seen.at = level, at
		}
	})
}

// level is how full a bucket is by what a decision told, up to a microsecond too full.
func (v verdict) level(r rule) int64 {
	if v.more == 0 {
		return 0
	}
	return v.more*r.refill() + (r.burst-v.remaining-1)*r.window
}

// learnBlocks records what Redis counts now: a block taken, and others given back. It ends
// the call.
func (b *admittedBook) learnBlocks(key placedKey, e *expectation, id int64, got leaseReply, call leaseNumbers, owed []block) {
	s := e.state
	b.record(key, s, got.at, func(now int64) {
		for _, o := range owed {
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
