package redis

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/services/servicestest"
)

// syncedLog is a log that is read while it is written.
type syncedLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *syncedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *syncedLog) lines(parts ...string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		all := true
		for _, part := range parts {
			all = all && strings.Contains(line, part)
		}
		if all {
			n++
		}
	}
	return n
}

// A policy that evicts locks is told of whenever it is set, on whichever node, and once.
func TestRedisEvictionIsWarnedOf(t *testing.T) {
	t.Parallel()
	nodes := servicestest.StartCluster(t)
	var log syncedLog
	opt := Options{
		Client: rueidis.ClientOption{InitAddress: []string{nodes[0].Addr}}, KeyPrefix: "test:", Timeout: time.Second,
		Logger: slog.New(slog.NewTextHandler(&log, nil)), evictionLook: 20 * time.Millisecond,
	}
	redis := New(opt)
	t.Cleanup(func() { _ = redis.Close(t.Context()) })
	servicestest.Eventually(t, 10*time.Second, redis.Available, "the Cluster did not become available")
	told := func(n int, parts ...string) {
		t.Helper()
		servicestest.Eventually(t, 5*time.Second, func() bool { return log.lines(parts...) == n }, "not told: "+strings.Join(parts, ", "))
	}
	for _, node := range nodes {
		node.Do("CONFIG", "SET", "maxmemory", "100mb")
		node.Do("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
		told(1, "may evict locks", node.Addr, "allkeys-lru")
	}
	nodes[1].Do("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
	told(1, "may evict locks", nodes[1].Addr, "volatile-lru")
	nodes[1].Do("CONFIG", "SET", "maxmemory-policy", "noeviction")
	told(1, "does not evict", nodes[1].Addr)
	if n := log.lines("evict"); n != len(nodes)+2 {
		t.Errorf("%d lines: %s", n, log.text.String())
	}
}
