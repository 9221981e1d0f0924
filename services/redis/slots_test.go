package redis

import (
	"context"
	"log/slog"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/services/servicestest"
)

// While slots move, each call that fails asks to look where they are: the nodes are not
// asked as often.
func TestRedisClusterIsAskedForSlotsNowAndThen(t *testing.T) {
	t.Parallel()
	nodes := servicestest.StartCluster(t)
	redis := New(Options{
		Client: rueidis.ClientOption{InitAddress: []string{nodes[0].Addr}}, KeyPrefix: "test:", Timeout: time.Second,
		Logger: slog.New(slog.DiscardHandler),
	})
	t.Cleanup(func() { _ = redis.Close(context.Background()) })
	servicestest.Eventually(t, 10*time.Second, redis.Available, "the Cluster did not become available")
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
		redis.lookForSlots()
		<-time.After(time.Millisecond)
	}
	if n := asked() - before; n > 20 {
		t.Errorf("asked %d times after %d failures in half a second", n, failures)
	}
}
