package ratelimit

import (
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// countedPolicies are those whose admissions have no name of their own.
func countedPolicies() []models.Policy {
	return []models.Policy{
		{Name: "gcra", Limit: 100, Window: 24 * time.Hour, Algorithm: models.AlgorithmGCRA},
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
