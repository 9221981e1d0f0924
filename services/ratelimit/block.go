package ratelimit

import (
	"fmt"
	"sync"
	"time"

	"gatehouse/models"
)

const (
	// A block can be used for a tenth of the window, within these bounds. That is short, because
	// its units count until a window later, and long enough to be worth a call.
	minBlockLength = int64(100 * time.Millisecond / time.Microsecond)
	maxBlockLength = int64(2 * time.Second / time.Microsecond)
	// blockDrift is how much earlier than the server this instance stops using a block, beside a
	// hundredth of its length. The two clocks may run at different speeds.
	blockDrift = int64(time.Millisecond / time.Microsecond)
	// maxReturnedBlocks bounds the blocks of a key that wait to be returned with the next call.
	// Others count until a window after their end.
	maxReturnedBlocks = 16
)

// blockLength is how long a block may be used, in microseconds.
func blockLength(window int64) int64 { return min(max(window/10, minBlockLength), maxBlockLength) }

// blockBook holds the blocks of admissions that this instance has taken from Redis. A unit is used
// only until its block ends, by the monotonic clock of this instance. That time begins before the
// request for the block is sent, so Redis counts the unit all along. If a key is forgotten, what is
// left of its block counts until a window after the block's end.
type blockBook struct {
	now func() int64 // microseconds, monotonic

	mu sync.Mutex
	bounded[taggedKey, *blockState]
}

type blockState struct {
	usage
	policy   models.Policy
	block    block
	next     int64   // units of the next block: doubled while blocks are used up in time
	returned []block // given back with the next call
	call     *blockCall
	wanted   int64 // by requests that wait for call
	// As Redis said with the block, for decisions.
	remaining, quotaAt int64
}

func (s *blockState) size() int    { return 0 }
func (s *blockState) lasts() int64 { return s.policy.Window.Microseconds() }
func (s *blockState) pinned() bool { return s.call != nil }

// block is a number of admissions that can be used until a moment.
type block struct {
	id, units, used int64
	until           int64
}

// blockCall is a call to Redis whose outcome other requests wait for.
type blockCall struct {
	done chan struct{}
	// Set before done is closed:
	cost    int64
	refused result
	err     error
}

func newBlockBook(maxKeys int, now func() int64) *blockBook {
	return &blockBook{now: now, bounded: newBounded[taggedKey, *blockState](maxKeys)}
}

// state returns the key's state, a new one if there is none. The caller holds b.mu.
func (b *blockBook) state(key taggedKey, policy models.Policy, now int64) *blockState {
	s := b.keys[key]
	if s == nil {
		s = &blockState{next: 1}
		b.add(key, s, now)
	}
	s.policy, s.used = policy, now
	return s
}

// use takes a request's cost out of the block in use.
func (b *blockBook) use(key taggedKey, req *request, now int64) (v result, id int64, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.keys[key]
	if s == nil {
		return result{}, 0, false
	}
	return s.use(req, now)
}

func (s *blockState) use(req *request, now int64) (v result, id int64, ok bool) {
	if now >= s.block.until || s.block.units-s.block.used < req.cost {
		return result{}, 0, false
	}
	s.used = now
	s.block.used += req.cost
	return s.standing(now), s.block.id, true
}

// standing is the result of a unit taken, as far as this instance knows.
func (s *blockState) standing(now int64) result {
	left := int64(0)
	if now < s.block.until {
		left = s.block.units - s.block.used
	}
	return result{passes: true, remaining: s.remaining + left, more: max(0, s.quotaAt-now), at: now}
}

// putBack returns units to a block, or to what is returned with the next call if the block
// is over. It reports false if the block was returned already.
func (b *blockBook) putBack(key taggedKey, id, cost int64) bool {
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
	for i := range s.returned {
		if s.returned[i].id == id {
			s.returned[i].used = max(0, s.returned[i].used-cost)
			return true
		}
	}
	return false
}

// retire puts a block among those to be returned.
func (s *blockState) retire(b block) {
	if b.id == 0 {
		return
	}
	if len(s.returned) == maxReturnedBlocks {
		s.returned = s.returned[1:]
	}
	s.returned = append(s.returned, b)
}

// giveUp leaves the block in use to be returned: what this instance admits without Redis would come
// on top of it.
func (b *blockBook) giveUp(key taggedKey) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.keys[key]; s != nil {
		s.retire(s.block)
		s.block = block{}
	}
}

// join starts a call for a block that is large enough for this request and for those that
// waited, or returns the call under way.
func (b *blockBook) join(key taggedKey, req *request) (call *blockCall, mine bool, units int64, returned []block) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	s := b.state(key, req.hit.Policy, now)
	if s.call != nil {
		s.wanted += req.cost
		return s.call, false, 0, nil
	}
	if s.block.id != 0 {
		if now < s.block.until {
			s.next *= 2
		} else {
			s.next = s.block.used
		}
	}
	most := s.policy.Block
	s.next = min(max(s.next, 1), most)
	units = max(req.cost, min(max(s.next, req.cost+s.wanted), most))
	s.retire(s.block)
	s.block = block{}
	returned, s.returned, s.wanted = s.returned, nil, 0
	s.call = &blockCall{done: make(chan struct{}), cost: req.cost}
	return s.call, true, units, returned
}

// finish records the outcome of a call: a block, a refusal or an error. It returns the result
// for the request that made the call.
func (b *blockBook) finish(key taggedKey, req *request, call *blockCall, got blockReply, asked block, returned []block) (result, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer close(call.done)
	now := b.now()
	s := b.state(key, req.hit.Policy, now)
	s.call = nil
	if got.err != nil {
		for _, o := range returned {
			s.retire(o)
		}
		s.retire(asked) // it may have been taken: none of it was used
		call.err = got.err
		return result{}, got.err
	}
	s.remaining, s.quotaAt = got.remaining, now+got.more
	if got.units == 0 {
		call.refused = result{remaining: got.remaining, retry: got.retry, more: got.more, at: got.at}
		return call.refused, nil
	}
	asked.units = got.units
	s.block = asked
	v, _, ok := s.use(req, now)
	if !ok {
		s.retire(s.block)
		s.block = block{}
		call.err = fmt.Errorf("rate limit: a block of admissions came too late: %w", models.ErrUnavailable)
		return result{}, call.err
	}
	return v, nil
}

// unitsLeft is how many units of the key's block can be used.
func (b *blockBook) unitsLeft(key taggedKey) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.keys[key]
	if s == nil || b.now() >= s.block.until {
		return 0
	}
	return s.block.units - s.block.used
}

// reset forgets the key's block: Redis has nothing of it any more.
func (b *blockBook) reset(key taggedKey) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.keys[key]; s != nil {
		s.block, s.returned = block{}, nil
	}
}

// drain empties the book and returns what Redis is to get back.
func (b *blockBook) drain() map[taggedKey]blockState {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := map[taggedKey]blockState{}
	for key, s := range b.keys {
		s.retire(s.block)
		s.block = block{}
		if len(s.returned) > 0 {
			all[key] = blockState{policy: s.policy, returned: s.returned}
			s.returned = nil
		}
	}
	return all
}
