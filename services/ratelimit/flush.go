package ratelimit

import (
	"math/rand/v2"
	"slices"

	"gatehouse/models"
)

// flush is what this instance publishes of one key: the admissions that Redis does not have yet. As
// Redis may have lost some, those that it had are part of it.
type flush struct {
	state    *outboxState
	key      taggedKey
	policy   models.Policy
	rule     rule
	upToDate bool // Redis should have it all: what is missing is lost
	losses   uint64
	now      int64
	resetAt  int64

	log    slidingLog
	bucket bucket
	seen   serverBucket
	blocks []countedBlock
	block  int64 // the id of log as one block
}

// flushReply is what Redis answers to a flush, times by its own clock.
type flushReply struct {
	lost, now, resetAt int64
	nonce, level       int64        // of the bucket
	over               countedBlock // what was admitted without a block, as one
	times              []int64      // of a log's admissions that it lacked; 0 for those that count no more
}

// holdCalls keeps new calls about a key from being made until endFlush. It returns a channel
// that is closed when the calls under way have ended: what they admit belongs to the flush. It
// reports false if there is nothing to flush.
func (b *outbox) holdCalls(key taggedKey) (idle chan struct{}, some bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.keys[key]
	if s == nil {
		return nil, false
	}
	s.flushing, idle = true, make(chan struct{})
	if s.underway == 0 {
		close(idle)
	} else {
		s.idle = idle
	}
	return idle, true
}

// beginFlush takes what is to be published of a key whose new calls wait, nil if nothing is.
func (b *outbox) beginFlush(key taggedKey) *flush {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.keys[key]
	if s == nil {
		return nil
	}
	now, used := b.now(), s.log.used
	s.log.forget(now, s.rule)
	s.blocks = slices.DeleteFunc(s.blocks, func(c countedBlock) bool { return c.gone <= now })
	defer b.resize(key, s, now)
	r := &flush{
		state: s, key: key, policy: s.policy, rule: s.rule, upToDate: !s.isBehind(b), losses: b.losses, now: now, resetAt: s.resetAt,
		log: s.log, seen: s.seen, bucket: s.bucket.leaked(now, s.rule), blocks: slices.Clone(s.blocks), block: s.block,
	}
	s.behind, s.flushing = false, true
	s.bucket, s.block = bucket{}, 0
	if s.policy.Block <= 0 {
		r.log.entries = slices.Clone(s.log.entries)
		return r
	}
	if r.block == 0 || s.log.used != used { // Redis takes one id once
		r.block = rand.Int64N(maxCallID) + 1
	}
	s.log = slidingLog{}
	return r
}

// endFlush records the outcome of a flush. It returns the admissions of a log that were
// refunded meanwhile: the flush may have put them back at Redis.
func (b *outbox) endFlush(r *flush, got flushReply, err error) (refunded []admission) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.keys[r.key]
	if s != r.state {
		return nil // its policy is another one by now
	}
	taken := s.refunded
	s.flushing, s.refunded = false, nil
	defer b.resize(r.key, s, b.now())
	for _, e := range r.log.entries {
		if slices.Contains(taken, e.id) {
			refunded = append(refunded, e)
		}
	}
	if err != nil {
		s.requeue(r)
		b.pending.Store(true)
		return refunded
	}
	s.losses = max(s.losses, r.losses)
	if got.lost > 0 && r.upToDate && r.losses == b.losses {
		b.losses++ // and so other keys may be lost, too
		b.pending.Store(true)
		s.losses = b.losses
	}
	s.serverTime, s.resetAt = max(s.serverTime, got.now), max(s.resetAt, got.resetAt)
	if s.rule.burst > 0 {
		s.ackBucket(r, got)
		return nil
	}
	s.blocks = slices.DeleteFunc(s.blocks, func(c countedBlock) bool { return c.taken <= s.resetAt })
	if s.policy.Block > 0 {
		if got.over.units > 0 {
			s.blocks = append(s.blocks, got.over)
		}
		return nil
	}
	s.ackLog(r, got)
	return refunded
}

// ackLog records that Redis has the flushed admissions of a log.
func (s *outboxState) ackLog(r *flush, got flushReply) {
	times := map[int64]int64{}
	for _, e := range r.log.entries {
		if e.serverAt == 0 && len(got.times) > 0 {
			times[e.id], got.times = got.times[0], got.times[1:]
		}
	}
	s.log.entries = slices.DeleteFunc(s.log.entries, func(e admission) bool {
		at, was := times[e.id]
		gone := was && at == 0 || e.serverAt > 0 && e.serverAt <= s.resetAt
		if gone {
			s.log.used -= e.cost
		}
		return gone
	})
	for i := range s.log.entries {
		if e := &s.log.entries[i]; e.serverAt == 0 {
			e.serverAt = times[e.id]
		}
	}
	s.findLatest()
	s.leaves = 0
}

// requeue makes a flush that failed part of the next one.
func (s *outboxState) requeue(r *flush) {
	s.behind = true
	switch {
	case s.rule.burst > 0:
		s.bucket = s.bucket.leaked(max(r.now, s.bucket.last), s.rule)
		s.bucket.level += r.bucket.leaked(s.bucket.last, s.rule).level
	case s.policy.Block > 0:
		if len(s.log.entries) == 0 {
			s.block = r.block
		}
		s.log.entries = append(r.log.entries, s.log.entries...)
		s.log.used += r.log.used
	}
}

// ackBucket records what the bucket is after a flush.
func (s *outboxState) ackBucket(r *flush, got flushReply) {
	wrote := int64(0)
	if got.nonce == s.seen.nonce {
		wrote = s.seen.wrote
	}
	if r.bucket.level > 0 {
		wrote = got.now
	}
	s.seen = serverBucket{nonce: got.nonce, level: got.level, at: got.now, wrote: wrote}
}
