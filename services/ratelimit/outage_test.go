package ratelimit

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// outage is a limiter of a Redis that hangs. What it knows of time may be ahead.
type outage struct {
	*Limiter
	t                   *testing.T
	server              *servicestest.RedisServer
	ahead               atomic.Int64
	local, open, closed models.Policy
}

func newOutage(t *testing.T, limit int64) *outage {
	t.Helper()
	t.Parallel()
	o := &outage{t: t, server: servicestest.StartRedis(t), local: perMinute("local", limit), open: perMinute("open", limit), closed: perMinute("closed", limit)}
	o.open.OnRedisDown, o.closed.OnRedisDown = models.OnRedisDownOpen, models.OnRedisDownClosed
	rdb := redistest.At(t, o.server.Addr, redis.Options{Timeout: 500 * time.Millisecond})
	o.Limiter = New(rdb, Options{Logger: redistest.Quiet(), Clock: func() time.Time { return time.Now().Add(time.Duration(o.ahead.Load())) }})
	return o
}

func (o *outage) waitAway() {
	o.t.Helper()
	servicestest.Eventually(o.t, func() bool {
		takeOne(o.t, o.Limiter, o.open, "other")
		return !o.redis.Available()
	}, "Redis did not count as away")
}

// admits is how many of ten hits pass, all of them decided without Redis.
func (o *outage) admits(policy models.Policy) (admitted int) {
	o.t.Helper()
	for range 10 {
		d := takeOne(o.t, o.Limiter, policy, "k")
		if !d.Degraded {
			o.t.Errorf("%s: %+v", policy.Name, d)
		}
		if d.Allowed {
			admitted++
		}
	}
	return admitted
}

func TestOutage(t *testing.T) {
	t.Parallel()
	t.Run("a frozen Redis costs one Timeout, and each policy does what it says", func(t *testing.T) {
		o := newOutage(t, 10)
		usesBlocks := perMinute("blocks", 10)
		usesBlocks.Block = 4 // blocks of 1, 2 and 4: none is left of them
		for _, p := range []models.Policy{o.local, o.open, o.closed, usesBlocks} {
			for range 7 {
				takeOne(t, o.Limiter, p, "k")
			}
		}
		o.server.Freeze()
		start := time.Now()
		d := takeOne(t, o.Limiter, o.local, "k")
		if took := time.Since(start); took > o.redis.Timeout()+servicestest.Slack(start) || !d.Degraded || !d.Allowed || d.Remaining != 2 {
			t.Fatalf("first decision after %v: %+v, want degraded with 2 of the recent 10 left", took, d)
		}
		o.waitAway()
		for _, row := range []struct {
			policy models.Policy
			want   int
		}{{o.local, 2}, {usesBlocks, 3}, {o.open, 10}} {
			if got := o.admits(row.policy); got != row.want {
				t.Errorf("%s: %d admitted, want %d", row.policy.Name, got, row.want)
			}
		}
		if _, err := o.Take(t.Context(), "group", hitOf(o.closed, "k")); !errors.Is(err, models.ErrUnavailable) {
			t.Errorf("closed: %v", err)
		}
		shadow := o.closed
		shadow.Shadow = true
		if got := o.admits(shadow); got != 10 {
			t.Errorf("a closed shadow: %d admitted, want all", got)
		}
		o.server.Thaw()
		servicestest.Within(t, time.Second, func() bool { return !takeOne(t, o.Limiter, o.open, "new").Degraded }, "still degraded")
	})

	t.Run("a denial by Redis ends when the policy says what happens", func(t *testing.T) {
		o := newOutage(t, 2)
		local := models.Policy{Name: "gcra", Limit: 20, Window: time.Minute, Algorithm: models.AlgorithmGCRA}
		for _, p := range []models.Policy{o.open, o.closed, local} {
			for range 4 {
				takeOne(t, o.Limiter, p, "k")
			}
		}
		o.server.Freeze()
		o.waitAway()
		o.ahead.Store(int64(1100 * time.Millisecond)) // what Redis said is not believed any longer
		if d := takeOne(t, o.Limiter, local, "k"); d.Allowed || !d.Degraded {
			t.Errorf("local: %+v, want a refusal by this instance", d)
		}
		for i := range 50 {
			if d := takeOne(t, o.Limiter, o.open, "k"); !d.Allowed || !d.Degraded {
				t.Fatalf("open, hit %d: %+v", i, d)
			}
			if _, err := o.Take(t.Context(), "group", hitOf(o.closed, "k")); !errors.Is(err, models.ErrUnavailable) {
				t.Fatalf("closed, hit %d: %v", i, err)
			}
			if d := peek(t, o.Limiter, hitOf(o.open, "k"))[0]; !d.Allowed {
				t.Fatalf("a look, hit %d: %+v", i, d)
			}
		}
	})

	// Each call takes nine tenths of the Timeout. If each had one of its own, all would be answered.
	t.Run("a group of several calls waits no longer than one call", func(t *testing.T) {
		t.Parallel()
		proxy := servicestest.NewProxy(t, servicestest.StartRedis(t).Addr)
		l := impatientAt(t, proxy.Addr)
		one, two := perMinute("one", 10), perMinute("two", 10)
		one.Block, two.Block = 1, 1
		hits := []models.Hit{hitOf(one, "k"), hitOf(two, "k"), hitOf(perMinute("three", 10), "k")}
		take(t, l, hits...)
		proxy.SetLatency(l.redis.Timeout() * 45 / 100)
		if d := take(t, l, hits...)[0]; !d.Degraded {
			t.Errorf("three calls, each in time: %+v", d)
		}
		if d := peek(t, l, hits...)[0]; !d.Degraded {
			t.Errorf("a look, by three calls, each in time: %+v", d)
		}
	})
}
