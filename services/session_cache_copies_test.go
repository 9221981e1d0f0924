package services

import (
	"reflect"
	"testing"
	"time"

	"gatehouse/models"
)

func TestSessionMemoryKeepsTheNewerCopy(t *testing.T) {
	start := time.Now()
	copyOf := func(version int64, readAt time.Duration) sessionCopy {
		return sessionCopy{Session: models.Session{Hash: "h", Version: version}, ReadAt: start.Add(readAt)}
	}
	for _, test := range []struct {
		name        string
		first, then sessionCopy
		want        int64
	}{
		{"newer version", copyOf(1, 0), copyOf(2, time.Millisecond), 2},
		{"older version read later", copyOf(2, 0), copyOf(1, time.Millisecond), 2},
		{"read earlier, stored later", copyOf(2, time.Millisecond), copyOf(3, 0), 2},
		{"older version long after: a restored database", copyOf(2, 0), copyOf(1, memoryFor), 1},
	} {
		m := newSessionMemory()
		m.put(test.first)
		m.put(test.then)
		if got := m.copies["h"].Version; got != test.want {
			t.Errorf("%s: version %d", test.name, got)
		}
	}
}

func TestSessionMemoryIsBoundedInSizeAndTime(t *testing.T) {
	m := newSessionMemory()
	now := time.Now()
	for range memoryMax + 100 {
		_, hash := newSessionToken()
		m.put(sessionCopy{Session: models.Session{Hash: hash}, ReadAt: now})
	}
	if len(m.copies) != memoryMax {
		t.Errorf("%d copies", len(m.copies))
	}
	m.put(sessionCopy{Session: models.Session{Hash: "h"}, ReadAt: now})
	if _, ok := m.get("h", now.Add(memoryFor-1)); !ok {
		t.Error("gone too early")
	}
	if _, ok := m.get("h", now.Add(memoryFor)); ok {
		t.Error("used after its time")
	}
}

func TestSessionCopyThroughRedisIsTheSame(t *testing.T) {
	at := time.UnixMicro(1_800_000_000_123_456).UTC()
	known := sessionCopy{Position: 7, Session: models.Session{
		Hash: "h", ID: "id", User: models.UserRef{ID: "1", Email: "ann@example.com"}, Roles: []string{"viewer"}, Epoch: 3,
		Data: []byte{0, 255}, Version: 9, CreatedAt: at, UserAgent: "ü", IP: "::1",
	}}
	known.LastSeen, known.IdleAt, known.ExpiresAt = at.Add(time.Second), at.Add(time.Minute), at.Add(time.Hour)
	text, err := known.encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := decodeSessionCopy("h", text); err != nil || !reflect.DeepEqual(got, known) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func BenchmarkSessionMemoryRead(b *testing.B) {
	c := &SessionCache{
		tail:     newRevocationTail(nil, nil),
		memory:   newSessionMemory(),
		activity: newSessionActivity(time.Hour),
	}
	now := time.Now()
	c.tail.apply(models.RevocationTail{}, now.Add(time.Hour), true) // trusted for the whole run
	token, hash := newSessionToken()
	c.memory.put(sessionCopy{Session: models.Session{Hash: hash, IdleAt: now.Add(time.Hour), ExpiresAt: now.Add(time.Hour)}, ReadAt: now.Add(time.Hour)})
	b.ReportAllocs()
	for b.Loop() {
		if !c.Warm(token) {
			b.Fatal("not warm")
		}
	}
}
