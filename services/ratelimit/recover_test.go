package ratelimit

import (
	"context"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// What an instance admits without Redis counts there when it returns.
func TestFlushesAnOutage(t *testing.T) {
	server := servicestest.StartRedis(t)
	proxy := servicestest.NewProxy(t, server.Addr)
	l, other := limiterAt(t, proxy.Addr), limiterAt(t, server.Addr)
	policies := []models.Policy{
		{Name: "log", Limit: 10, Window: time.Minute},
		{Name: "gcra", Limit: 100, Window: time.Hour, Algorithm: models.AlgorithmGCRA},
		{Name: "leased", Limit: 10, Window: time.Minute, Block: 2},
	}
	for _, p := range policies {
		take(t, l, models.Hit{Policy: p, Key: "k", Cost: 2})
		take(t, other, models.Hit{Policy: p, Key: "k"})
	}
	proxy.Cut()
	servicestest.Eventually(t, func() bool { return !l.redis.Available() }, "Redis did not count as away")
	for _, p := range policies {
		for range 3 {
			if d := take(t, l, models.Hit{Policy: p, Key: "k"})[0]; !d.Allowed || !d.Degraded {
				t.Fatalf("%s: %+v", p.Name, d)
			}
		}
		refunded := take(t, l, models.Hit{Policy: p, Key: "k"})[0]
		if err := l.Refund(t.Context(), refunded); err != nil && p.Block == 0 {
			t.Fatalf("%s: %v", p.Name, err)
		}
	}
	take(t, other, models.Hit{Policy: policies[0], Key: "k"}) // meanwhile, elsewhere
	proxy.Restore()
	servicestest.Eventually(t, l.redis.Available, "Redis did not come back")
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

// One call that failed is published although Redis never counted as away, and
// counts once although it was executed.
func TestFlushesALostReply(t *testing.T) {
	server := servicestest.StartRedis(t)
	l := limiterAt(t, server.Addr)
	policy := models.Policy{Name: "p", Limit: 10, Window: time.Minute}
	hit := models.Hit{Policy: policy, Key: "k"}
	requests, err := l.prepare([]models.Hit{hit}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.run(t.Context(), "k", requests, 42); err != nil { // executed, and then its reply was lost
		t.Fatal(err)
	}
	for _, id := range []int64{42, 43} { // the second was never sent
		if _, err := l.takeLocally("group", requests, id, l.local.now()); err != nil {
			t.Fatal(err)
		}
	}
	take(t, l, hit)
	servicestest.Within(t, time.Second, func() bool { return !l.outbox.pending.Load() && !l.outbox.running.Load() }, "not published")
	if ds, err := l.Peek(t.Context(), "group", hit); err != nil || ds[0].Remaining != 7 {
		t.Errorf("%+v, %v, want 7 of 10 remaining", ds, err)
	}
	if err := l.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// The flush script puts what happened where it belongs in time.
func TestFlushScriptKeepsTheOrder(t *testing.T) {
	l, server := limiterWithClock(t)
	policy := models.Policy{Name: "p", Limit: 5, Window: time.Second}
	start := time.Now()
	at := func(ms int) int64 {
		server.SetTime(start.Add(time.Duration(ms) * time.Millisecond))
		return int64(ms) * 1000
	}
	requests, err := l.prepare([]models.Hit{{Policy: policy, Key: "k"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	run := func(id int64) result {
		vs, err := l.run(t.Context(), "k", requests, id)
		if err != nil {
			t.Fatal(err)
		}
		return vs[0]
	}
	at(0)
	run(1)
	at(900)
	run(2)
	l.outbox.drop(taggedKey{"k", requests[0].name})
	requests[0].cost = 2
	l.outbox.addLocal(taggedKey{"k", requests[0].name}, &requests[0], 3, l.local.now()-500_000) // at 400
	if err := l.flush(t.Context(), taggedKey{"k", requests[0].name}); err != nil {
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

func TestOutboxIsBounded(t *testing.T) {
	policies := map[string]models.Policy{
		"log":    {Name: "p", Limit: 1000, Window: time.Hour},
		"gcra":   {Name: "p", Limit: 10_000, Window: time.Hour},
		"leased": {Name: "p", Limit: 10_000, Window: time.Hour, Block: 5},
	}
	for name, policy := range policies {
		b := newOutbox(0, func() int64 { return 1 })
		for i := range int64(500) {
			req := requestOf(policy, string(rune('a'+i%200))+"k", 1)
			key := taggedKey{"tag", req.name}
			for n := range int64(30) {
				e := make([]expectation, 1)
				switch {
				case n%2 == 0:
					b.addLocal(key, &req, 100*i+n, i)
					b.keys[key].behind = false
				case b.beginCall("tag", []request{req}, e) != nil:
					t.Fatal("behind")
				case req.usesBlocks():
					b.recordBlocks(key, &e[0], 100*i+n, blockReply{units: 1, at: i}, blockTerms{window: 1 << 40}, nil)
				default:
					b.recordDecision(key, &req, &e[0], 100*i+n, true, result{passes: true, at: i + 1}, req.rule.burst*(i+1))
					b.keys[key].behind = false
				}
			}
			entries := 0
			for _, s := range b.keys {
				entries += s.size()
			}
			if len(b.keys) > minKeys || b.entries != entries || entries > entriesPerKey*minKeys+30 {
				t.Fatalf("%s: %d keys, %d entries counted as %d", name, len(b.keys), entries, b.entries)
			}
		}
	}
}

// Hits of a policy with blocks share an entry; a refund takes its own units out of it.
func TestOutboxTakesBackWhatOneHitAdded(t *testing.T) {
	b := newOutbox(0, func() int64 { return 2000 })
	policy := models.Policy{Name: "p", Limit: 1000, Window: time.Hour, Block: 5}
	hits := []request{requestOf(policy, "k", 1), requestOf(policy, "k", 2), requestOf(policy, "k", 3)}
	key := taggedKey{"tag", hits[0].name}
	for i := range hits {
		b.addLocal(key, &hits[i], int64(i+1), int64(1000+i))
	}
	for _, row := range []struct {
		hit     int
		used    int64
		entries int
	}{{0, 5, 1}, {2, 2, 1}, {1, 0, 0}} {
		b.remove(key, &hits[row.hit], int64(row.hit+1), int64(1000+row.hit))
		if s := b.keys[key]; s.log.used != row.used || len(s.log.entries) != row.entries || b.entries != row.entries {
			t.Errorf("after the refund of hit %d: %+v, %d entries, want %d used", row.hit, s.log, b.entries, row.used)
		}
	}
}

// What was admitted stays when only the limit of a policy changes.
func TestOutboxFollowsThePolicy(t *testing.T) {
	log := models.Policy{Name: "p", Limit: 10, Window: time.Minute}
	changed := func(change func(*models.Policy)) models.Policy {
		p := log
		change(&p)
		return p
	}
	gcra := models.Policy{Name: "p", Limit: 100, Window: time.Minute, Algorithm: models.AlgorithmGCRA}
	longer := gcra
	longer.Window = time.Hour
	for _, row := range []struct {
		name         string
		before, now  models.Policy
		used, filled int64 // units of the log, of the bucket
	}{
		{"as it was", log, log, 4, 0},
		{"another limit", log, changed(func(p *models.Policy) { p.Limit = 20 }), 4, 0},
		{"another rule for outages", log, changed(func(p *models.Policy) { p.OnRedisDown = models.OnRedisDownLocal }), 4, 0},
		{"another window, counted in the same place", log, changed(func(p *models.Policy) { p.Window = time.Hour }), 4, 0},
		{"leased", log, changed(func(p *models.Policy) { p.Block = 2 }), 1, 0},
		{"a bucket", gcra, gcra, 0, 4},
		{"a bucket of another window", gcra, longer, 0, 1},
		{"a log in place of a bucket", gcra, log, 1, 0},
	} {
		b := newOutbox(0, func() int64 { return 2000 })
		before, now := requestOf(row.before, "k", 3), requestOf(row.now, "k", 1)
		key := taggedKey{"tag", now.name}
		b.addLocal(key, &before, 1, 2000)
		b.addLocal(key, &now, 2, 2000)
		s := b.keys[key]
		if s.log.used != row.used || s.bucket.level != row.filled*s.rule.window || s.policy != row.now || b.entries != len(s.log.entries) {
			t.Errorf("%s: %+v, %d entries, want %d used and %d filled", row.name, s, b.entries, row.used, row.filled)
		}
	}
}

// Of a policy with blocks what is published again because the reply got lost counts
// once, but what was admitted meanwhile counts too.
func TestFlushesALostReplyOfAPolicyWithBlocks(t *testing.T) {
	server := servicestest.StartRedis(t)
	l, other := limiterAt(t, server.Addr), limiterAt(t, server.Addr)
	hit := models.Hit{Policy: models.Policy{Name: "p", Limit: 20, Window: time.Minute, Block: 5}, Key: "k", Cost: 3}
	req := newRequest(&hit)
	key := taggedKey{"k", req.name}
	for i, want := range []int64{17, 17, 11, 11} { // over-counting is the safe side: 3 and then 6
		if i%2 == 0 {
			l.outbox.addLocal(key, &req, int64(i+1), l.local.now())
		}
		r := l.outbox.beginFlush(key)
		r.blocks = nil
		if _, err := l.send(t.Context(), r); err != nil { // executed, and then its reply was lost
			t.Fatal(err)
		}
		l.outbox.endFlush(r, flushReply{}, models.ErrUnavailable)
		if ds, err := other.Peek(t.Context(), "group", models.Hit{Policy: hit.Policy, Key: "k"}); err != nil || ds[0].Remaining != want {
			t.Errorf("published %d times: %+v, %v, want %d remaining", i+1, ds, err, want)
		}
	}
}

// A flush goes on when its caller leaves: others wait for it.
func TestFlushOutlivesItsCaller(t *testing.T) {
	t.Parallel()
	l := newLimiter(redistest.Of(t, "embedded"))
	hit := models.Hit{Policy: models.Policy{Name: "p", Limit: 10, Window: time.Minute}, Key: "k"}
	take(t, l, hit)
	requests, err := l.prepare([]models.Hit{hit}, nil)
	if err != nil {
		t.Fatal(err)
	}
	under, key := make([]expectation, 1), taggedKey{"k", requests[0].name}
	l.outbox.beginCall("k", requests, under) // a call that is under way: the flush waits for it
	ctx, leave := context.WithCancel(t.Context())
	reported := make(chan error, 1)
	go func() { reported <- l.flush(ctx, key) }()
	servicestest.Eventually(t, func() bool {
		l.outbox.mu.Lock()
		defer l.outbox.mu.Unlock()
		return under[0].state.flushing
	}, "the report did not begin")
	leave()
	l.outbox.endCall("k", requests, under)
	if err := <-reported; err != nil {
		t.Error(err)
	}
}
