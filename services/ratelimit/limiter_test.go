package ratelimit

import (
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

func TestLimiter(t *testing.T) {
	t.Parallel()
	t.Run("the limit passes, and then nothing", func(t *testing.T) {
		eachBackend(t, func(t *testing.T, l *Limiter) {
			policy := perMinute("p", 3)
			for i := range int64(3) {
				if d := takeOne(t, l, policy, "k"); !d.Allowed || d.Remaining != 2-i || d.RetryAfter != 0 || d.Admission == (models.Admission{}) || d.Policy != policy {
					t.Fatalf("hit %d: %+v", i, d)
				}
			}
			for range 3 { // by Redis, then from memory
				d := takeOne(t, l, policy, "k")
				if d.Allowed || d.Remaining != 0 || d.Admission != (models.Admission{}) || d.RetryAfter < 55*time.Second || d.RetryAfter > time.Minute ||
					d.ResetAfter < 55*time.Second || d.ResetAfter > time.Minute {
					t.Fatalf("over the limit: %+v", d)
				}
			}
			if d := takeOne(t, l, policy, "other"); !d.Allowed {
				t.Fatalf("another key: %+v", d)
			}
		})
	})

	t.Run("a hit takes its cost", func(t *testing.T) {
		eachBackend(t, func(t *testing.T, l *Limiter) {
			policy := perMinute("p", 10)
			hit := func(cost int64) models.Decision {
				return take(t, l, models.Hit{Policy: policy, Key: "k", Cost: cost})[0]
			}
			if d := hit(7); !d.Allowed || d.Remaining != 3 {
				t.Fatalf("cost 7: %+v", d)
			}
			if d := hit(4); d.Allowed || d.Remaining != 3 || d.RetryAfter == 0 {
				t.Fatalf("cost 4: %+v", d)
			}
			if d := hit(3); !d.Allowed || d.Remaining != 0 {
				t.Fatalf("cost 3, although 4 was refused: %+v", d)
			}
			if d := hit(-1); !d.Allowed || d.Admission != (models.Admission{}) {
				t.Fatalf("a hit that takes nothing: %+v", d)
			}
			if d := take(t, l, models.Hit{Policy: policy, Key: "new", Cost: 1 << 60})[0]; d.Allowed || d.Remaining != 10 {
				t.Fatalf("more than the limit: %+v", d)
			}
		})
	})

	t.Run("a shadow never refuses", func(t *testing.T) {
		eachBackend(t, func(t *testing.T, l *Limiter) {
			shadow, strict := perMinute("shadow", 1), perMinute("strict", 3)
			shadow.Shadow = true
			for i := range int64(3) {
				ds := take(t, l, hitOf(shadow, "k"), hitOf(strict, "k"))
				if !ds[0].Allowed || !ds[1].Allowed || ds[1].Remaining != 2-i {
					t.Fatalf("hit %d: %+v", i, ds)
				}
				if would := ds[0].RetryAfter > 0; would != (i > 0) {
					t.Fatalf("hit %d: the shadow tells %v", i, ds[0].RetryAfter)
				}
			}
			if ds := take(t, l, hitOf(shadow, "k"), hitOf(strict, "k")); ds[1].Allowed {
				t.Fatalf("over the real limit: %+v", ds)
			}
		})
	})

	// Looking takes nothing and leaves nothing.
	t.Run("a look takes nothing and leaves nothing", func(t *testing.T) {
		server := servicestest.StartRedis(t)
		l := limiterAt(t, server.Addr)
		for _, policy := range []models.Policy{
			perMinute("log", 3),
			{Name: "gcra", Limit: 30, Window: time.Hour, Algorithm: models.AlgorithmGCRA},
			{Name: "leased", Limit: 3, Window: time.Minute, Block: 2},
		} {
			keys := server.Do("DBSIZE")
			for left := int64(3); left >= 0; left-- {
				for range 5 {
					ds, err := l.Peek(t.Context(), "group", hitOf(policy, "k"))
					if err != nil || ds[0].Allowed != (left > 0) || ds[0].Remaining != left || ds[0].Admission != (models.Admission{}) {
						t.Fatalf("%s with %d left: %+v, %v", policy.Name, left, ds, err)
					}
				}
				if now := server.Do("DBSIZE"); left == 3 && now != keys {
					t.Errorf("%s: %s keys after a look, %s before", policy.Name, now, keys)
				}
				if d := takeOne(t, l, policy, "k"); d.Allowed != (left > 0) {
					t.Fatalf("%s with %d left: %+v", policy.Name, left, d)
				}
			}
		}
	})

	t.Run("scripts that Redis forgot are sent again", func(t *testing.T) {
		server := servicestest.StartRedis(t)
		l := limiterAt(t, server.Addr)
		policy := perMinute("p", 5)
		takeOne(t, l, policy, "k")
		server.Do("SCRIPT", "FLUSH")
		if d := takeOne(t, l, policy, "k"); d.Degraded || d.Remaining != 3 {
			t.Fatalf("after SCRIPT FLUSH: %+v", d)
		}
	})

	t.Run("a policy that cannot be is an error", func(t *testing.T) {
		l := newLimiter(redistest.Start(t, redis.Options{Disabled: true}))
		ok := perMinute("ok", 1)
		for _, hits := range [][]models.Hit{
			{hitOf(models.Policy{Name: "no limit", Window: time.Minute}, "k")},
			{hitOf(models.Policy{Name: "p", Limit: 1, Window: time.Millisecond}, "k")},
			{hitOf(models.Policy{Name: "p", Limit: 1001, Window: time.Minute, Algorithm: models.AlgorithmSlidingLog}, "k")},
			{hitOf(ok, "k"), hitOf(ok, "k")},
		} {
			if _, err := l.Take(t.Context(), "group", hits...); err == nil || errors.Is(err, models.ErrUnavailable) {
				t.Errorf("%+v: %v", hits, err)
			}
		}
		if ds, err := l.Take(t.Context(), "group"); ds != nil || err != nil {
			t.Errorf("no hits: %v, %v", ds, err)
		}
	})

	// Two Limiters with prefixes of their own live in one program, on one Redis and on one metrics
	// registry, and count apart.
	t.Run("two in one program count apart", func(t *testing.T) {
		t.Parallel()
		server := servicestest.StartRedis(t)
		registry := prometheus.NewRegistry()
		start := func(name string) *Limiter {
			metrics := prometheus.WrapRegistererWith(prometheus.Labels{"site": name}, registry)
			rdb := redistest.Start(t, redis.Options{
				Client: rueidis.ClientOption{InitAddress: []string{server.Addr}}, KeyPrefix: name + ":", Metrics: metrics,
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
	})
}

func TestAllOrNothing(t *testing.T) {
	eachBackend(t, func(t *testing.T, l *Limiter) {
		wide, narrow := perMinute("wide", 10), perMinute("narrow", 1)
		for _, keys := range [][2]string{{"same", "same"}, {"one", "two"}} {
			hits := []models.Hit{hitOf(wide, keys[0]), hitOf(narrow, keys[1])}
			if ds := take(t, l, hits...); !ds[0].Allowed || !ds[1].Allowed || ds[0].Remaining != 9 {
				t.Fatalf("first: %+v", ds)
			}
			for range 3 {
				ds := take(t, l, hits...)
				if !ds[0].Allowed || ds[1].Allowed || ds[0].Remaining != 9 || ds[0].Admission != (models.Admission{}) {
					t.Fatalf("refused together, nothing is counted: %+v", ds)
				}
			}
			ds, err := l.Peek(t.Context(), "group", hits...)
			if err != nil || ds[0].Remaining != 9 || ds[1].Allowed {
				t.Fatalf("peek: %+v, %v", ds, err)
			}
		}
	})
}
