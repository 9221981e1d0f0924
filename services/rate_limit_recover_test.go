package services

import (
	"log/slog"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// impatientLimiter notices soon that Redis is away.
func impatientLimiter(t *testing.T, addr string) *RateLimiter {
	t.Helper()
	return NewRateLimiter(redisAt(t, addr, RedisOptions{}), RateLimiterOptions{Logger: slog.New(slog.DiscardHandler)})
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
		if p.Name == "log" {
			want--
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

// Hits of a leased policy share an entry; a refund takes its own units out of it.
func TestOwedBookTakesBackWhatOneHitAdded(t *testing.T) {
	b := newOwedBook(0)
	policy := models.Policy{Name: "p", Limit: 1000, Window: time.Hour, Lease: 5}
	hits := []ask{askOf(policy, "k", 1), askOf(policy, "k", 2), askOf(policy, "k", 3)}
	key := placedKey{"tag", hits[0].name}
	for i := range hits {
		b.add("tag", &hits[i], int64(i+1), int64(1000+i))
	}
	for _, row := range []struct {
		hit     int
		used    int64
		entries int
	}{{0, 5, 1}, {2, 2, 1}, {1, 0, 0}} {
		b.remove("tag", &hits[row.hit], int64(row.hit+1), int64(1000+row.hit), 2000)
		if s := b.keys[key]; s.log.used != row.used || len(s.log.entries) != row.entries || b.units != row.entries {
			t.Errorf("after the refund of hit %d: %+v, %d units, want %d used", row.hit, s.log, b.units, row.used)
		}
	}
}

// What is owed stays when only the limit of a policy changes.
func TestOwedBookFollowsThePolicy(t *testing.T) {
	log := models.Policy{Name: "p", Limit: 10, Window: time.Minute}
	changed := func(change func(*models.Policy)) models.Policy {
		p := log
		change(&p)
		return p
	}
	for _, row := range []struct {
		name string
		now  models.Policy
		want int64 // units owed, one of them by the policy as it is now
	}{
		{"as it was", log, 4},
		{"another limit", changed(func(p *models.Policy) { p.Limit = 20 }), 4},
		{"another rule for outages", changed(func(p *models.Policy) { p.OnRedisDown = models.OnRedisDownLocal }), 4},
		{"another window", changed(func(p *models.Policy) { p.Window = time.Hour }), 1},
		{"leased", changed(func(p *models.Policy) { p.Lease = 2 }), 1},
	} {
		b := newOwedBook(0)
		before, now := askOf(log, "k", 3), askOf(row.now, "k", 1)
		b.add("tag", &before, 1, 1000)
		b.add("tag", &now, 2, 2000)
		s := b.keys[placedKey{"tag", now.name}]
		if s.log.used != row.want || s.policy != row.now || s.rule != now.rule || b.units != len(s.log.entries) {
			t.Errorf("%s: %+v, %d units, want %d used", row.name, s, b.units, row.want)
		}
		all := b.takeAll()
		b.add("tag", &before, 3, 3000)
		b.putBack(all)
		if got, want := b.keys[placedKey{"tag", now.name}].log.used, int64(3); row.want == 4 && got != want+row.want {
			t.Errorf("%s: %d used once put back, want %d", row.name, got, want+row.want)
		}
	}
	gcra := models.Policy{Name: "p", Limit: 100, Window: time.Minute, Algorithm: models.AlgorithmGCRA}
	b := newOwedBook(0)
	before, now := askOf(gcra, "k", 3), askOf(log, "k", 1)
	b.add("tag", &before, 1, 1000)
	if b.add("tag", &now, 2, 2000); b.keys[placedKey{"tag", now.name}].log.used != 1 {
		t.Error("a bucket is taken for a log")
	}
}

// Of a leased policy what is accounted again because the reply got lost counts
// once, but what was admitted meanwhile counts too.
func TestRateLimitAccountsForALostReplyOfALeasedPolicy(t *testing.T) {
	l := limiterAt(t, servicestest.StartRedis(t).Addr, false)
	hit := models.Hit{Policy: models.Policy{Name: "p", Limit: 20, Window: time.Minute, Lease: 5}, Key: "k", Cost: 3}
	a := newAsk(&hit)
	key := placedKey{"k", a.name}
	for i, want := range []int64{17, 17, 11, 11} { // over-counting is the safe side: 3 and then 6
		if i%2 == 0 {
			l.owed.add("k", &a, int64(i+1), l.table.now())
		}
		all := l.owed.takeAll()
		if err := l.accountKey(t.Context(), key, all[key]); err != nil { // executed, and then its reply was lost
			t.Fatal(err)
		}
		l.owed.putBack(all)
		if ds, err := l.Peek(t.Context(), "group", models.Hit{Policy: hit.Policy, Key: "k"}); err != nil || ds[0].Remaining != want {
			t.Errorf("accounted %d times: %+v, %v, want %d remaining", i+1, ds, err, want)
		}
	}
}
