package ratelimit

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/rueidis"

	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// Two Limiters with prefixes of their own live in one program, on one Redis and on one metrics
// registry, and count apart.
func TestTwoLimitersInOneProgram(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	registry := prometheus.NewRegistry()
	start := func(name string) *Limiter {
		metrics := prometheus.WrapRegistererWith(prometheus.Labels{"site": name}, registry)
		rdb := redistest.Start(t, redis.Options{
			Client: rueidis.ClientOption{InitAddress: []string{server.Addr}}, KeyPrefix: name + ":", Metrics: metrics, Timeout: 5 * time.Second,
		})
		redistest.WaitReady(t, rdb)
		return New(rdb, Options{Logger: redistest.Quiet(), Metrics: metrics})
	}
	shop, desk := start("shop"), start("desk")
	policy := perMinute("p", 2)
	for range 3 {
		takeOne(t, shop, policy, "k")
	}
	if d := takeOne(t, desk, policy, "k"); !d.Allowed || d.Degraded || d.Remaining != 1 {
		t.Errorf("the other Limiter counts for this one: %+v", d)
	}
	if err := desk.Reset(t.Context(), "group", hitOf(policy, "k")); err != nil {
		t.Fatal(err)
	}
	if d := takeOne(t, shop, policy, "k"); d.Allowed {
		t.Errorf("a reset of the other Limiter counts for this one: %+v", d)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := map[string]float64{}
	for _, family := range families {
		if family.GetName() != "gatehouse_rate_limit_decisions_total" {
			continue
		}
		for _, metric := range family.GetMetric() {
			for _, label := range metric.GetLabel() {
				if label.GetName() == "site" {
					counted[label.GetValue()] += metric.GetCounter().GetValue()
				}
			}
		}
	}
	if counted["shop"] != 4 || counted["desk"] != 1 {
		t.Errorf("decisions by site: %v, want 4 and 1", counted)
	}
}
