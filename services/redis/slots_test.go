package redis_test

import (
	"regexp"
	"strconv"
	"testing"
	"time"

	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// While slots move, each call that fails wants to know where they are. The nodes are asked less
// often.
func TestClusterIsAskedForSlotsNowAndThen(t *testing.T) {
	t.Parallel()
	nodes := servicestest.StartCluster(t)
	rdb := redistest.At(t, nodes[0].Addr, redis.Options{Timeout: time.Second})
	asked := func() (calls int) {
		for _, node := range nodes {
			for _, n := range regexp.MustCompile(`cmdstat_cluster\|slots:calls=(\d+)`).FindAllStringSubmatch(node.Do("INFO", "commandstats"), -1) {
				more, _ := strconv.Atoi(n[1])
				calls += more
			}
		}
		return calls
	}
	before, failures := asked(), 0
	if before == 0 {
		t.Fatal("the nodes do not count what they are asked")
	}
	for start := time.Now(); time.Since(start) < 500*time.Millisecond; failures++ {
		rdb.RefreshSlots()
		<-time.After(time.Millisecond)
	}
	if n := asked() - before; n > 20 {
		t.Errorf("asked %d times after %d failures in half a second", n, failures)
	}
}
