package redis_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// A policy that evicts locks is logged whenever it is set, on each node, and once.
func TestEvictionIsWarnedOf(t *testing.T) {
	t.Parallel()
	nodes := servicestest.StartCluster(t)
	var log servicestest.LogLines
	opt := redis.Options{Timeout: time.Second, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	redistest.At(t, nodes[0].Addr, opt.WithEvictionInterval(20*time.Millisecond))
	logged := func(parts ...string) {
		t.Helper()
		servicestest.Eventually(t, func() bool { return len(log.With(parts...)) == 1 }, "not logged: "+strings.Join(parts, ", "))
	}
	for _, node := range nodes {
		node.Do("CONFIG", "SET", "maxmemory", "100mb")
		node.Do("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
		logged("may evict locks", node.Addr, "allkeys-lru")
	}
	nodes[1].Do("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
	logged("may evict locks", nodes[1].Addr, "volatile-lru")
	nodes[1].Do("CONFIG", "SET", "maxmemory-policy", "noeviction")
	logged("does not evict", nodes[1].Addr)
	if n := len(log.With("evict")); n != len(nodes)+2 {
		t.Errorf("%d lines: %s", n, log.String())
	}
}
