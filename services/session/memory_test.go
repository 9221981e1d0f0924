package session

import (
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
)

func keyNamed(name string) memoryKey {
	var key memoryKey
	copy(key[1:], name) // all in one shard
	return key
}

func TestMemoryKeepsTheNewerCopy(t *testing.T) {
	start := time.Now()
	copyOf := func(version int64, readAt time.Duration) *memoryCopy {
		return newCopy(models.Session{Hash: "h", Version: version}, logOffset{}, start.Add(readAt))
	}
	for _, test := range []struct {
		name        string
		first, then *memoryCopy
		want        int64
	}{
		{"newer version", copyOf(1, 0), copyOf(2, time.Millisecond), 2},
		{"older version read later", copyOf(2, 0), copyOf(1, time.Millisecond), 2},
		{"read earlier, stored later", copyOf(2, time.Millisecond), copyOf(3, 0), 2},
		{"older version long after: a restored database", copyOf(2, 0), copyOf(1, untrackedFor), 1},
	} {
		m := newMemory(1 << 20)
		m.put(keyNamed("h"), test.first, 0)
		m.put(keyNamed("h"), test.then, 0)
		if got := m.get(keyNamed("h")).session.Load().Version; got != test.want {
			t.Errorf("%s: version %d", test.name, got)
		}
	}
}

// What was handed out never changes; activity makes a new one, once.
func TestHeldSessionNeverChanges(t *testing.T) {
	read := time.Now().UTC().Truncate(time.Microsecond)
	held := newCopy(models.Session{Hash: "h", LastSeen: read, IdleAt: read.Add(time.Hour)}, logOffset{}, read)
	first := held.session.Load()
	held.used(read, read.Add(time.Hour))
	if held.session.Load() != first {
		t.Error("another one although nothing happened")
	}
	held.used(read.Add(time.Minute), read.Add(time.Minute+time.Hour))
	second := held.session.Load()
	if !second.LastSeen.Equal(read.Add(time.Minute)) || !second.IdleAt.Equal(read.Add(time.Minute+time.Hour)) {
		t.Errorf("last seen %v, idle at %v", second.LastSeen, second.IdleAt)
	}
	if !first.LastSeen.Equal(read) || !first.IdleAt.Equal(read.Add(time.Hour)) {
		t.Errorf("the first changed: last seen %v, idle at %v", first.LastSeen, first.IdleAt)
	}
	held.used(read, read.Add(time.Hour)) // an older activity, recorded late
	if held.session.Load() != second {
		t.Error("another one although nothing happened since")
	}
}

func TestMemoryIsBounded(t *testing.T) {
	const most = 1 << 20
	m := newMemory(most)
	now := time.Now()
	small := newCopy(models.Session{Hash: strings.Repeat("h", 64)}, logOffset{}, now)
	for range 20_000 {
		_, hash := newToken()
		key, _ := keyOfHash(hash)
		m.put(key, small, 0)
	}
	copies, bytes := m.size()
	if bytes > most || bytes < most*9/10 || copies != bytes/small.bytes {
		t.Errorf("%d copies of %d bytes are %d of %d bytes", copies, small.bytes, bytes, most)
	}
	// What is larger than a shard may hold is kept alone.
	m.put(keyNamed("large"), newCopy(models.Session{Data: make([]byte, most)}, logOffset{}, now), 0)
	if m.get(keyNamed("large")) == nil {
		t.Error("the copy that was just read is not there")
	}
	m.put(keyNamed("next"), small, 0)
	if _, bytes := m.size(); m.get(keyNamed("large")) != nil || bytes > most {
		t.Errorf("%d bytes after the next one", bytes)
	}
	for i := range m.shards {
		for key := range m.shards[i].copies {
			m.remove(key)
		}
	}
	if copies, bytes := m.size(); copies != 0 || bytes != 0 {
		t.Errorf("emptied, it holds %d copies of %d bytes", copies, bytes)
	}
}

// A copy read before an invalidation arrived, and stored after it, is not taken
// for one that is kept fresh.
func TestMemoryFillRacesInvalidation(t *testing.T) {
	m := newMemory(1 << 20)
	key := keyNamed("h")
	began := time.Now()
	tracked := func(readAt time.Time) *memoryCopy {
		c := newCopy(models.Session{Hash: "h"}, logOffset{}, readAt)
		c.generation = 7
		return c
	}
	if held := m.put(key, tracked(began), m.changes(key)); held.generation != 7 {
		t.Error("not tracked")
	}
	before := m.changes(key)
	m.invalidate(key)
	if !m.get(key).stale.Load() {
		t.Error("not marked as changed")
	}
	if held := m.put(key, tracked(began.Add(time.Millisecond)), before); held.generation != 0 || held.stale.Load() {
		t.Error("tracked although an invalidation was missed")
	}
}

func TestMemoryConcurrently(t *testing.T) {
	m := newMemory(64 << 10)
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			for i := range 500 {
				key, _ := keyOfToken(strings.Repeat(strconv.Itoa(i%9), tokenLength))
				m.put(key, newCopy(models.Session{Version: int64(n)}, logOffset{}, time.Now()), m.changes(key))
				if held := m.get(key); held != nil {
					seen := time.UnixMicro(int64(i))
					held.used(seen, seen.Add(time.Hour))
					if s := held.session.Load(); !s.IdleAt.Equal(s.LastSeen.Add(time.Hour)) {
						t.Errorf("last seen %v, idle at %v", s.LastSeen, s.IdleAt)
					}
				}
				m.invalidate(key)
				if i%7 == 0 {
					m.remove(key)
				}
			}
		})
	}
	wg.Wait()
}
