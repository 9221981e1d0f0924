package ratelimit

import (
	"strconv"

	"gatehouse/models"
)

// expectation is what Redis must have of a key unless it lost something, for one call.
type expectation struct {
	state  *admittedState
	member string // "" for nothing
	until  int64  // by the server's clock
}

// expect begins a call about hits, and says in expected what Redis must have of their
// keys. It begins none if keys are behind, and returns them.
func (b *admittedBook) expect(tag string, asks []ask, expected []expectation) (behind []placedKey) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	for i := range asks {
		key := placedKey{tag, asks[i].name}
		s := b.state(key, &asks[i], now)
		s.asking++ // so that it is not dropped for the next
		expected[i].state = s
		expected[i].member, expected[i].until = s.expected(asks[i].rule)
		if s.isBehind(b) || s.reporting {
			behind = append(behind, key)
		}
	}
	for i := 0; behind != nil && i < len(asks); i++ {
		expected[i].state.asking--
	}
	return behind
}

// asked ends a call that told nothing.
func (b *admittedBook) asked(tag string, asks []ask, expected []expectation) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range asks {
		b.landed(placedKey{tag, asks[i].name}, expected[i].state)
	}
}

// landed ends a call about a key. b.mu is held.
func (b *admittedBook) landed(key placedKey, s *admittedState) {
	if s.asking--; s.asking > 0 {
		return
	}
	if s.asked != nil {
		close(s.asked)
		s.asked = nil
	}
	if s.size() == 0 && s.resetAt == 0 && s.seen.level == 0 && s.bucket.level == 0 && !s.reporting && b.keys[key] == s {
		b.drop(key)
	}
}

func (s *admittedState) isBehind(b *admittedBook) bool { return s.behind || s.losses < b.losses }

// expected is what must be there, until when by the server's clock; "" if nothing must.
func (s *admittedState) expected(r rule) (member string, until int64) {
	switch {
	case s.policy.Lease > 0:
		if n := len(s.blocks); n > 0 {
			member, until = strconv.FormatInt(s.blocks[n-1].id, 10), s.blocks[n-1].leaves
		}
	case s.rule.burst > 0:
		if s.seen.level > 0 {
			member = strconv.FormatInt(s.seen.nonce, 10) + " " + strconv.FormatInt(s.seen.wrote, 10)
			until = s.seen.at + ceilDiv(s.seen.level, r.refill())
		}
	case s.latest.told > 0:
		member, until = strconv.FormatInt(s.latest.id*1000+s.latest.cost-1, 10), s.latest.told+r.window
	}
	if until <= s.heard {
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

// sample is what Redis must have of up to n keys.
func (b *admittedBook) sample(n int) map[placedKey]expectedOf {
	b.mu.Lock()
	defer b.mu.Unlock()
	some, seen := map[placedKey]expectedOf{}, 0
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
