package services_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/services/servicestest"
)

func newLimiter(redis *services.Redis) *services.RateLimiter {
	return services.NewRateLimiter(redis, services.RateLimiterOptions{Logger: quiet()})
}

func perMinute(name string, limit int64) models.Policy {
	return models.Policy{Name: name, Limit: limit, Window: time.Minute}
}

func hitOf(policy models.Policy, key string) models.Hit { return models.Hit{Policy: policy, Key: key} }

func take(t *testing.T, l *services.RateLimiter, hits ...models.Hit) []models.Decision {
	t.Helper()
	decisions, err := l.Take(t.Context(), "group", hits...)
	if err != nil {
		t.Fatal(err)
	}
	return decisions
}

// takeOne is the decision about a single hit.
func takeOne(t *testing.T, l *services.RateLimiter, policy models.Policy, key string) models.Decision {
	t.Helper()
	return take(t, l, hitOf(policy, key))[0]
}

// patientRedis is a client for tests that are about answers, not about time.
func patientRedis(t *testing.T, addr string) *services.Redis {
	t.Helper()
	redis := startRedisClient(t, services.RedisOptions{
		Client: rueidis.ClientOption{InitAddress: []string{addr}}, KeyPrefix: "test:", Timeout: 5 * time.Second,
	})
	waitReady(t, redis)
	return redis
}

func eachBackend(t *testing.T, test func(t *testing.T, l *services.RateLimiter)) {
	t.Run("real", func(t *testing.T) { test(t, newLimiter(patientRedis(t, servicestest.StartRedis(t).Addr))) })
	t.Run("embedded", func(t *testing.T) {
		server, err := services.StartEmbeddedRedis()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(server.Close)
		redis := startRedisClient(t, services.RedisOptions{Client: server.ClientOption(), Embedded: true, Timeout: 5 * time.Second})
		waitReady(t, redis)
		test(t, newLimiter(redis))
	})
	t.Run("disabled", func(t *testing.T) {
		test(t, newLimiter(startRedisClient(t, services.RedisOptions{Disabled: true})))
	})
}

func TestRateLimitAdmitsTheLimit(t *testing.T) {
	eachBackend(t, func(t *testing.T, l *services.RateLimiter) {
		policy := perMinute("p", 3)
		for i := range int64(3) {
			if d := takeOne(t, l, policy, "k"); !d.Allowed || d.Remaining != 2-i || d.RetryAfter != 0 || d.ID == "" || d.Policy != policy {
				t.Fatalf("hit %d: %+v", i, d)
			}
		}
		for range 3 { // by Redis, then from memory
			d := takeOne(t, l, policy, "k")
			if d.Allowed || d.Remaining != 0 || d.ID != "" || d.RetryAfter < 55*time.Second || d.RetryAfter > time.Minute ||
				d.ResetAfter < 55*time.Second || d.ResetAfter > time.Minute {
				t.Fatalf("over the limit: %+v", d)
			}
		}
		if d := takeOne(t, l, policy, "other"); !d.Allowed {
			t.Fatalf("another key: %+v", d)
		}
	})
}

func TestRateLimitWindowSlides(t *testing.T) {
	eachBackend(t, func(t *testing.T, l *services.RateLimiter) {
		policy := models.Policy{Name: "p", Limit: 2, Window: time.Second}
		start := time.Now()
		takeOne(t, l, policy, "k")
		takeOne(t, l, policy, "k")
		if d := takeOne(t, l, policy, "k"); d.Allowed {
			t.Fatalf("third hit: %+v", d)
		}
		servicestest.Eventually(t, 2*time.Second, func() bool { return takeOne(t, l, policy, "k").Allowed }, "never passed again")
		if passed := time.Since(start); passed < time.Second-2*time.Millisecond { // the clocks of the two processes tick apart
			t.Errorf("passed again after %v", passed)
		}
	})
}

func TestRateLimitCosts(t *testing.T) {
	eachBackend(t, func(t *testing.T, l *services.RateLimiter) {
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
		if d := hit(-1); !d.Allowed || d.ID != "" {
			t.Fatalf("a hit that takes nothing: %+v", d)
		}
		if d := take(t, l, models.Hit{Policy: policy, Key: "new", Cost: 1 << 60})[0]; d.Allowed || d.Remaining != 10 {
			t.Fatalf("more than the limit: %+v", d)
		}
	})
}

