package ratelimit_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/ratelimit"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

func TestFrozenRedis(t *testing.T) {
	server := servicestest.StartRedis(t)
	l := newLimiter(redistest.New(t, server.Addr))
	policy, open, closed, usesBlocks := perMinute("local", 10), perMinute("open", 10), perMinute("closed", 10), perMinute("leased", 10)
	usesBlocks.Block = 4 // blocks of 1, 2 and 4: none is left of them
	open.OnRedisDown, closed.OnRedisDown = models.OnRedisDownOpen, models.OnRedisDownClosed
	for _, p := range []models.Policy{policy, open, closed, usesBlocks} {
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
	servicestest.Within(t, time.Second, func() bool {
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
	admitted = 0
	for range 10 {
		if d := takeOne(t, l, usesBlocks, "k"); !d.Degraded {
			t.Fatalf("with blocks: %+v", d)
		} else if d.Allowed {
			admitted++
		}
	}
	if admitted != 3 {
		t.Errorf("with blocks: %d admitted, 3 were left", admitted)
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
	servicestest.Within(t, time.Second, func() bool { return !takeOne(t, l, open, "new").Degraded }, "not back within 1 s")
}

// A key that Redis had denied is not denied for longer when Redis goes away: the
// policy says what happens then.
func TestDenialEndsWithTheOutageRule(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	redis := redistest.New(t, server.Addr)
	var ahead atomic.Int64
	l := ratelimit.New(redis, ratelimit.Options{Clock: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
	open, closed, local := perMinute("open", 2), perMinute("closed", 2), models.Policy{Name: "local", Limit: 20, Window: time.Minute, Algorithm: models.AlgorithmGCRA}
	open.OnRedisDown, closed.OnRedisDown = models.OnRedisDownOpen, models.OnRedisDownClosed
	for _, p := range []models.Policy{open, closed, local} {
		for range 4 {
			takeOne(t, l, p, "k")
		}
	}
	server.Freeze()
	servicestest.Within(t, 2*time.Second, func() bool { takeOne(t, l, open, "other"); return !redis.Available() }, "Redis did not count as away")
	ahead.Store(int64(1100 * time.Millisecond)) // what Redis said is not believed any longer
	if d := takeOne(t, l, local, "k"); d.Allowed || !d.Degraded {
		t.Errorf("local: %+v, want a refusal by this instance", d)
	}
	for i := range 50 {
		if d := takeOne(t, l, open, "k"); !d.Allowed || !d.Degraded {
			t.Fatalf("open, hit %d: %+v", i, d)
		}
		if _, err := l.Take(t.Context(), "group", hitOf(closed, "k")); !errors.Is(err, models.ErrUnavailable) {
			t.Fatalf("closed, hit %d: %v", i, err)
		}
		if ds, err := l.Peek(t.Context(), "group", hitOf(open, "k")); err != nil || !ds[0].Allowed {
			t.Fatalf("a look, hit %d: %+v, %v", i, ds, err)
		}
	}
}

// A group that takes several calls waits for Redis no longer than one does.
func TestGroupWaitsOnce(t *testing.T) {
	proxy := servicestest.NewProxy(t, servicestest.StartRedis(t).Addr)
	l := newLimiter(redistest.New(t, proxy.Addr))
	one, two := perMinute("one", 10), perMinute("two", 10)
	one.Block, two.Block = 1, 1
	hits := []models.Hit{hitOf(one, "k"), hitOf(two, "k"), hitOf(perMinute("three", 10), "k")}
	take(t, l, hits...)
	proxy.SetLatency(45 * time.Millisecond) // 90 ms of the 100 for each call
	start := time.Now()
	ds := take(t, l, hits...)
	if took := time.Since(start); took > 180*time.Millisecond || !ds[0].Degraded {
		t.Errorf("decided after %v: %+v", took, ds[0])
	}
	start = time.Now()
	if _, err := l.Peek(t.Context(), "group", hits...); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 180*time.Millisecond {
		t.Errorf("looked for %v", took)
	}
}
