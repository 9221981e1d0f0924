package ratelimit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

func blockPolicy(limit, lease int64, window time.Duration) models.Policy {
	return models.Policy{Name: "leased", Limit: limit, Window: window, Block: lease, OnRedisDown: models.OnRedisDownClosed}
}

func TestBlock(t *testing.T) {
	t.Parallel()
	// All instances together admit the limit, neither more nor, when each takes single units in the
	// end, less; Redis is asked for blocks only.
	t.Run("all instances together admit the limit", func(t *testing.T) {
		server := servicestest.StartRedis(t)
		hit := models.Hit{Policy: blockPolicy(5000, 100, time.Minute), Key: "k"}
		var admitted atomic.Int64
		limiters := []*Limiter{limiterAt(t, server.Addr), limiterAt(t, server.Addr)}
		drain := func() {
			var wg sync.WaitGroup
			for _, l := range limiters {
				for range 8 {
					wg.Go(func() {
						for range 5000 + 1 { // one that is never refused ends, too
							decisions, err := l.Take(context.Background(), "group", hit)
							if err != nil || decisions[0].Degraded {
								t.Errorf("%+v, %v", decisions, err)
								return
							}
							if !decisions[0].Allowed {
								return
							}
							admitted.Add(1)
						}
					})
				}
			}
			wg.Wait()
		}
		drain()
		if n := admitted.Load(); n > 5000 || n < 5000-200 {
			t.Errorf("%d admitted, want 5,000 or up to a block an instance less", n)
		}
		if n := scriptsRun(t, server); n > 5000/20 {
			t.Errorf("%d scripts for 5,000 admissions", n)
		}
	})

	t.Run("units are taken, refunded and reset on both backends", func(t *testing.T) {
		for _, backend := range []string{"real", "embedded"} {
			t.Run(backend, func(t *testing.T) {
				l := newLimiter(redistest.Of(t, backend))
				policy := blockPolicy(10, 4, time.Minute)
				hit := models.Hit{Policy: policy, Key: "k"}
				var last models.Decision
				for i := range int64(10) {
					d := take(t, l, hit)[0]
					if !d.Allowed || d.Remaining != 9-i || d.Degraded {
						t.Fatalf("hit %d: %+v", i, d)
					}
					last = d
				}
				for range 2 {
					d := take(t, l, hit)[0]
					if d.Allowed || d.Admission != (models.Admission{}) || d.RetryAfter < time.Minute-time.Second || d.RetryAfter > time.Minute+3*time.Second {
						t.Fatalf("over the limit: %+v", d)
					}
				}
				if err := l.Refund(t.Context(), last); err != nil {
					t.Fatal(err)
				}
				if ds, err := l.Peek(t.Context(), "group", hit); err != nil || !ds[0].Allowed || ds[0].Remaining != 1 {
					t.Fatalf("after a refund: %+v, %v", ds, err)
				}
				if d := take(t, l, hit)[0]; !d.Allowed {
					t.Fatalf("after a refund: %+v", d)
				}
				if d := take(t, l, hit)[0]; d.Allowed {
					t.Fatalf("the refund gave more than it had: %+v", d)
				}
				if err := l.Reset(t.Context(), "group", hit); err != nil {
					t.Fatal(err)
				}
				if d := take(t, l, hit)[0]; !d.Allowed || d.Remaining != 9 {
					t.Fatalf("after a reset: %+v", d)
				}
				if d := take(t, l, models.Hit{Policy: policy, Key: "other", Cost: 11})[0]; d.Allowed || d.Remaining != 10 {
					t.Fatalf("more than the limit: %+v", d)
				}
				if d := take(t, l, models.Hit{Policy: policy, Key: "other", Cost: 10})[0]; !d.Allowed {
					t.Fatalf("more than a block: %+v", d)
				}
			})
		}
	})

	// A hit of another policy that is refused leaves the block as it was.
	t.Run("a hit that is refused leaves the block as it was", func(t *testing.T) {
		l := limiterAt(t, servicestest.StartRedis(t).Addr)
		usesBlocks, narrow := blockPolicy(100, 10, time.Minute), models.Policy{Name: "narrow", Limit: 2, Window: time.Minute}
		hits := []models.Hit{{Policy: narrow, Key: "k"}, {Policy: usesBlocks, Key: "k"}}
		for i := range int64(4) {
			ds := take(t, l, hits...)
			if ds[0].Allowed != (i < 2) || !ds[1].Allowed || (ds[1].Admission != (models.Admission{})) != (i < 2) {
				t.Fatalf("hit %d: %+v", i, ds)
			}
		}
		if ds, err := l.Peek(t.Context(), "group", hits[1]); err != nil || ds[0].Remaining != 98 {
			t.Fatalf("%+v, %v", ds, err)
		}
	})

	// An answer that got lost may have been a block: it is given back later.
	t.Run("a block whose reply was lost is given back", func(t *testing.T) {
		server := servicestest.StartRedis(t)
		proxy := servicestest.NewProxy(t, server.Addr)
		l := limiterAt(t, proxy.Addr)
		hit := models.Hit{Policy: blockPolicy(10, 5, time.Minute), Key: "k"}
		req := newRequest(&hit)
		key := taggedKey{"k", req.name}
		call, _, units, returned := l.blocks.join(key, &req)
		asked := block{id: 77, until: l.local.now() + minBlockLength}
		if got := l.requestBlock(t.Context(), key, hit.Policy, 77, units, 1, returned); got.units != 1 {
			t.Fatalf("%+v", got)
		}
		if _, err := l.blocks.finish(key, &req, call, blockReply{err: models.ErrUnavailable}, asked, returned); err == nil {
			t.Fatal("no error")
		}
		for i := range 10 {
			if d := take(t, l, hit)[0]; !d.Allowed {
				t.Fatalf("hit %d: %+v", i, d)
			}
		}
	})

	// Keys of which clients make any number, such as addresses, take bounded memory, and none is
	// forgotten while Redis is asked for it.
	t.Run("keys take bounded memory", func(t *testing.T) {
		const most = 100
		now := int64(0)
		book := newBlockBook(most, func() int64 { return now })
		policy := blockPolicy(100, 5, time.Minute)
		askFor := func(i int) (taggedKey, *request) {
			req := newRequest(&models.Hit{Policy: policy, Key: fmt.Sprint(i)})
			return taggedKey{req.name.key, req.name}, &req
		}
		underWay, first := askFor(0)
		call, mine, units, returned := book.join(underWay, first)
		if !mine || units == 0 || len(returned) != 0 {
			t.Fatal("not the first to ask")
		}
		for i := 1; i <= 10*most; i++ {
			now++
			key, req := askFor(i)
			call, _, units, returned := book.join(key, req)
			if _, err := book.finish(key, req, call, blockReply{units: units}, block{id: int64(i), units: units, until: now + maxBlockLength}, returned); err != nil {
				t.Fatal(err)
			}
			if n := len(book.keys); n > most {
				t.Fatalf("%d keys, want at most %d", n, most)
			}
		}
		if again, mine, _, _ := book.join(underWay, first); mine || again != call {
			t.Error("the key was forgotten while Redis is asked for it")
		}
	})
}