func TestRateLimitAllOrNothing(t *testing.T) {
	eachBackend(t, func(t *testing.T, l *services.RateLimiter) {
		wide, narrow := perMinute("wide", 10), perMinute("narrow", 1)
		for _, keys := range [][2]string{{"same", "same"}, {"one", "two"}} {
			hits := []models.Hit{hitOf(wide, keys[0]), hitOf(narrow, keys[1])}
			if ds := take(t, l, hits...); !ds[0].Allowed || !ds[1].Allowed || ds[0].Remaining != 9 {
				t.Fatalf("first: %+v", ds)
			}
			for range 3 {
				ds := take(t, l, hits...)
				if !ds[0].Allowed || ds[1].Allowed || ds[0].Remaining != 9 || ds[0].ID != "" {
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

func TestRateLimitShadowNeverRefuses(t *testing.T) {
	eachBackend(t, func(t *testing.T, l *services.RateLimiter) {
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
}

func TestRateLimitRefundAndReset(t *testing.T) {
	eachBackend(t, func(t *testing.T, l *services.RateLimiter) {
		disabled := strings.HasSuffix(t.Name(), "disabled")
		for _, policy := range []models.Policy{
			perMinute("log", 2),
			{Name: "gcra", Limit: 20, Window: time.Minute, Algorithm: models.AlgorithmGCRA},
		} {
			first := takeOne(t, l, policy, "k")
			takeOne(t, l, policy, "k")
			if d := takeOne(t, l, policy, "k"); d.Allowed {
				t.Fatalf("%s: third hit: %+v", policy.Name, d)
			}
			if err := l.Refund(t.Context(), first, models.Decision{}); err != nil {
				t.Fatal(err)
			}
			if err := l.Refund(t.Context(), first); policy.Name == "log" && err != nil {
				t.Fatal(err)
			}
			if policy.Name == "log" {
				if d := takeOne(t, l, policy, "k"); !d.Allowed || d.Remaining != 0 {
					t.Fatalf("%s: after the refund: %+v", policy.Name, d)
				}
				if d := takeOne(t, l, policy, "k"); d.Allowed {
					t.Fatalf("%s: a second refund of the same hit gave quota: %+v", policy.Name, d)
				}
			}
			err := l.Reset(t.Context(), "group", hitOf(policy, "k"))
			if disabled != errors.Is(err, models.ErrUnavailable) || !disabled && err != nil {
				t.Fatal(err)
			}
			if d := takeOne(t, l, policy, "k"); !d.Allowed || d.Remaining != 1 {
				t.Fatalf("%s: after the reset: %+v", policy.Name, d)
			}
		}
		if err := l.Refund(t.Context(), models.Decision{ID: "nonsense"}); err == nil {
			t.Error("refunding nonsense succeeded")
		}
	})
}

func TestRateLimitRefusesBadPolicies(t *testing.T) {
	l := newLimiter(startRedisClient(t, services.RedisOptions{Disabled: true}))
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
}

// Many at once, one key: exactly the limit passes, on every backend.
func TestRateLimitIsExactAtOnce(t *testing.T) {
	eachBackend(t, func(t *testing.T, l *services.RateLimiter) {
		policy := perMinute("p", 25)
		if !strings.HasSuffix(t.Name(), "disabled") {
			policy.OnRedisDown = models.OnRedisDownClosed
		}
		var admitted atomic.Int64
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				for range 4 {
					ds, err := l.Take(context.Background(), "group", hitOf(policy, "k"))
					if err != nil {
						t.Error(err)
						return
					}
					if ds[0].Allowed {
						admitted.Add(1)
					}
				}
			})
		}
		wg.Wait()
		if admitted.Load() != 25 {
			t.Errorf("%d admitted, want 25", admitted.Load())
		}
	})
}

// Several instances, one key: exactly the limit passes.
func TestRateLimitIsExactAcrossInstances(t *testing.T) {
	server := servicestest.StartRedis(t)
	policies := []models.Policy{
		perMinute("log", 500),
		{Name: "gcra", Limit: 5000, Window: time.Hour},
	}
	for _, policy := range policies {
		policy.OnRedisDown = models.OnRedisDownClosed
		var admitted, refused atomic.Int64
		var wg sync.WaitGroup
		for range 3 {
			l := newLimiter(patientRedis(t, server.Addr))
			for range 8 {
				wg.Go(func() {
					for range 40 {
						ds, err := l.Take(context.Background(), "group", hitOf(policy, "k"))
						switch {
						case err != nil:
							t.Error(err)
						case ds[0].Allowed:
							admitted.Add(1)
						default:
							refused.Add(1)
						}
					}
				})
			}
		}
		wg.Wait()
		if admitted.Load() != 500 {
			t.Errorf("%s: %d admitted and %d refused, want 500 admitted", policy.Name, admitted.Load(), refused.Load())
		}
	}
}

func TestRateLimitSurvivesScriptFlush(t *testing.T) {
	server := servicestest.StartRedis(t)
	l := newLimiter(patientRedis(t, server.Addr))
	policy := perMinute("p", 5)
	takeOne(t, l, policy, "k")
	server.Do("SCRIPT", "FLUSH")
	if d := takeOne(t, l, policy, "k"); d.Degraded || d.Remaining != 3 {
		t.Fatalf("after SCRIPT FLUSH: %+v", d)
	}
	server.Do("FLUSHALL")
	if d := takeOne(t, l, policy, "k"); d.Degraded || d.Remaining != 4 {
		t.Fatalf("after FLUSHALL the count starts anew: %+v", d)
	}
}

func TestRateLimitKeysAreBoundedAndTagged(t *testing.T) {
	server := servicestest.StartRedis(t)
	l := newLimiter(patientRedis(t, server.Addr))
	a, b := perMinute("a", 5), models.Policy{Name: "b", Limit: 5000, Window: time.Hour}
	take(t, l, hitOf(a, "user:42"), hitOf(b, "user:42"))
	take(t, l, hitOf(a, "user:42"), hitOf(b, "ip:::1"))
	take(t, l, hitOf(a, ""))
	take(t, l, hitOf(a, "}{\r\n"+strings.Repeat("x", 10_000)))
	keys := strings.Split(server.Do("KEYS", "*"), "\n")
	for _, want := range []string{
		"test:{user:42}rate:log:a:user:42", "test:{user:42}rate:gcra3600:b:user:42",
		"test:{group}rate:log:a:user:42", "test:{group}rate:gcra3600:b:ip:::1",
	} {
		found := false
		for _, key := range keys {
			found = found || key == want
			if len(key) > 150 {
				t.Errorf("a key of %d bytes: %.200q", len(key), key)
			}
		}
		if !found {
			t.Errorf("no key %s in %q", want, keys)
		}
	}
	for _, key := range keys {
		if ttl := server.Do("PTTL", key); strings.HasPrefix(ttl, "-") && key != "test:probe" {
			t.Errorf("%s never expires (%s)", key, ttl)
		}
	}
	if len(keys) != 7 { // and test:probe
		t.Errorf("keys: %q", keys)
	}
}

// evals is how many scripts the server has run.
func evals(t *testing.T, server *servicestest.RedisServer) (n int) {
	t.Helper()
	for _, command := range []string{"cmdstat_evalsha:calls=", "cmdstat_eval:calls="} {
		if _, rest, found := strings.Cut(server.Do("INFO", "commandstats"), command); found {
			calls := 0
			if _, err := fmt.Sscanf(rest, "%d", &calls); err != nil {
				t.Fatal(err)
			}
			n += calls
		}
	}
	return n
}

func TestRateLimitFloodStaysHere(t *testing.T) {
	server := servicestest.StartRedis(t)
	l := newLimiter(patientRedis(t, server.Addr))
	policy := perMinute("p", 2)
	hit := hitOf(policy, "k")
	if _, denied := l.Denied(hit); denied {
		t.Fatal("denied before it was asked")
	}
	for range 3 {
		takeOne(t, l, policy, "k")
	}
	before, start := evals(t, server), time.Now()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5_000 {
				if ds, err := l.Take(context.Background(), "group", hit); err != nil || ds[0].Allowed || ds[0].Degraded {
					t.Errorf("%+v, %v", ds, err)
					return
				}
			}
		})
	}
	wg.Wait()
	seconds := 1 + int(time.Since(start)/time.Second)
	if asked := evals(t, server) - before; asked > seconds {
		t.Errorf("40,000 denied hits in %d s asked Redis %d times", seconds, asked)
	}
	if d, denied := l.Denied(hit); !denied || d.Allowed || d.RetryAfter < 30*time.Second {
		t.Errorf("Denied: %v, %+v", denied, d)
	}
	if _, denied := l.Denied(hitOf(perMinute("p", 3), "k")); denied {
		t.Error("a raised limit is still denied")
	}
	if _, denied := l.Denied(hitOf(policy, "other")); denied {
		t.Error("another key is denied")
	}
	if allocs := testing.AllocsPerRun(1000, func() { l.Denied(hit) }); allocs != 0 {
		t.Errorf("Denied allocates %v times", allocs)
	}
	hits := []models.Hit{hit}
	if allocs := testing.AllocsPerRun(1000, func() { _, _ = l.Take(context.Background(), "group", hits...) }); allocs != 0 {
		t.Errorf("Take allocates %v times for a denied hit", allocs)
	}
}

// Asking about a flooded key is cheap too.
func TestRateLimitPeekRemembersARefusal(t *testing.T) {
	server := servicestest.StartRedis(t)
	l, other := newLimiter(patientRedis(t, server.Addr)), newLimiter(patientRedis(t, server.Addr))
	hit := hitOf(perMinute("p", 1), "k")
	if ds, err := l.Peek(t.Context(), "group", hit); err != nil || !ds[0].Allowed || ds[0].ID != "" {
		t.Fatalf("%+v, %v", ds, err)
	}
	take(t, other, hit)
	before := evals(t, server)
	for range 1000 {
		if ds, err := l.Peek(t.Context(), "group", hit); err != nil || ds[0].Allowed || ds[0].RetryAfter == 0 {
			t.Fatalf("%+v, %v", ds, err)
		}
	}
	if asked := evals(t, server) - before; asked > 2 {
		t.Errorf("1,000 looks at a denied key asked Redis %d times", asked)
	}
	if _, denied := l.Denied(hit); !denied {
		t.Error("the refusal is not remembered")
	}
}

// What another instance gave back shows within a second.
func TestRateLimitDenialIsNotBelievedLong(t *testing.T) {
	server := servicestest.StartRedis(t)
	l, other := newLimiter(patientRedis(t, server.Addr)), newLimiter(patientRedis(t, server.Addr))
	policy := perMinute("p", 1)
	takeOne(t, l, policy, "k")
	takeOne(t, l, policy, "k")
	if err := other.Reset(t.Context(), "group", hitOf(policy, "k")); err != nil {
		t.Fatal(err)
	}
	if d := takeOne(t, l, policy, "k"); d.Allowed {
		t.Fatal("the denial was not remembered")
	}
	servicestest.Eventually(t, 1200*time.Millisecond, func() bool { return takeOne(t, l, policy, "k").Allowed },
		"the reset by another instance did not show")
}

func TestRateLimitFrozenRedis(t *testing.T) {
	server := servicestest.StartRedis(t)
	l := newLimiter(newRedis(t, server.Addr))
	policy, open, closed := perMinute("local", 10), perMinute("open", 10), perMinute("closed", 10)
	open.OnRedisDown, closed.OnRedisDown = models.OnRedisDownOpen, models.OnRedisDownClosed
	for _, p := range []models.Policy{policy, open, closed} {
		for range 7 {
			takeOne(t, l, p, "k")
		}
	}
	server.Freeze()
	start := time.Now()
	d := takeOne(t, l, policy, "k")
	if took := time.Since(start); took > 250*time.Millisecond || !d.Degraded || !d.Allowed || d.Remaining != 2 {
		t.Fatalf("first decision after %v: %+v, want degraded with 2 of the recent 10 left", took, d)
	}
	servicestest.Eventually(t, time.Second, func() bool {
		start := time.Now()
		takeOne(t, l, policy, "other")
		return time.Since(start) < 5*time.Millisecond
	}, "decisions still wait for Redis")
	admitted := 0
	for range 10 {
		if takeOne(t, l, policy, "k").Allowed {
			admitted++
		}
	}
	if admitted != 2 {
		t.Errorf("%d admitted, 2 were left", admitted)
	}
	for range 20 {
		if d := takeOne(t, l, open, "k"); !d.Allowed || !d.Degraded {
			t.Fatalf("open: %+v", d)
		}
	}
	if _, err := l.Take(t.Context(), "group", hitOf(closed, "k")); !errors.Is(err, models.ErrUnavailable) {
		t.Errorf("closed: %v", err)
	}
	shadow := closed
	shadow.Shadow = true
	if d := takeOne(t, l, shadow, "k"); !d.Allowed || !d.Degraded {
		t.Errorf("a closed shadow: %+v", d)
	}
	server.Thaw()
	servicestest.Eventually(t, time.Second, func() bool { return !takeOne(t, l, open, "new").Degraded }, "not back within 1 s")
}

func TestRateLimitMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	redis := startRedisClient(t, services.RedisOptions{
		Client: rueidis.ClientOption{InitAddress: []string{servicestest.StartRedis(t).Addr}},
	})
	waitReady(t, redis)
	l := services.NewRateLimiter(redis, services.RateLimiterOptions{Metrics: registry})
	policy, shadow := perMinute("p", 2), perMinute("s", 1)
	shadow.Shadow = true
	for range 5 {
		takeOne(t, l, policy, "k")
	}
	l.Denied(hitOf(policy, "k"))
	takeOne(t, l, shadow, "k")
	takeOne(t, l, shadow, "k")
	if err := redis.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	apart := prometheus.NewRegistry()
	off := services.NewRateLimiter(startRedisClient(t, services.RedisOptions{Disabled: true}), services.RateLimiterOptions{Metrics: apart})
	takeOne(t, off, policy, "k")
	want := map[string]float64{
		"decisions p allowed": 2, "decisions p denied": 4, "decisions p shadowed": 0,
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
