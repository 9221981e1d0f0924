package services_test

import (
	"errors"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

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
