package ratelimit

import (
	"math/rand/v2"
	"slices"

	"gatehouse/models"
)

// report is what Redis is told of one key: what it was not told yet and, since it may
// have lost that, what it was.
type report struct {
	state    *admittedState
	key      placedKey
	policy   models.Policy
	rule     rule
	upToDate bool // Redis should have it all: what is missing is lost
	losses   uint64
	now      int64
	resetAt  int64

	log    slidingLog
	bucket bucket
	seen   seenBucket
	blocks []countedBlock
	block  int64 // the id of log as one block
}

// reportReply is what Redis says to a report, times by its clock.
type reportReply struct {
	lost, now, resetAt int64
	nonce, level       int64        // of the bucket
	over               countedBlock // what was admitted without a block, as one
	times              []int64      // of a log's admissions that it was not told, 0 for those that count no more
}

// stop keeps a key from being asked for, until end, and returns what is closed when the
// calls that are under way have ended; their answers belong to the report. It is false if
// there is nothing to report.
func (b *admittedBook) stop(key placedKey) (asked chan struct{}, some bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.keys[key]
	if s == nil {
		return nil, false
	}
	s.reporting, asked = true, make(chan struct{})
	if s.asking == 0 {
		close(asked)
	} else {
		s.asked = asked
	}
	return asked, true
}

// begin makes the report of a key that was stopped, nil if there is none.
func (b *admittedBook) begin(key placedKey) *report {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.keys[key]
	if s == nil {
		return nil
	}
	now, used := b.now(), s.log.used
	s.log.forget(now, s.rule.window)
	s.blocks = slices.DeleteFunc(s.blocks, func(c countedBlock) bool { return c.gone <= now })
	defer b.resize(key, s, now)
	r := &report{
		state: s, key: key, policy: s.policy, rule: s.rule, upToDate: !s.isBehind(b), losses: b.losses, now: now, resetAt: s.resetAt,
		log: s.log, seen: s.seen, bucket: s.bucket.leaked(now, s.rule), blocks: slices.Clone(s.blocks), block: s.block,
	}
	s.behind, s.reporting = false, true
	s.bucket, s.block = bucket{}, 0
	if s.policy.Lease == 0 {
		r.log.entries = slices.Clone(s.log.entries)
		return r
	}
	if r.block == 0 || s.log.used != used { // Redis takes one id once
		r.block = rand.Int64N(maxCallID) + 1
	}
	s.log = slidingLog{}
	return r
}

// end records what became of a report. It returns the admissions of a log that were
// taken back meanwhile: they may have been put there again.
func (b *admittedBook) end(r *report, got reportReply, err error) (refunded []admission) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.keys[r.key]
	if s != r.state {
		return nil // its policy is another one now
	}
	taken := s.refunded
	s.reporting, s.refunded = false, nil
	defer b.resize(r.key, s, b.now())
	for _, e := range r.log.entries {
		if slices.Contains(taken, e.id) {
			refunded = append(refunded, e)
		}
	}
	if err != nil {
		s.takeBack(r)
		b.some.Store(true)
		return refunded
	}
	s.losses = max(s.losses, r.losses)
	if got.lost > 0 && r.upToDate && r.losses == b.losses {
		b.losses++ // and what else there was is lost, too
		b.some.Store(true)
		s.losses = b.losses
	}
	s.heard, s.resetAt = max(s.heard, got.now), max(s.resetAt, got.resetAt)
	if s.rule.burst > 0 {
		s.toldBucket(r, got)
		return nil
	}
	s.blocks = slices.DeleteFunc(s.blocks, func(c countedBlock) bool { return c.taken <= s.resetAt })
	if s.policy.Lease > 0 {
		if got.over.units > 0 {
			s.blocks = append(s.blocks, got.over)
		}
		return nil
	}
	s.toldLog(r, got)
	return refunded
}

// toldLog takes in that Redis has what was reported of a log.
func (s *admittedState) toldLog(r *report, got reportReply) {
	times := map[int64]int64{}
	for _, e := range r.log.entries {
		if e.told == 0 && len(got.times) > 0 {
			times[e.id], got.times = got.times[0], got.times[1:]
		}
	}
	s.log.entries = slices.DeleteFunc(s.log.entries, func(e admission) bool {
		at, was := times[e.id]
		gone := was && at == 0 || e.told > 0 && e.told <= s.resetAt
		if gone {
			s.log.used -= e.cost
		}
		return gone
	})
	for i := range s.log.entries {
		if e := &s.log.entries[i]; e.told == 0 {
			e.told = times[e.id]
		}
	}
	s.findLatest()
}

// takeBack makes what could not be told part of the next report.
func (s *admittedState) takeBack(r *report) {
	s.behind = true
	switch {
	case s.rule.burst > 0:
		s.bucket = s.bucket.leaked(max(r.now, s.bucket.last), s.rule)
		s.bucket.level += r.bucket.leaked(s.bucket.last, s.rule).level
	case s.policy.Lease > 0:
		if len(s.log.entries) == 0 {
			s.block = r.block
		}
		s.log.entries = append(r.log.entries, s.log.entries...)
		s.log.used += r.log.used
	}
}

// toldBucket takes in what the bucket is after a report.
func (s *admittedState) toldBucket(r *report, got reportReply) {
	wrote := int64(0)
	if got.nonce == s.seen.nonce {
		wrote = s.seen.wrote
	}
	if r.bucket.level > 0 {
		wrote = got.now
	}
	s.seen = seenBucket{nonce: got.nonce, level: got.level, at: got.now, wrote: wrote}
}
