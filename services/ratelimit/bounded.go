package ratelimit

const (
	// minKeys keeps the keys of one decision from evicting each other.
	minKeys = 64
	// entriesPerKey bounds the memory of all keys together: it is their average.
	entriesPerKey = 20
	// sampled is how many keys are looked at to find one to forget.
	sampled = 8
)

// bounded is a map of at most so many keys, whose states have at most so many entries
// together. To make room it looks at a few keys, and forgets those that are over and, if it
// is full, the least recently used one. Redis samples in the same way for its allkeys-lru.
// It is not safe for concurrent use.
type bounded[K comparable, S boundedState] struct {
	most    int
	keys    map[K]S
	entries int
}

type boundedState interface {
	comparable
	size() int    // how many entries it has
	lasts() int64 // how long it may be of use after it was looked at
	pinned() bool // whether it must stay
	tracked() *usage
}

// usage is embedded in each state.
type usage struct {
	used    int64 // when it was last looked at
	counted int   // its entries, as they are in those of all
}

func (u *usage) tracked() *usage { return u }

func newBounded[K comparable, S boundedState](most int) bounded[K, S] {
	return bounded[K, S]{most: max(most, minKeys), keys: map[K]S{}}
}

// add puts in an empty state for a key that is not there.
func (b *bounded[K, S]) add(key K, s S, now int64) {
	b.makeRoom(key, now)
	s.tracked().used = now
	b.keys[key] = s
}

func (b *bounded[K, S]) drop(key K) {
	if s, ok := b.keys[key]; ok {
		b.entries -= s.tracked().counted
		delete(b.keys, key)
	}
}

// resize counts a state's entries again after a change.
func (b *bounded[K, S]) resize(key K, s S, now int64) {
	if b.keys[key] != s {
		return // forgotten meanwhile
	}
	u := s.tracked()
	b.entries += s.size() - u.counted
	u.counted = s.size()
	if b.entries > entriesPerKey*b.most {
		b.makeRoom(key, now)
	}
}

// makeRoom forgets keys, but not the spared one.
func (b *bounded[K, S]) makeRoom(spared K, now int64) {
	for {
		var oldest K
		found, oldestUsed, seen := false, int64(0), 0
		for key, s := range b.keys {
			if seen++; seen > sampled {
				break
			}
			used := s.tracked().used
			switch {
			case key == spared || s.pinned():
			case now-used > s.lasts():
				b.drop(key)
			case !found || used < oldestUsed:
				oldest, oldestUsed, found = key, used, true
			}
		}
		if !found || len(b.keys) < b.most && b.entries <= entriesPerKey*b.most {
			return
		}
		b.drop(oldest)
	}
}