// What is left of a block goes back when the limiter is closed.
func TestBlockIsGivenBack(t *testing.T) {
	server := servicestest.StartRedis(t)
	hit := models.Hit{Policy: blockPolicy(100, 64, time.Minute), Key: "k"}
	l, other := limiterAt(t, server.Addr), limiterAt(t, server.Addr)
	for range 40 { // blocks of 1, 2, 4, 8, 16 and 32: 23 units are left of the last
		take(t, l, hit)
	}
	keyed := func(i int) models.Hit { return models.Hit{Policy: hit.Policy, Key: fmt.Sprint("many:", i)} }
	for i := range 100 {
		for range 4 { // of a block of 4, 3 are left
			take(t, l, keyed(i))
		}
	}
	if ds, err := other.Peek(t.Context(), "group", hit); err != nil || ds[0].Remaining != 37 {
		t.Fatalf("%+v, %v", ds, err)
	}
	if err := l.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if ds, err := other.Peek(t.Context(), "group", hit); err != nil || ds[0].Remaining != 60 {
		t.Fatalf("after it was closed: %+v, %v", ds, err)
	}
	for i := range 100 {
		if ds, err := other.Peek(t.Context(), "group", keyed(i)); err != nil || ds[0].Remaining != 96 {
			t.Fatalf("key %d after it was closed: %+v, %v", i, ds, err)
		}
	}
	admitted := 0
	for range 200 {
		if take(t, other, hit)[0].Allowed {
			admitted++
		}
	}
	if admitted != 60 {
		t.Errorf("%d admitted after 40, of 100", admitted)
	}
}

// Random blocks, uses, refunds and returns: by the units really used no window
// ever holds more than the limit. The server's clock is the test's.
func TestBlockScriptNeverOverAdmits(t *testing.T) {
	t.Parallel()
	l, server := limiterWithClock(t)
	rnd := rand.New(rand.NewPCG(11, 12))
	policy := blockPolicy(40, 16, time.Second)
	window, length := policy.Window.Microseconds(), blockLength(policy.Window.Microseconds())
	key := taggedKey{"k", policyKey{"leased", "k"}}
	clock := time.Now()
	type held struct {
		block
		ends int64
		uses []counted
	}
	steps := 2500
	if servicestest.LongProof() {
		steps = 10_000
	}
	var instances [4]held
	var over []held // not given back yet
	var all []counted
	id, admitted := int64(0), 0
	for step := range steps {
		clock = clock.Add(time.Duration(rnd.Int64N(int64(20 * time.Millisecond))))
		server.SetTime(clock)
		now := clock.UnixMicro()
		h := &instances[rnd.IntN(4)]
		switch {
		case rnd.IntN(4) > 0 && now < h.ends && h.used < h.units:
			h.used++
			h.uses = append(h.uses, counted{now, 1})
			continue
		case rnd.IntN(10) == 0 && h.used > 0 && now < h.ends: // a refund
			h.used--
			h.uses = h.uses[:len(h.uses)-1]
			continue
		}
		all = append(all, h.uses...)
		if h.id != 0 {
			over = append(over, *h)
		}
		var returned []block
		if rnd.IntN(3) > 0 {
			for _, o := range over {
				returned = append(returned, o.block)
			}
			over = nil
		}
		id++
		got := l.requestBlock(t.Context(), key, policy, id, 1+rnd.Int64N(16), 1, returned)
		if got.err != nil {
			t.Fatal(got.err)
		}
		*h = held{block: block{id: id, units: got.units}, ends: now + length}
		admitted += int(got.units)
		if rnd.IntN(20) == 0 && h.units > 0 { // the same question again
			if again := l.requestBlock(t.Context(), key, policy, id, 16, 1, nil); again.units != got.units {
				t.Fatalf("step %d: asked again: %+v, first %+v", step, again, got)
			}
		}
	}
	for i := range instances {
		all = append(all, instances[i].uses...)
	}
	for _, c := range all {
		if sum := within(all, c.at, window); sum > policy.Limit {
			t.Fatalf("%d in one window, limit %d", sum, policy.Limit)
		}
	}
	if len(all) < steps/8 {
		t.Errorf("only %d units used of %d", len(all), admitted)
	}
}
