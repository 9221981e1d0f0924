package session

import (
	"crypto/sha256"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
)

// typicalCopy is a session as browsers begin them, with a few values.
func typicalCopy(hash string, at time.Time) *memoryCopy {
	c := newCopy(models.Session{
		Hash: hash, ID: fmt.Sprintf("%.26s", hash), User: models.UserRef{ID: fmt.Sprint(len(hash)), Email: fmt.Sprintf("%.12s@example.com", hash)},
		Roles: append([]string(nil), fmt.Sprintf("%.6s", "editor")), Data: make([]byte, 100), Epoch: 1,
		CreatedAt: at, LastSeen: at, IdleAt: at.Add(time.Hour), ExpiresAt: at.Add(time.Hour),
		UserAgent: fmt.Sprintf("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0 %.4s", hash), IP: fmt.Sprintf("192.0.2.%d", len(hash)),
	}, logOffset{}, at)
	c.generation, c.trackedUntil = 1, at.Add(redisFor)
	return c
}

// The bound in bytes is one on real memory: what a session is taken for and what
// it takes differ by less than a third.
func TestMemoryPerSession(t *testing.T) {
	const n = 5_000
	now := time.Now()
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	before := heap()
	m := newMemory(1 << 30)
	for range n {
		_, hash := newToken()
		key, _ := keyOfHash(hash)
		m.put(key, typicalCopy(hash, now), 0)
	}
	took := float64(heap()-before) / n
	_, bytes := m.size()
	counted := float64(bytes) / n
	t.Logf("%.0f bytes per session with 100 bytes of values, counted as %.0f", took, counted)
	if took > counted*4/3 || took < counted*2/3 {
		t.Errorf("%.0f bytes per session, counted as %.0f", took, counted)
	}
	runtime.KeepAlive(m)
}

// benchCache is a cache whose memory holds n sessions, kept fresh and trusted.
func benchCache(n int) (*Cache, []string) {
	later := time.Now().Add(time.Hour)
	c := &Cache{follower: newLogFollower(nil, nil), memory: newMemory(4 << 30), activity: newActivity(time.Hour), reads: newReadCounters(nil)}
	c.follower.apply(models.Revocations{}, later, true)
	var tokens []string
	for range n {
		token, hash := newToken()
		key, _ := keyOfHash(hash)
		c.memory.put(key, typicalCopy(hash, later), 0)
		tokens = append(tokens, token)
	}
	return c, tokens
}

// BenchmarkGet reads a thousand of the sessions in memory, and for
// comparison the least that can find something by a token's hash.
func BenchmarkGet(b *testing.B) {
	const hot = 1000
	for _, n := range []int{1000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c, tokens := benchCache(n)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i++
				if _, err := c.Get(b.Context(), tokens[i%hot]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("sync.Map", func(b *testing.B) {
		var all sync.Map
		var tokens []string
		for range hot {
			token, _ := newToken()
			all.Store(sha256.Sum256([]byte(token)), &models.Session{})
			tokens = append(tokens, token)
		}
		i := 0
		for b.Loop() {
			i++
			if _, ok := all.Load(sha256.Sum256([]byte(tokens[i%hot]))); !ok {
				b.Fatal("not there")
			}
		}
	})
}

// A warm read allocates nothing.
func TestGetAllocatesNothing(t *testing.T) {
	c, tokens := benchCache(100)
	if n := testing.AllocsPerRun(1000, func() { _, _ = c.Get(t.Context(), tokens[7]) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
