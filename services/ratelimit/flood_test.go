package ratelimit

import (
	"context"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// A flood of refused requests on one key, a million in full. Redis gets a thousandth at most and
// keeps no more for it, and the key passes again when promised.
func TestProofFlood(t *testing.T) {
	server := servicestest.StartRedis(t)
	l := limiterAt(t, server.Addr)
	flood, window := 200_000, 3*time.Second
	if servicestest.LongProof() {
		flood, window = 1_000_000, 15*time.Second
	}
	policy := models.Policy{Name: "p", Limit: 5, Window: window, OnRedisDown: models.OnRedisDownClosed}
	hit := models.Hit{Policy: policy, Key: "flooded"}
	for range 5 {
		take(t, l, hit)
	}
	asked := time.Now()
	d := take(t, l, hit)[0]
	// Redis decided between the two.
	earliest, promised := asked.Add(d.RetryAfter-2*time.Millisecond), time.Now().Add(d.RetryAfter)
	key := "{flooded}rate:log:p:flooded"
	memory, before := server.Do("MEMORY", "USAGE", key), scriptsRun(t, server)
	var refused atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range flood / 8 {
				if !servicestest.LongProof() && time.Until(promised) < 300*time.Millisecond {
					return // a slow machine
				}
				decisions, err := l.Take(context.Background(), "group", hit)
				if err != nil || decisions[0].Allowed && time.Now().Before(earliest) {
					t.Errorf("%+v, %v", decisions, err)
					return
				}
				if !decisions[0].Allowed {
					refused.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if n, most := scriptsRun(t, server)-before, max(4, int(refused.Load()/1000)); n > most {
		t.Errorf("%d commands for %d refused requests", n, refused.Load())
	}
	if n := refused.Load(); n < 100 || servicestest.LongProof() && (n < int64(flood) || time.Now().After(promised)) {
		t.Fatalf("only %d were refused before the promised moment", n)
	}
	if after := server.Do("MEMORY", "USAGE", key); after != memory {
		t.Errorf("%s bytes before, %s after", memory, after)
	}
	servicestest.Eventually(t, func() bool {
		asked := time.Now()
		allowed := take(t, l, hit)[0].Allowed
		if !allowed && asked.After(promised) {
			t.Fatalf("refused %v after the promised moment", asked.Sub(promised))
		}
		return allowed
	}, "never passed again")
	if time.Now().Before(earliest) {
		t.Errorf("passed %v before the promised moment", time.Until(promised))
	}
}

// Redis freezes under load: the first calls cost one deadline, the next nothing,
// and all is normal within a second of its return.
func TestProofFrozenUnderLoad(t *testing.T) {
	const deadline = 100 * time.Millisecond
	server := servicestest.StartRedis(t)
	registry := prometheus.NewRegistry()
	rdb := redistest.At(t, server.Addr, redis.Options{Timeout: deadline, Metrics: registry})
	l := newLimiter(rdb)
	policy := models.Policy{Name: "p", Limit: models.MaxLimit, Window: time.Second}
	goroutines := runtime.NumGoroutine()
	const load = 32
	var stop, frozen atomic.Bool
	var made atomic.Int64
	manyMore := func() {
		before := made.Load()
		servicestest.Eventually(t, func() bool { return made.Load() > before+10*load }, "nothing is decided")
	}
	sent := func() float64 {
		counted := limitCounters(t, registry)
		return counted["gatehouse_redis_calls ok"] + counted["gatehouse_redis_calls failed"] + counted["gatehouse_redis_calls timeout"]
	}
	var mu sync.Mutex
	var first, then []time.Duration // that began before, and after, Redis counted as away
	var wg sync.WaitGroup
	for i := range load {
		wg.Go(func() {
			hit := models.Hit{Policy: policy, Key: strings.Repeat("k", i+1)}
			for !stop.Load() {
				wasOpen, start := !rdb.Available(), time.Now()
				decisions, err := l.Take(context.Background(), "group", hit)
				took := time.Since(start)
				if err != nil || !decisions[0].Allowed {
					t.Errorf("%+v, %v", decisions, err)
					return
				}
				made.Add(1)
				if frozen.Load() && decisions[0].Degraded {
					mu.Lock()
					if wasOpen {
						then = append(then, took)
					} else {
						first = append(first, took)
					}
					mu.Unlock()
				}
				<-time.After(200 * time.Microsecond)
			}
		})
	}
	manyMore()
	server.Freeze()
	frozen.Store(true)
	frozenAt := time.Now()
	servicestest.Eventually(t, func() bool { return !rdb.Available() }, "Redis still counts as available")
	before := sent()
	manyMore()
	if more := sent() - before; before < load || more > load { // those that were under way
		t.Errorf("%v calls are sent while Redis counts as away, %v before", more, before)
	}
	if n := runtime.NumGoroutine(); n > goroutines+3*load+512 {
		t.Errorf("%d goroutines, %d before", n, goroutines)
	}
	frozen.Store(false)
	server.Thaw()
	servicestest.Within(t, time.Second, func() bool {
		return !take(t, l, models.Hit{Policy: policy, Key: "probe"})[0].Degraded
	}, "still degraded")
	stop.Store(true)
	wg.Wait()
	firstBound, thenBound := deadline+servicestest.Slack(frozenAt), 100*time.Microsecond
	alone := servicestest.LongProof() // a machine with nothing else to do
	if alone {
		firstBound = deadline + 5*time.Millisecond
	}
	if p := percentile(first, 99); len(first) == 0 || p > firstBound {
		t.Errorf("the first %d calls took %v (p99), want at most %v", len(first), p, firstBound)
	}
	if p := percentile(then, 99); len(then) == 0 || alone && p > thenBound {
		t.Errorf("%d calls without Redis took %v (p99), want at most %v", len(then), p, thenBound)
	}
	t.Logf("p99 of the first %d calls %v, of %d later ones %v", len(first), percentile(first, 99), len(then), percentile(then, 99))
}

func percentile(all []time.Duration, p int) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[(len(all)-1)*p/100]
}
