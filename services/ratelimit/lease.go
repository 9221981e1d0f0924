package ratelimit

import (
	"fmt"
	"sync"
	"time"

	"gatehouse/models"
)

const (
	// A lease is a tenth of the window long, within these bounds: short, because
	// its units count until a window after its end; long enough to be worth a call.
	minLease = int64(100 * time.Millisecond / time.Microsecond)
	maxLease = int64(2 * time.Second / time.Microsecond)
	// leaseDrift is how much earlier than the server this instance stops using a
	// block, beside a hundredth of the lease: clocks may run at different speeds.
	leaseDrift = int64(time.Millisecond / time.Microsecond)
	// maxOwedBlocks bounds the blocks of a key to give back at the next call. One
	// that is not given back counts until its lease has ended and a window passed.
	maxOwedBlocks = 16
)

// leaseLength is how long a block may be used, in microseconds.
func leaseLength(window int64) int64 { return min(max(window/10, minLease), maxLease) }

// placedKey is what is counted, and the hash tag under which it is.
type placedKey struct {
	tag  string
	name limitKey
}

// leaseBook holds the blocks of admissions that this instance has taken from
// Redis. A unit is used only until the block's lease ends, by this instance's
// monotonic clock and counted from before the block was asked for, so it was
// counted at Redis all the time. What is left of the block of a key that is forgotten
// is lost until it leaves its window.
type leaseBook struct {
	now func() int64 // microseconds, monotonic

	mu sync.Mutex
	bounded[placedKey, *leaseState]
}

type leaseState struct {
	usage
	policy models.Policy
	block  block
	next   int64   // units of the next block: doubled while blocks are used up in time
	owed   []block // given back with the next call
	call   *leaseCall
	wanted int64 // by those who wait for call
	// What Redis said with the block, for telling.
	remaining, quotaAt int64
}

func (s *leaseState) size() int    { return 0 }
func (s *leaseState) lasts() int64 { return s.policy.Window.Microseconds() }
func (s *leaseState) pinned() bool { return s.call != nil }

// block is a number of admissions to be used until a moment.
type block struct {
	id, units, used int64
	until           int64
}

// leaseCall is a question to Redis that others wait for.
type leaseCall struct {
	done chan struct{}
	// Set before done is closed:
	cost    int64
	refused verdict
	err     error
}

func newLeaseBook(maxKeys int, now func() int64) *leaseBook {
	return &leaseBook{now: now, bounded: newBounded[placedKey, *leaseState](maxKeys)}
}

// state is the key's state, a new one if there is none. b.mu is held.
func (b *leaseBook) state(key placedKey, policy models.Policy, now int64) *leaseState {
	s := b.keys[key]
	if s == nil {
		s = &leaseState{next: 1}
		b.add(key, s, now)
	}
	s.policy, s.used = policy, now
	return s
}

// use takes a hit's cost out of the block at hand.
func (b *leaseBook) use(key placedKey, a *ask, now int64) (v verdict, id int64, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.keys[key]
	if s == nil {
		return verdict{}, 0, false
	}
	return s.use(a, now)
}

func (s *leaseState) use(a *ask, now int64) (v verdict, id int64, ok bool) {
	if now >= s.block.until || s.block.units-s.block.used < a.cost {
		return verdict{}, 0, false
	}
	s.used = now
	s.block.used += a.cost
	return s.tell(now), s.block.id, true
}

// tell is how the key stands as far as this instance knows.
func (s *leaseState) tell(now int64) verdict {
	left := int64(0)
	if now < s.block.until {
		left = s.block.units - s.block.used
	}
	return verdict{passes: true, remaining: s.remaining + left, more: max(0, s.quotaAt-now), at: now}
}

// unuse gives units of a block back, for others here or, when it is over, with
// the next call. It reports false if the block was given back already.
func (b *leaseBook) unuse(key placedKey, id, cost int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.keys[key]
	if s == nil {
		return false
	}
	if s.block.id == id {
		s.block.used = max(0, s.block.used-cost)
		return true
	}
	for i := range s.owed {
		if s.owed[i].id == id {
			s.owed[i].used = max(0, s.owed[i].used-cost)
			return true
		}
	}
	return false
}

// retire puts the block at hand among those to give back.
func (s *leaseState) retire(b block) {
	if b.id == 0 {
		return
	}
	if len(s.owed) == maxOwedBlocks {
		s.owed = s.owed[1:]
	}
	s.owed = append(s.owed, b)
}

// begin starts a call for a block that holds cost and what those who waited
// want, or returns the call under way.
func (b *leaseBook) begin(key placedKey, a *ask) (call *leaseCall, mine bool, units int64, owed []block) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	s := b.state(key, a.hit.Policy, now)
	if s.call != nil {
		s.wanted += a.cost
		return s.call, false, 0, nil
	}
	if s.block.id != 0 {
		if now < s.block.until {
			s.next *= 2
		} else {
			s.next = s.block.used
		}
	}
	lease := s.policy.Lease
	s.next = min(max(s.next, 1), lease)
	units = max(a.cost, min(max(s.next, a.cost+s.wanted), lease))
	s.retire(s.block)
	s.block = block{}
	owed, s.owed, s.wanted = s.owed, nil, 0
	s.call = &leaseCall{done: make(chan struct{}), cost: a.cost}
	return s.call, true, units, owed
}

// end records what came of a call: a block, a refusal or an error. It returns
// the verdict for the hit that asked.
func (b *leaseBook) end(key placedKey, a *ask, call *leaseCall, got leaseReply, asked block, owed []block) (verdict, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer close(call.done)
	now := b.now()
	s := b.state(key, a.hit.Policy, now)
	s.call = nil
	if got.err != nil {
		for _, o := range owed {
			s.retire(o)
		}
		s.retire(asked) // it may have been taken: none of it was used
		call.err = got.err
		return verdict{}, got.err
	}
	s.remaining, s.quotaAt = got.remaining, now+got.more
	if got.units == 0 {
		call.refused = verdict{remaining: got.remaining, retry: got.retry, more: got.more, at: got.at}
		return call.refused, nil
	}
	asked.units = got.units
	s.block = asked
	v, _, ok := s.use(a, now)
	if !ok {
		s.retire(s.block)
		s.block = block{}
		call.err = fmt.Errorf("rate limit: a block of admissions came too late: %w", models.ErrUnavailable)
		return verdict{}, call.err
	}
	return v, nil
}

// atHand is how many units of the key's block are left.
func (b *leaseBook) atHand(key placedKey) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.keys[key]
	if s == nil || b.now() >= s.block.until {
		return 0
	}
	return s.block.units - s.block.used
}

// reset forgets the key's block: at Redis nothing of it is left.
func (b *leaseBook) reset(key placedKey) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.keys[key]; s != nil {
		s.block, s.owed = block{}, nil
	}
}

// takeAll empties the book and returns what is to be given back.
func (b *leaseBook) takeAll() map[placedKey]leaseState {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := map[placedKey]leaseState{}
	for key, s := range b.keys {
		s.retire(s.block)
		s.block = block{}
		if len(s.owed) > 0 {
			all[key] = leaseState{policy: s.policy, owed: s.owed}
			s.owed = nil
		}
	}
	return all
}
