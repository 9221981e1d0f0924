package ratelimit

import (
	"context"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// commandsRun is how many commands the server got from clients: scripts count
// once, what they call does not.
func commandsRun(t *testing.T, server *servicestest.RedisServer) int { return scriptsRun(t, server) }

// A flood of refused requests on one key, a million in full. Redis gets a thousandth at most and
// keeps no more for it, and the key passes again when promised.
func TestProofFlood(t *testing.T) {
	server := servicestest.StartRedis(t)
	l := limiterAt(t, server.Addr, false)
	flood, window := 200_000, 3*time.Second
	if servicestest.LongProof() {
		flood, window = 1_000_000, 15*time.Second
	}
	policy := models.Policy{Name: "p", Limit: 5, Window: window, OnRedisDown: models.OnRedisDownClosed}
	hit := models.Hit{Policy: policy, Key: "flooded"}
	for range 5 {
		takeAs(t, l, hit)
	}
	asked := time.Now()
	d := takeAs(t, l, hit)[0]
	// Redis decided between the two.
	earliest, promised := asked.Add(d.RetryAfter-2*time.Millisecond), time.Now().Add(d.RetryAfter)
	key := "{flooded}rate:log:p:flooded"
	memory, before := server.Do("MEMORY", "USAGE", key), commandsRun(t, server)
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
	if n, most := commandsRun(t, server)-before, max(4, int(refused.Load()/1000)); n > most {
		t.Errorf("%d commands for %d refused requests", n, refused.Load())
	}
	if n := refused.Load(); n < 1000 || servicestest.LongProof() && (n < int64(flood) || time.Now().After(promised)) {
		t.Fatalf("only %d were refused before the promised moment", n)
	}
	if after := server.Do("MEMORY", "USAGE", key); after != memory {
		t.Errorf("%s bytes before, %s after", memory, after)
	}
	servicestest.Within(t, window+2*time.Second, func() bool { return takeAs(t, l, hit)[0].Allowed }, "never passed again")
	if late := time.Since(promised); time.Now().Before(earliest) || late > time.Second {
		t.Errorf("passed %v after the promised moment", late)
	}
}

// Redis freezes under load: the first calls cost one deadline, the next nothing,
// and all is normal within a second of its return.
func TestProofFrozenUnderLoad(t *testing.T) {
	const deadline = 100 * time.Millisecond
	firstBound, thenBound := deadline+500*time.Millisecond, 50*time.Millisecond // on any machine
	if servicestest.LongProof() {                                               // a machine with nothing else to do
		firstBound, thenBound = deadline+5*time.Millisecond, 100*time.Microsecond
	}
	server := servicestest.StartRedis(t)
	rdb := redistest.At(t, server.Addr, redis.Options{Timeout: deadline})
	l := New(rdb, Options{Logger: slog.New(slog.DiscardHandler)})
	policy := models.Policy{Name: "p", Limit: models.MaxLimit, Window: time.Second}
	before := runtime.NumGoroutine()
	const load = 32
	var stop, frozen atomic.Bool
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
	<-time.After(100 * time.Millisecond)
	server.Freeze()
	frozen.Store(true)
	servicestest.Eventually(t, func() bool { return !rdb.Available() }, "Redis still counts as available")
	<-time.After(300 * time.Millisecond)
	if n := runtime.NumGoroutine(); n > before+3*load+512 {
		t.Errorf("%d goroutines, %d before", n, before)
	}
	frozen.Store(false)
	server.Thaw()
	thawed := time.Now()
	servicestest.Within(t, 2*time.Second, func() bool {
		return !takeAs(t, l, models.Hit{Policy: policy, Key: "probe"})[0].Degraded
	}, "still degraded")
	if took := time.Since(thawed); took > time.Second {
		t.Errorf("normal %v after Redis", took)
	}
	stop.Store(true)
	wg.Wait()
	if p := percentile(first, 99); len(first) == 0 || p > firstBound {
		t.Errorf("the first %d calls took %v (p99), want at most %v", len(first), p, firstBound)
	}
	if p := percentile(then, 99); len(then) == 0 || p > thenBound {
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
