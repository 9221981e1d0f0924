package ratelimit

import (
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// countedPolicies are those whose admissions have no name of their own.
func countedPolicies() []models.Policy {
	return []models.Policy{
		{Name: "gcra", Limit: 100, Window: time.Hour, Algorithm: models.AlgorithmGCRA},
		{Name: "leased", Limit: 10, Window: time.Hour, Block: 10},
		{Name: "units", Limit: 10, Window: time.Hour, Block: 1}, // whose block was returned
	}
}

// A second refund gives nothing back, whatever became of the first.
func TestRefundsOnce(t *testing.T) {
	server := servicestest.StartRedis(t)
	proxy := servicestest.NewProxy(t, server.Addr)
	l, other := limiterAt(t, proxy.Addr), limiterAt(t, server.Addr)
	remaining := func(l *Limiter, p models.Policy) int64 {
		t.Helper()
		ds, err := l.Peek(t.Context(), "group", models.Hit{Policy: p, Key: "k"})
		if err != nil || ds[0].Degraded {
			t.Fatalf("%s: %+v, %v", p.Name, ds, err)
		}
		return ds[0].Remaining
	}
	for _, p := range countedPolicies() {
		var taken []models.Decision
		for range 5 {
			taken = append(taken, take(t, l, models.Hit{Policy: p, Key: "k"})...)
		}
		for range 3 {
			if err := l.Refund(t.Context(), taken[4]); err != nil { // of a block that others are in
				t.Fatal(err)
			}
		}
		if got := remaining(l, p); got != 6 {
			t.Errorf("%s: %d remaining after a refund of 1 of 5, want 6 of 10", p.Name, got)
		}
	}
	for _, p := range countedPolicies()[:1] { // at Redis, without a reply
		taken := take(t, l, models.Hit{Policy: p, Key: "k"})[0]
		before := remaining(other, p)
		proxy.LoseReplies(1)
		if err := l.Refund(t.Context(), taken); err == nil {
			t.Fatalf("%s: the reply was not lost", p.Name)
		}
		servicestest.Eventually(t, l.redis.Available, "Redis did not come back")
		if err := l.Refund(t.Context(), taken); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
		if got := remaining(other, p); got != before+1 {
			t.Errorf("%s: %d remaining, %d before a refund of 1", p.Name, got, before)
		}
	}
	// One that could not be sent is still to be made.
	gcra := countedPolicies()[0]
	taken := take(t, l, models.Hit{Policy: gcra, Key: "k"})[0]
	before := remaining(other, gcra)
	proxy.Cut()
	servicestest.Eventually(t, func() bool { return !l.redis.Available() }, "Redis did not count as away")
	if err := l.Refund(t.Context(), taken); err == nil {
		t.Fatal("refunded without Redis")
	}
	proxy.Restore()
	servicestest.Eventually(t, l.redis.Available, "Redis did not come back")
	if err := l.Refund(t.Context(), taken); err != nil || remaining(other, gcra) != before+1 {
		t.Errorf("%v, %d remaining, %d before a refund of 1", err, remaining(other, gcra), before)
	}
}

// Without Redis the same.
func TestRefundsOnceLocally(t *testing.T) {
	l := newLimiter(redistest.Start(t, redis.Options{Disabled: true}))
	for _, p := range countedPolicies() {
		var taken []models.Decision
		for range 5 {
			taken = append(taken, take(t, l, models.Hit{Policy: p, Key: "k"})...)
		}
		for range 3 {
			if err := l.Refund(t.Context(), taken[2]); err != nil {
				t.Fatal(err)
			}
		}
		if ds, err := l.Peek(t.Context(), "group", models.Hit{Policy: p, Key: "k"}); err != nil || ds[0].Remaining != 6 {
			t.Errorf("%s: %+v, %v, want 6 remaining", p.Name, ds, err)
		}
	}
}

// A refund gives back no more than its cost. That holds when the server's clock is behind what it
// was at the admission, and when what it lost was put back.
func TestRefundWithAClockPutBack(t *testing.T) {
	server := miniredis.RunT(t)
	l := embeddedAt(t, server.Addr())
	clock := time.Now()
	server.SetTime(clock)
	hit := models.Hit{Policy: countedPolicies()[0], Key: "k"}
	taken := take(t, l, hit)[0]
	server.FlushAll()
	server.SetTime(clock.Add(-time.Hour))
	for range 5 {
		take(t, l, hit)
	}
	if err := l.Refund(t.Context(), taken); err != nil {
		t.Fatal(err)
	}
	if ds, err := l.Peek(t.Context(), "group", hit); err != nil || ds[0].Remaining != 5 {
		t.Errorf("%+v, %v, want 5 of 10 remaining", ds, err)
	}
}

// A refund after a reset by another instance gives no more than was taken since. Of a log or a
// block, whose units have names, it gives nothing.
func TestRefundAfterAResetElsewhere(t *testing.T) {
	server := miniredis.RunT(t)
	server.SetTime(time.Now())
	l, other := embeddedAt(t, server.Addr()), embeddedAt(t, server.Addr())
	for _, row := range []struct {
		policy models.Policy
		since  int   // taken after the reset
		left   int64 // of 10, after the refunds
	}{
		{models.Policy{Name: "log", Limit: 10, Window: time.Hour}, 7, 3},
		{countedPolicies()[0], 7, 10},
		{countedPolicies()[1], 7, 3},
	} {
		hit := models.Hit{Policy: row.policy, Key: "k"}
		var before []models.Decision
		for range 10 {
			before = append(before, take(t, l, hit)...)
		}
		if err := other.Reset(t.Context(), "group", hit); err != nil {
			t.Fatal(err)
		}
		for range row.since {
			take(t, other, hit)
		}
		if err := l.Refund(t.Context(), before...); err != nil {
			t.Fatal(err)
		}
		ds, err := other.Peek(t.Context(), "group", hit)
		if err != nil || ds[0].Remaining != row.left {
			t.Errorf("%s: %+v, %v, want %d of 10 remaining", row.policy.Name, ds, err, row.left)
		}
	}
}
