package services

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// impatientLimiter notices soon that Redis is away.
func impatientLimiter(t *testing.T, addr string) *RateLimiter {
	t.Helper()
	logger := slog.New(slog.NewTextHandler(io.Discard, nil))
	redis := NewRedis(RedisOptions{Client: rueidis.ClientOption{InitAddress: []string{addr}}, Logger: logger})
	t.Cleanup(func() { _ = redis.Close(context.Background()) })
	servicestest.Eventually(t, 5*time.Second, redis.Available, "Redis did not become available")
	return NewRateLimiter(redis, RateLimiterOptions{Logger: logger})
}

// What an instance admits without Redis counts there when it returns.
func TestRateLimitAccountsForAnOutage(t *testing.T) {
	server := servicestest.StartRedis(t)
	proxy := servicestest.NewProxy(t, server.Addr)
	l, other := impatientLimiter(t, proxy.Addr), limiterAt(t, server.Addr, false)
	policies := []models.Policy{
		{Name: "log", Limit: 10, Window: time.Minute},
		{Name: "gcra", Limit: 100, Window: time.Hour, Algorithm: models.AlgorithmGCRA},
		{Name: "leased", Limit: 10, Window: time.Minute, Lease: 2},
	}
	for _, p := range policies {
		takeAs(t, l, models.Hit{Policy: p, Key: "k", Cost: 2})
		takeAs(t, other, models.Hit{Policy: p, Key: "k"})
	}
	proxy.Cut()
	servicestest.Eventually(t, 2*time.Second, func() bool { return !l.redis.Available() }, "Redis did not count as away")
	for _, p := range policies {
		for range 3 {
			if d := takeAs(t, l, models.Hit{Policy: p, Key: "k"})[0]; !d.Allowed || !d.Degraded {
				t.Fatalf("%s: %+v", p.Name, d)
			}
		}
		refunded := takeAs(t, l, models.Hit{Policy: p, Key: "k"})[0]
		if err := l.Refund(t.Context(), refunded); err != nil && p.Lease == 0 {
			t.Fatalf("%s: %v", p.Name, err)
		}
	}
	takeAs(t, other, models.Hit{Policy: policies[0], Key: "k"}) // meanwhile, elsewhere
	proxy.Restore()
	servicestest.Eventually(t, 2*time.Second, l.redis.Available, "Redis did not come back")
	for _, p := range policies {
		want := int64(10 - 2 - 1 - 3)
		switch p.Name {
		case "log":
			want--
		case "leased":
			want = 3 // the unit given back was in a block with others
		}
		ds, err := other.Peek(t.Context(), "group", models.Hit{Policy: p, Key: "k"})
		if err != nil || ds[0].Remaining < want || ds[0].Remaining > want+1 || p.Name == "log" && ds[0].Remaining != want {
			t.Errorf("%s: %+v, %v, want %d remaining", p.Name, ds, err, want)
		}
		ds, err = l.Peek(t.Context(), "group", models.Hit{Policy: p, Key: "k"})
		if err != nil || ds[0].Degraded {
			t.Errorf("%s: %+v, %v", p.Name, ds, err)
		}
	}
}

// One call that failed is accounted although Redis never counted as away, and
// counts once although it was executed.
func TestRateLimitAccountsForALostReply(t *testing.T) {
	server := servicestest.StartRedis(t)
	l := limiterAt(t, server.Addr, false)
	policy := models.Policy{Name: "p", Limit: 10, Window: time.Minute}
	hit := models.Hit{Policy: policy, Key: "k"}
	asks, err := l.prepare([]models.Hit{hit}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.run(t.Context(), "k", asks, 42); err != nil { // executed, and then its reply was lost
		t.Fatal(err)
	}
	for _, id := range []int64{42, 43} { // the second was never sent
		if _, err := l.takeLocally("group", asks, id, l.table.now()); err != nil {
			t.Fatal(err)
		}
	}
	takeAs(t, l, hit)
	servicestest.Eventually(t, 2*time.Second, func() bool { return !l.owed.some.Load() && !l.owed.busy.Load() }, "not accounted")
	if ds, err := l.Peek(t.Context(), "group", hit); err != nil || ds[0].Remaining != 7 {
		t.Errorf("%+v, %v, want 7 of 10 remaining", ds, err)
	}
	if err := l.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// The account script puts what happened where it belongs in time.
func TestRateLimitAccountScriptKeepsTheOrder(t *testing.T) {
	l, server := limiterWithClock(t)
	policy := models.Policy{Name: "p", Limit: 5, Window: time.Second}
	start := time.Now()
	at := func(ms int) int64 {
		server.SetTime(start.Add(time.Duration(ms) * time.Millisecond))
		return int64(ms) * 1000
	}
	asks, err := l.prepare([]models.Hit{{Policy: policy, Key: "k"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	run := func(id int64) verdict {
		vs, err := l.run(t.Context(), "k", asks, id)
		if err != nil {
			t.Fatal(err)
		}
		return vs[0]
	}
	at(0)
	run(1)
	at(900)
	run(2)
	now := l.table.now()
	s := &owedState{policy: policy, rule: asks[0].rule}
	s.log.add(now-500_000, 3, 2) // at 400
	if err := l.accountKey(t.Context(), placedKey{"k", asks[0].name}, s); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		ms        int
		remaining int64
	}{{950, 1}, {1001, 2}, {1390, 2}, {1500, 4}, {1901, 5}} {
		at(row.ms)
		if v := run(0); v.remaining != row.remaining {
			t.Errorf("at %d ms: %+v, want %d remaining", row.ms, v, row.remaining)
		}
	}
}

func TestOwedBookIsBounded(t *testing.T) {
	b := newOwedBook(0)
	policy := models.Policy{Name: "p", Limit: 1000, Window: time.Hour}
	for i := range int64(500) {
		a := askOf(policy, string(rune('a'+i%200))+"k", 1)
		for range 30 {
			b.add("tag", &a, i, i)
		}
		if len(b.keys) > minKeys || b.units > entriesPerKey*minKeys+30 {
			t.Fatalf("%d keys, %d entries", len(b.keys), b.units)
		}
	}
	all := b.takeAll()
	b.putBack(all)
	if len(b.keys) != len(all) || b.units == 0 {
		t.Errorf("%d of %d keys put back", len(b.keys), len(all))
	}
}
