package ratelimit

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// A flood of refused hits, or of looks, costs Redis one script a second.
func TestFloodStaysHere(t *testing.T) {
	server := servicestest.StartRedis(t)
	var clock atomic.Int64
	began := time.Now()
	l := New(redistest.New(t, server.Addr), Options{Clock: func() time.Time { return began.Add(time.Duration(clock.Load())) }})
	other := limiterAt(t, server.Addr)
	policy := perMinute("p", 2)
	hit := hitOf(policy, "k")
	flood := func() (asked int) {
		before := scriptsRun(t, server)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 2_000 {
					if ds, err := l.Take(context.Background(), "group", hit); err != nil || ds[0].Allowed || ds[0].Degraded {
						t.Errorf("%+v, %v", ds, err)
						return
					}
					if ds, err := l.Peek(context.Background(), "group", hit); err != nil || ds[0].Allowed || ds[0].RetryAfter == 0 {
						t.Errorf("%+v, %v", ds, err)
						return
					}
				}
			})
		}
		wg.Wait()
		return scriptsRun(t, server) - before
	}
	if d := peek(t, l, hit)[0]; !d.Allowed || d.Admission != (models.Admission{}) {
		t.Fatalf("%+v", d)
	}
	take(t, other, hit)
	take(t, other, hit)
	take(t, l, hit)
	for _, row := range []struct {
		after time.Duration
		want  int
	}{{time.Second - 1, 0}, {time.Second, 1}, {2*time.Second - 1, 0}, {2 * time.Second, 1}} {
		clock.Store(int64(row.after))
		if asked := flood(); asked != row.want {
			t.Errorf("after %v Redis is asked %d times, want %d", row.after, asked, row.want)
		}
	}
	if d := takeOne(t, l, policy, "k"); d.Allowed || d.RetryAfter < 30*time.Second {
		t.Errorf("%+v", d)
	}
	hits := []models.Hit{hit}
	if allocs := testing.AllocsPerRun(1000, func() { _, _ = l.Take(context.Background(), "group", hits...) }); allocs > 1 { // its decisions
		t.Errorf("Take allocates %v times for a denied hit", allocs)
	}
	if !takeOne(t, l, policy, "other").Allowed {
		t.Error("another key is denied")
	}
	if !takeOne(t, l, perMinute("p", 3), "k").Allowed {
		t.Error("a raised limit is still denied")
	}
}

// What another instance gave back shows when the refusal is a second old, and not before.
func TestDenialIsNotBelievedLong(t *testing.T) {
	t.Parallel()
	w := newToTheMicrosecond(t, true)
	other := embeddedAt(t, w.server.Addr())
	policy := perMinute("p", 1)
	w.setClock(0)
	takeOne(t, w.Limiter, policy, "k")
	takeOne(t, w.Limiter, policy, "k")
	if err := other.Reset(t.Context(), "group", hitOf(policy, "k")); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		at      int64
		allowed bool
	}{{second - 1, false}, {second, true}} {
		w.setClock(row.at)
		if d := takeOne(t, w.Limiter, policy, "k"); d.Allowed != row.allowed {
			t.Errorf("at %d us: %+v", row.at, d)
		}
	}
}

// A dearer hit has to wait longer than the cheaper one that was refused before it, and is answered
// so.
func TestDearerHitWaitsLonger(t *testing.T) {
	t.Parallel()
	w := newToTheMicrosecond(t, true)
	fresh := w.another()
	log, gcra, usesBlocks := perMinute("log", 6), perMinute("gcra", 60), perMinute("blocks", 6)
	gcra.Algorithm, usesBlocks.Block = models.AlgorithmGCRA, 1
	hit := func(policy models.Policy, cost int64) models.Hit {
		return models.Hit{Policy: policy, Key: "k", Cost: cost}
	}
	for _, at := range []int64{0, second / 2} { // or all units would come back at once
		w.setClock(at)
		for _, policy := range []models.Policy{log, gcra, usesBlocks} {
			for range 3 {
				if d := take(t, w.Limiter, hit(policy, 1))[0]; !d.Allowed {
					t.Fatalf("%s: %+v", policy.Name, d)
				}
			}
		}
	}
	for _, policy := range []models.Policy{log, gcra, usesBlocks} {
		for range 2 { // of a bucket one has leaked out
			take(t, w.Limiter, hit(policy, 1))
		}
		cheap, dear := peek(t, fresh, hit(policy, 1))[0], peek(t, fresh, hit(policy, 4))[0] // by Redis
		if cheap.Allowed || dear.RetryAfter <= cheap.RetryAfter {
			t.Fatalf("%s: by Redis: %+v, %+v", policy.Name, cheap, dear)
		}
		for range 3 {
			if d := take(t, w.Limiter, hit(policy, 4))[0]; d.Allowed || d.RetryAfter != dear.RetryAfter {
				t.Errorf("%s: answered %v, has to wait %v", policy.Name, d.RetryAfter, dear.RetryAfter)
			}
			if d := peek(t, w.Limiter, hit(policy, 5))[0]; d.Allowed || d.RetryAfter < dear.RetryAfter {
				t.Errorf("%s: a look is answered %+v", policy.Name, d)
			}
		}
	}
	cheap, dear := peek(t, fresh, hit(usesBlocks, 1))[0], peek(t, fresh, hit(usesBlocks, 4))[0]
	if cheap.RetryAfter != time.Minute-time.Second/2 || dear.RetryAfter != time.Minute {
		t.Errorf("looks at a policy with blocks: %v, and %v for more units", cheap.RetryAfter, dear.RetryAfter)
	}
}
