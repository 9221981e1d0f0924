package ratelimit

import (
	"strconv"

	"gatehouse/models"
)

// expectation is what Redis must have of a key unless it lost something, for one call.
type expectation struct {
	state  *outboxState
	member string // "" for nothing
	until  int64  // by the server's clock
	leaves int64  // of a log: nothing leaves it before then; 0: not known
}

// beginCall begins a call about the requests, and fills in what Redis must have of their keys.
// If keys are behind or being flushed it begins no call, and returns those keys.
func (b *outbox) beginCall(tag string, requests []request, expected []expectation) (behind []taggedKey) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	for i := range requests {
		key := taggedKey{tag, requests[i].name}
		s := b.state(key, &requests[i], now)
		s.underway++ // so that the next does not evict it
		expected[i].state = s
		expected[i].member, expected[i].until = s.expected(requests[i].rule)
		expected[i].leaves = s.leaves
		if s.isBehind(b) || s.flushing {
			behind = append(behind, key)
		}
	}
	for i := 0; behind != nil && i < len(requests); i++ {
		expected[i].state.underway--
	}
	return behind
}

// endCall ends a call that brought nothing to record.
func (b *outbox) endCall(tag string, requests []request, expected []expectation) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range requests {
		b.callDone(taggedKey{tag, requests[i].name}, expected[i].state)
	}
}

// callDone ends a call about one key. The caller holds b.mu.
func (b *outbox) callDone(key taggedKey, s *outboxState) {
	if s.underway--; s.underway > 0 {
		return
	}
	if s.idle != nil {
		close(s.idle)
		s.idle = nil
	}
	if s.size() == 0 && s.resetAt == 0 && s.seen.level == 0 && s.bucket.level == 0 && !s.flushing && b.keys[key] == s {
		b.drop(key)
	}
}

func (s *outboxState) isBehind(b *outbox) bool { return s.behind || s.losses < b.losses }

// expected is what must be there, and until when by the server's clock; "" if nothing must.
func (s *outboxState) expected(r rule) (member string, until int64) {
	switch {
	case s.policy.Block > 0:
		if n := len(s.blocks); n > 0 {
			member, until = strconv.FormatInt(s.blocks[n-1].id, 10), s.blocks[n-1].leaves
		}
	case s.rule.burst > 0:
		if s.seen.level > 0 {
			member = strconv.FormatInt(s.seen.nonce, 10) + " " + strconv.FormatInt(s.seen.wrote, 10)
			until = s.seen.at + ceilDiv(s.seen.level, r.refill())
		}
	case s.latest.serverAt > 0:
		member, until = strconv.FormatInt(s.latest.id*1000+s.latest.cost-1, 10), s.latest.serverAt+r.window
	}
	if until <= s.serverTime {
		return "", 0
	}
	return member, until
}

// expectedOf is what Redis must have of a policy's key.
type expectedOf struct {
	policy models.Policy
	rule   rule
	member string
}

// sample returns what Redis must have of up to n keys.
func (b *outbox) sample(n int) map[taggedKey]expectedOf {
	b.mu.Lock()
	defer b.mu.Unlock()
	some, seen := map[taggedKey]expectedOf{}, 0
	for key, s := range b.keys {
		if len(some) == n || seen == 4*n {
			break
		}
		seen++
		if s.isBehind(b) || b.now()-s.used > s.rule.window {
			continue
		}
		if member, _ := s.expected(s.rule); member != "" {
			some[key] = expectedOf{s.policy, s.rule, member}
		}
	}
	return some
}
