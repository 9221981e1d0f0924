package redis_test

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/rueidis"

	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

func TestSubscribe(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	rdb := redistest.New(t, server.Addr)
	got := make(chan string, 10_000)
	rdb.Subscribe("hints", func(m string) { got <- m })
	arrives := func() bool {
		_ = rdb.Publish(t.Context(), "hints", "hello")
		select {
		case m := <-got:
			return m == "hello"
		default:
			return false
		}
	}
	servicestest.Eventually(t, arrives, "no message arrived")
	server.Restart()
	for len(got) > 0 {
		<-got
	}
	servicestest.Eventually(t, arrives, "no message arrived after a restart")
}

// Two clients with other prefixes share a server and a registry, and nothing else.
func TestTwoClientsInOneProgram(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	registry := prometheus.NewRegistry()
	start := func(app string) (*redis.Client, chan string) {
		rdb := redistest.Start(t, redis.Options{
			Client: rueidis.ClientOption{InitAddress: []string{server.Addr}}, KeyPrefix: app + ":",
			Metrics: prometheus.WrapRegistererWith(prometheus.Labels{"app": app}, registry),
		})
		redistest.WaitReady(t, rdb)
		got := make(chan string, 1000)
		rdb.Subscribe("hints", func(m string) { got <- m })
		return rdb, got
	}
	shop, toShop := start("shop")
	_, toBlog := start("blog")
	servicestest.Eventually(t, func() bool {
		n, err := shop.Subscribers(t.Context(), "hints")
		return err == nil && n == 1 && strings.Contains(server.Do("PUBSUB", "CHANNELS"), "blog:hints")
	}, "not subscribed")
	servicestest.Eventually(t, func() bool { return shop.Publish(t.Context(), "hints", "hello") == nil }, "not published")
	if m := <-toShop; m != "hello" || len(toBlog) > 0 {
		t.Errorf("the shop got %q, the blog %d messages", m, len(toBlog))
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	measured := map[string]int{}
	for _, family := range families {
		measured[family.GetName()] = len(family.GetMetric())
	}
	if measured["gatehouse_redis_up"] != 2 {
		t.Errorf("measured: %v", measured)
	}
}
