package ratelimit

import (
	"maps"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

func TestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	rdb := redistest.New(t, servicestest.StartRedis(t).Addr)
	l := New(rdb, Options{Metrics: registry})
	policy, shadow := perMinute("p", 2), perMinute("s", 1)
	shadow.Shadow = true
	for range 5 {
		takeOne(t, l, policy, "k")
	}
	takeOne(t, l, shadow, "k")
	takeOne(t, l, shadow, "k")
	if err := rdb.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	apart := prometheus.NewRegistry()
	off := New(redistest.Start(t, redis.Options{Disabled: true}), Options{Metrics: apart})
	takeOne(t, off, policy, "k")
	want := map[string]float64{
		"decisions p allowed": 2, "decisions p denied": 3, "decisions p shadowed": 0,
		"decisions s allowed": 1, "decisions s denied": 0, "decisions s shadowed": 1,
		"degraded p": 0, "degraded s": 0, "decision_seconds p": 5, "decision_seconds s": 2,
	}
	if got := limitCounters(t, registry); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	want = map[string]float64{"decisions p allowed": 1, "decisions p denied": 0, "decisions p shadowed": 0, "degraded p": 1, "decision_seconds p": 1}
	if got := limitCounters(t, apart); !maps.Equal(got, want) {
		t.Errorf("without Redis: got %v, want %v", got, want)
	}
}

// limitCounters is the limiter's counters by their short name and label values.
func limitCounters(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counters := map[string]float64{}
	for _, family := range families {
		name := strings.TrimSuffix(strings.TrimPrefix(family.GetName(), "gatehouse_rate_limit_"), "_total")
		for _, m := range family.GetMetric() {
			labels := name
			for _, label := range m.GetLabel() {
				labels += " " + label.GetValue()
			}
			counters[labels] = m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return counters
}
