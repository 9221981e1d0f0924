package session

import (
	"encoding/base64"
	"reflect"
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

func TestSessionMemoryKeepsTheNewerCopy(t *testing.T) {
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

func TestSessionMemoryIsBounded(t *testing.T) {
	const most = 1 << 20
	m := newMemory(most)
	now := time.Now()
	small := newCopy(models.Session{Hash: strings.Repeat("h", 64)}, logOffset{}, now)
	for range 20_000 {
		key, _ := keyOfToken(newTestToken())
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

func newTestToken() string { token, _ := newToken(); return token }

// A copy read before an invalidation arrived, and stored after it, is not taken
// for one that is kept fresh.
func TestSessionMemoryFillRacesInvalidation(t *testing.T) {
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

func TestSessionMemoryConcurrently(t *testing.T) {
	m := newMemory(64 << 10)
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			for i := range 2_000 {
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

func TestSessionCopyThroughRedisIsTheSame(t *testing.T) {
	at := time.UnixMicro(1_800_000_000_123_456).UTC()
	known, made := models.Session{
		Hash: "h", ID: "id", User: models.UserRef{ID: "1", Email: "ann@example.com"}, Roles: []string{"viewer"}, Epoch: 3,
		Data: []byte{0, 255}, Version: 9, CreatedAt: at, UserAgent: "ü", IP: "::1",
	}, logOffset{7, 99}
	known.LastSeen, known.IdleAt, known.ExpiresAt = at.Add(time.Second), at.Add(time.Minute), at.Add(time.Hour)
	c := &Cache{sealer: newSealer(nil)}
	text, err := c.encode(known, made)
	if err != nil {
		t.Fatal(err)
	}
	if got, offset, err := c.decode("h", text); err != nil || offset != made || !reflect.DeepEqual(got, known) {
		t.Errorf("got %+v at %v, %v", got, offset, err)
	}
	for _, secret := range []string{"ann@example.com", "viewer", "::1"} {
		if strings.Contains(text, secret) {
			t.Errorf("the copy shows %q", secret)
		}
	}
	// It is good for that session and version only, and unchanged.
	_, sealed, _ := strings.Cut(text, " ")
	flipped := []byte(text)
	flipped[len(flipped)-1] ^= 1
	for name, try := range map[string][2]string{
		"another session": {"i", text}, "another version": {"h", "10 " + sealed}, "changed": {"h", string(flipped)},
		"cut": {"h", text[:20]}, "empty": {"h", ""}, "no version": {"h", "x " + sealed}, "plain": {"h", `9 {"id":"x"}`},
	} {
		if _, _, err := c.decode(try[0], try[1]); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
}

// Keys are changed in two steps: every instance learns the new one, then seals
// with it. At each step all instances read what any of them wrote.
func TestSessionSealRotation(t *testing.T) {
	a, b := strings.Repeat("a", 32), strings.Repeat("b", 32)
	steps := [][]string{{a}, {a, b}, {b, a}, {b}}
	for i := range len(steps) - 1 {
		for _, pair := range [][2]int{{i, i + 1}, {i + 1, i}} {
			from, to := newSealer(steps[pair[0]]), newSealer(steps[pair[1]])
			text, err := to.open(from.seal([]byte("copy"), "h 1"), "h 1")
			readable := len(steps[pair[0]]) == 2 || len(steps[pair[1]]) == 2 || pair[0] == pair[1]
			if readable && (err != nil || string(text) != "copy") {
				t.Errorf("sealed by %v, opened by %v: %q, %v", steps[pair[0]], steps[pair[1]], text, err)
			}
		}
	}
	if _, err := newSealer([]string{b}).open(newSealer([]string{a}).seal([]byte("copy"), ""), ""); err == nil {
		t.Error("opened with another key")
	}
	if newSealer(nil).keys[0].name == nil || reflect.DeepEqual(newSealer(nil).keys[0].name, newSealer(nil).keys[0].name) {
		t.Error("without secrets the key is not random")
	}
}

// Tokens have 256 bits that nothing predicts, no two are alike, and their hash,
// which is what is stored, does not show them.
func TestSessionTokensAreRandom(t *testing.T) {
	const n = 2_000
	seen := map[string]bool{}
	var ones [tokenBytes * 8]int
	for range n {
		token, hash := newToken()
		raw, err := base64.RawURLEncoding.DecodeString(token)
		if err != nil || len(raw) != 32 || seen[token] || len(token) != tokenLength || hash == token || !isToken(token) {
			t.Fatalf("token of %d bytes, seen before: %v, %v", len(raw), seen[token], err)
		}
		seen[token] = true
		for bit := range ones {
			ones[bit] += int(raw[bit/8] >> (bit % 8) & 1)
		}
	}
	for bit, count := range ones { // 9 standard deviations: it never happens by chance
		if count < n/2-9*23 || count > n/2+9*23 {
			t.Errorf("bit %d is set in %d of %d tokens", bit, count, n)
		}
	}
}
