package session

import (
	"encoding/hex"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"gatehouse/models"
)

const (
	memoryFor          = 2 * time.Second // a copy that nothing keeps fresh is used for so long
	memoryShards       = 64
	defaultMemoryBytes = 128 << 20
	evictionSample     = 5
	copyOverhead       = 256 // the map's share, the parts of strings and slices, rounding of the allocator
	roleOverhead       = 32
)

// sessionKey is the SHA-256 of a token.
type sessionKey [32]byte

// keyOfHash reads a key from Session.Hash.
func keyOfHash(hash string) (key sessionKey, ok bool) {
	if len(hash) != hex.EncodedLen(len(key)) {
		return key, false
	}
	_, err := hex.Decode(key[:], []byte(hash))
	return key, err == nil
}

// sessionCopy is a session as it was read, and when.
type sessionCopy struct {
	models.Session
	// Position is where this instance's tail stood before the row was read.
	Position logPosition
	// ReadAt is the monotonic instant before it was read.
	ReadAt time.Time
	// Tracked is the generation of the tracking connection that keeps the copy fresh
	// until TrackedUntil, zero if none does.
	Tracked      uint64
	TrackedUntil time.Time
}

// size is about what the copy takes in memory, in bytes.
func (k *sessionCopy) size() int {
	n := int(unsafe.Sizeof(heldCopy{})+unsafe.Sizeof(k.Session)) + copyOverhead + len(k.Hash) + len(k.ID) + len(k.User.ID) + len(k.User.Email) +
		len(k.Data) + len(k.UserAgent) + len(k.IP)
	for _, role := range k.Roles {
		n += roleOverhead + len(role)
	}
	return n
}

// heldCopy is a copy in memory. It is small: every request looks at all of it.
type heldCopy struct {
	session      atomic.Pointer[models.Session] // as it was read, or as it was used since
	position     logPosition
	readAt       time.Time
	tracked      uint64
	trackedUntil time.Time
	vouched      atomic.Uint64 // the state of the tail that last vouched for it
	stale        atomic.Bool   // Redis said that it changed
	bytes        int
}

func newHeldCopy(k sessionCopy) *heldCopy {
	held := &heldCopy{position: k.Position, readAt: k.ReadAt, tracked: k.Tracked, trackedUntil: k.TrackedUntil, bytes: k.size()}
	session := k.Session // alone, not the whole of k
	held.session.Store(&session)
	return held
}

// used adds activity to a copy. What a caller of Get has does not change by it.
func (h *heldCopy) used(lastSeen, idleAt time.Time) {
	s := h.session.Load()
	if !idleAt.After(s.IdleAt) {
		return
	}
	fresh := *s
	fresh.LastSeen, fresh.IdleAt = lastSeen, idleAt
	h.session.Store(&fresh)
}

// sessionMemory holds decoded copies, in shards, up to a number of bytes.
type sessionMemory struct {
	shards [memoryShards]memoryShard
	most   int // bytes in each shard
}

type memoryShard struct {
	mu     sync.RWMutex
	copies map[sessionKey]*heldCopy
	bytes  int
	// changes grows with each invalidation: a read begun before one is not tracked.
	changes uint64
}

func newSessionMemory(most int) *sessionMemory {
	m := &sessionMemory{most: most / memoryShards}
	for i := range m.shards {
		m.shards[i].copies = map[sessionKey]*heldCopy{}
	}
	return m
}

func (m *sessionMemory) shard(key sessionKey) *memoryShard { return &m.shards[key[0]%memoryShards] }

// get returns the copy there is, however old; nil if none.
func (m *sessionMemory) get(key sessionKey) *heldCopy {
	s := m.shard(key)
	s.mu.RLock()
	known := s.copies[key]
	s.mu.RUnlock()
	return known
}

// changes is to be read before Redis is, and given to put.
func (m *sessionMemory) changes(key sessionKey) uint64 {
	s := m.shard(key)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.changes
}

// put keeps the newer of two copies and returns the one that is kept. The copy is
// tracked only if nothing in its shard was invalidated since changes was read.
func (m *sessionMemory) put(key sessionKey, known sessionCopy, changes uint64) *heldCopy {
	held := newHeldCopy(known)
	s := m.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes != changes {
		held.tracked = 0
	}
	there := s.copies[key]
	if there != nil {
		if known.ReadAt.Sub(there.readAt) < memoryFor &&
			(there.session.Load().Version > known.Version || there.readAt.After(known.ReadAt)) {
			return there
		}
		s.bytes -= there.bytes
	}
	s.copies[key] = held
	s.bytes += held.bytes
	s.evict(key, m.most)
	return held
}

// evict makes room, of a few at random the copies that were read first.
func (s *memoryShard) evict(keep sessionKey, most int) {
	for s.bytes > most && len(s.copies) > 1 {
		var oldest sessionKey
		var readAt time.Time
		looked := 0
		for key, held := range s.copies {
			if key != keep && (readAt.IsZero() || held.readAt.Before(readAt)) {
				oldest, readAt = key, held.readAt
			}
			if looked++; looked > evictionSample {
				break
			}
		}
		s.bytes -= s.copies[oldest].bytes
		delete(s.copies, oldest)
	}
}

func (m *sessionMemory) remove(key sessionKey) {
	s := m.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.copies[key]; known != nil {
		s.bytes -= known.bytes
		delete(s.copies, key)
	}
}

// invalidate marks a copy as changed in Redis.
func (m *sessionMemory) invalidate(key sessionKey) {
	s := m.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes++
	if known := s.copies[key]; known != nil {
		known.stale.Store(true)
	}
}

// held is how many copies there are, and their size in bytes.
func (m *sessionMemory) held() (copies, bytes int) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.RLock()
		copies += len(s.copies)
		bytes += s.bytes
		s.mu.RUnlock()
	}
	return copies, bytes
}
