package redis_test

import (
	"log/slog"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

func TestCluster(t *testing.T) {
	t.Parallel()
	nodes := servicestest.StartCluster(t)
	var log servicestest.LogLines
	opt := redis.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}
	rdb := redistest.At(t, nodes[0].Addr, opt.WithEvictionInterval(20*time.Millisecond))

	t.Run("a policy that evicts locks is logged when it is set, on each node, and once", func(t *testing.T) {
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
	})

	// While slots move, each call that fails wants to know where they are.
	t.Run("its nodes are asked for their slots every 50 ms at most", func(t *testing.T) {
		commands := regexp.MustCompile(`cmdstat_cluster\|slots:calls=(\d+)`)
		asked := func() (calls int) {
			for _, node := range nodes {
				for _, n := range commands.FindAllStringSubmatch(node.Do("INFO", "commandstats"), -1) {
					more, _ := strconv.Atoi(n[1])
					calls += more
				}
			}
			return calls
		}
		before, start, failures := asked(), time.Now(), 0
		servicestest.Eventually(t, func() bool {
			for range 100 {
				rdb.RefreshSlots()
				failures++
			}
			return asked() >= before+5
		}, "the nodes are not asked")
		took := time.Since(start)
		if n := asked() - before; n > int(took/(50*time.Millisecond))+4 { // and what rueidis wants to know
			t.Errorf("asked %d times in %v, after %d failures", n, took, failures)
		}
	})
}
