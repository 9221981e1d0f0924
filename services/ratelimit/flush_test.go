package ratelimit

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

func TestFlush(t *testing.T) {
	t.Parallel()
	// What an instance admits without Redis counts there when it returns.
	t.Run("what was admitted without Redis counts there", func(t *testing.T) {
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
	})

	// One call that failed is published although Redis never counted as away, and counts once
	// although it was executed.
	t.Run("a call whose reply was lost counts once", func(t *testing.T) {
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
	})

	// Of a policy with blocks what is published again because the reply got lost counts once, but
	// what was admitted meanwhile counts too.
	t.Run("of blocks, what was admitted meanwhile counts too", func(t *testing.T) {
		server := servicestest.StartRedis(t)
		l := build(redistest.New(t, server.Addr), Options{Logger: redistest.Quiet()}) // or it would flush by itself
		other := limiterAt(t, server.Addr)
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
	})

	// The flush script puts what happened where it belongs in time.
	t.Run("what happened is put where it belongs in time", func(t *testing.T) {
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
	})

	// A flush goes on when its caller leaves: others wait for it.
	t.Run("a flush goes on when its caller leaves", func(t *testing.T) {
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
		reported, left := make(chan error, 1), make(chan error, 1)
		go func() { left <- l.flush(ctx, key) }()
		servicestest.Eventually(t, func() bool {
			l.outbox.mu.Lock()
			defer l.outbox.mu.Unlock()
			return under[0].state.flushing
		}, "the report did not begin")
		go func() { reported <- l.flush(t.Context(), key) }()
		leave()
		if err := <-left; !errors.Is(err, models.ErrUnavailable) {
			t.Errorf("the one who left: %v", err)
		}
		l.outbox.endCall("k", requests, under)
		if err := <-reported; err != nil {
			t.Error(err)
		}
	})

	// What is left of one request's budget is no matter of the others.
	t.Run("a flush goes on when its caller has no time left", func(t *testing.T) {
		t.Parallel()
		proxy := servicestest.NewProxy(t, servicestest.StartRedis(t).Addr)
		l := limiterAt(t, proxy.Addr)
		hit := models.Hit{Policy: models.Policy{Name: "p", Limit: 10, Window: time.Minute}, Key: "k"}
		take(t, l, hit)
		requests, err := l.prepare([]models.Hit{hit}, nil)
		if err != nil {
			t.Fatal(err)
		}
		proxy.SetLatency(20 * time.Millisecond)
		under, key := make([]expectation, 1), taggedKey{"k", requests[0].name}
		l.outbox.beginCall("k", requests, under)
		hasty := redis.WithSpentBudget(t.Context(), l.redis.Timeout()-time.Millisecond)
		late, reported := make(chan error, 1), make(chan error, 1)
		go func() { late <- l.flush(hasty, key) }()
		servicestest.Eventually(t, func() bool {
			l.outbox.mu.Lock()
			defer l.outbox.mu.Unlock()
			return under[0].state.flushing
		}, "the flush did not begin")
		go func() { reported <- l.flush(t.Context(), key) }()
		if err := <-late; !errors.Is(err, models.ErrUnavailable) {
			t.Errorf("who has none: %v", err)
		}
		if left, _ := l.redis.Left(hasty); left > 0 {
			t.Errorf("the wait is not charged: %s are left", left)
		}
		l.outbox.endCall("k", requests, under)
		if err := <-reported; err != nil {
			t.Errorf("who has time: %v", err)
		}
	})

	// A block is fetched for all who wait for it.
	t.Run("a block is fetched although its client leaves", func(t *testing.T) {
		t.Parallel()
		proxy := servicestest.NewProxy(t, servicestest.StartRedis(t).Addr)
		l := limiterAt(t, proxy.Addr)
		policy := models.Policy{Name: "p", Limit: 100, Window: time.Minute, Block: 50, OnRedisDown: models.OnRedisDownClosed}
		take(t, l, models.Hit{Policy: policy, Key: "first"})
		proxy.SetLatency(100 * time.Millisecond)
		for i := range 5 {
			hit := models.Hit{Policy: policy, Key: strconv.Itoa(i)}
			ctx, leave := context.WithCancel(t.Context())
			gone := make(chan struct{})
			go func() {
				defer close(gone)
				_, _ = l.Take(ctx, hit.Key, hit)
			}()
			fetched := func() bool {
				l.blocks.mu.Lock()
				defer l.blocks.mu.Unlock()
				for key, s := range l.blocks.keys {
					if key.name.key == hit.Key && s.call != nil {
						return true
					}
				}
				return false
			}
			servicestest.Eventually(t, func() bool {
				select {
				case <-gone: // on a busy machine it may be over before it is seen
					return true
				default:
					return fetched()
				}
			}, "no block is fetched")
			var waiting sync.WaitGroup
			for range 3 {
				waiting.Go(func() {
					if decisions, err := l.Take(t.Context(), hit.Key, hit); err != nil || !decisions[0].Allowed || decisions[0].Degraded {
						t.Errorf("who waits: %+v, %v", decisions, err)
					}
				})
			}
			leave()
			waiting.Wait()
			<-gone
		}
	})
}
