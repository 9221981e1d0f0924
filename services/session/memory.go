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
	memoryShards       = 64
	defaultMemoryBytes = 128 << 20
	evictionSample     = 5
	copyOverhead       = 256 // the map's share, the parts of strings and slices, rounding of the allocator
	roleOverhead       = 32
)

// memoryKey is the SHA-256 of a token.
type memoryKey [32]byte

// keyOfHash reads a key from Session.Hash.
func keyOfHash(hash string) (key memoryKey, ok bool) {
	if len(hash) != hex.EncodedLen(len(key)) {
		return key, false
	}
	_, err := hex.Decode(key[:], []byte(hash))
	return key, err == nil
}

// memoryCopy is a session as this instance read it.
type memoryCopy struct {
	session      atomic.Pointer[models.Session] // as it was read, or as it was used since
	offset       logOffset                      // of the log follower, before the row was read
	readAt       time.Time                      // before it was read, by the monotonic clock
	generation   uint64                         // of the connection that reports changes; 0: none does
	trackedUntil time.Time
	validated    atomic.Uint64 // the version of the log follower that validated it last
	stale        atomic.Bool   // Redis reported a change
	bytes        int           // about what it takes
}

func newCopy(s models.Session, offset logOffset, readAt time.Time) *memoryCopy {
	c := &memoryCopy{offset: offset, readAt: readAt}
	c.session.Store(&s)
	c.bytes = int(unsafe.Sizeof(*c)+unsafe.Sizeof(s)) + copyOverhead + len(s.Hash) + len(s.ID) + len(s.User.ID) + len(s.User.Email) +
		len(s.Data) + len(s.UserAgent) + len(s.IP)
	for _, role := range s.Roles {
		c.bytes += roleOverhead + len(role)
	}
	return c
}

// used adds activity to a copy. What a caller of Get has does not change by it.
func (c *memoryCopy) used(lastSeen, idleAt time.Time) {
	s := c.session.Load()
	if !idleAt.After(s.IdleAt) {
		return
	}
	fresh := *s
	fresh.LastSeen, fresh.IdleAt = lastSeen, idleAt
	c.session.Store(&fresh)
}

// memory holds copies, in shards, up to a number of bytes.
type memory struct {
	shards [memoryShards]memoryShard
	most   int // bytes in each shard
}

type memoryShard struct {
	mu     sync.RWMutex
	copies map[memoryKey]*memoryCopy
	bytes  int
	// changes grows with each reported change: a read begun before one is not tracked.
	changes uint64
}

func newMemory(most int) *memory {
	m := &memory{most: most / memoryShards}
	for i := range m.shards {
		m.shards[i].copies = map[memoryKey]*memoryCopy{}
	}
	return m
}

func (m *memory) shard(key memoryKey) *memoryShard { return &m.shards[key[0]%memoryShards] }

// get returns the copy there is, however old; nil if none.
func (m *memory) get(key memoryKey) *memoryCopy {
	s := m.shard(key)
	s.mu.RLock()
	known := s.copies[key]
	s.mu.RUnlock()
	return known
}

// changes is to be read before Redis is, and given to put.
func (m *memory) changes(key memoryKey) uint64 {
	s := m.shard(key)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.changes
}

// put keeps the newer of two copies and returns the one that is kept. A new one is tracked
// only if no change was reported in its shard since changes was read.
func (m *memory) put(key memoryKey, read *memoryCopy, changes uint64) *memoryCopy {
	s := m.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changes != changes {
		read.generation = 0
	}
	if known := s.copies[key]; known != nil {
		if read.readAt.Sub(known.readAt) < untrackedFor &&
			(known.session.Load().Version > read.session.Load().Version || known.readAt.After(read.readAt)) {
			return known
		}
		s.bytes -= known.bytes
	}
	s.copies[key] = read
	s.bytes += read.bytes
	s.evict(key, m.most)
	return read
}

// evict makes room: it removes, of a few at random, the copy that was read first. The bound is of
// bytes, and each shard has its own lock, so this is not the map of package ratelimit.
func (s *memoryShard) evict(keep memoryKey, most int) {
	for s.bytes > most && len(s.copies) > 1 {
		var oldest memoryKey
		var readAt time.Time
		looked := 0
		for key, known := range s.copies {
			if key != keep && (readAt.IsZero() || known.readAt.Before(readAt)) {
				oldest, readAt = key, known.readAt
			}
			if looked++; looked > evictionSample {
				break
			}
		}
		s.bytes -= s.copies[oldest].bytes
		delete(s.copies, oldest)
	}
}

func (m *memory) remove(key memoryKey) {
	s := m.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.copies[key]; known != nil {
		s.bytes -= known.bytes
		delete(s.copies, key)
	}
}

// invalidate marks a copy as changed in Redis.
func (m *memory) invalidate(key memoryKey) {
	s := m.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes++
	if known := s.copies[key]; known != nil {
		known.stale.Store(true)
	}
}

// size is how many copies there are, and about what they take in bytes.
func (m *memory) size() (copies, bytes int) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.RLock()
		copies += len(s.copies)
		bytes += s.bytes
		s.mu.RUnlock()
	}
	return copies, bytes
}
