package ratelimit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// The scripts and the pure functions decide alike, step by step. The limiter does nothing by itself:
// a flush shows a bucket up to a microsecond too full.
func TestScriptsAreThePureFunctions(t *testing.T) {
	t.Parallel()
	t.Run("real", func(t *testing.T) {
		t.Parallel()
		l := build(redistest.New(t, servicestest.StartRedis(t).Addr), Options{Logger: redistest.Quiet()})
		compareWithScripts(t, l, 1000, func() {}, func(at int64) int64 { return at })
	})
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		server := miniredis.RunT(t)
		l := build(redistest.At(t, server.Addr(), redis.Options{Embedded: true}), Options{Logger: redistest.Quiet()})
		rnd := rand.New(rand.NewPCG(1, 1))
		clock := time.Now()
		compareWithScripts(t, l, 600, func() {
			clock = clock.Add(time.Duration(rnd.Int64N(int64(100 * time.Millisecond))))
			if rnd.IntN(50) == 0 {
				clock = clock.Add(-50 * time.Millisecond) // a clock that is put back
			}
			server.SetTime(clock)
		}, func(int64) int64 { return clock.UnixMicro() })
	})
}

func compareWithScripts(t *testing.T, l *Limiter, steps int, tick func(), clock func(at int64) int64) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(7, 8))
	policies := []models.Policy{
		{Name: "log", Limit: 20, Window: time.Second},
		{Name: "tight", Limit: 3, Window: 2 * time.Second, Shadow: true},
		{Name: "gcra", Limit: 50, Window: time.Second, Algorithm: models.AlgorithmGCRA},
		{Name: "large", Limit: 1_000_000, Window: 24 * time.Hour},
	}
	type state struct {
		log    slidingLog
		bucket bucket
	}
	states := map[policyKey]*state{}
	look := func(req request, now, cost int64) result {
		s := states[req.name]
		if req.rule.burst > 0 {
			return s.bucket.look(now, req.rule, cost)
		}
		return s.log.look(now, req.rule, cost)
	}
	for i := range steps {
		tick()
		var hits []models.Hit
		for _, p := range policies {
			if rnd.IntN(3) == 0 { // often one alone, which has a script of its own
				hits = append(hits, models.Hit{Policy: p, Key: fmt.Sprint(rnd.IntN(3)), Cost: rnd.Int64N(5) - 1})
			}
		}
		requests, err := l.prepare(hits, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(requests) == 0 {
			continue
		}
		id := int64(i + 1)
		got, err := l.run(t.Context(), "group", requests, id)
		if err != nil {
			t.Fatal(err)
		}
		want := make([]result, len(requests))
		now := clock(got[0].at)
		for j, req := range requests {
			if states[req.name] == nil {
				states[req.name] = &state{}
			}
			want[j] = look(req, max(now, clock(got[j].at)), req.cost)
		}
		if allPass(requests, want) {
			for j, req := range requests {
				if req.cost == 0 || !want[j].passes {
					continue
				}
				if req.rule.burst > 0 {
					states[req.name].bucket.add(want[j].at, req.rule, req.cost)
				} else {
					states[req.name].log.add(want[j].at, id, req.cost)
				}
				want[j] = look(req, want[j].at, 0)
			}
			if rnd.IntN(5) == 0 {
				for j, req := range requests {
					refund(t, l, req, id, got[j])
					if states[req.name].log.remove(id); req.rule.burst > 0 && got[j].passes && req.cost > 0 {
						// The script read its clock again: bring ours to the same time.
						states[req.name] = &state{bucket: bucketAt(t, l, req)}
					}
				}
			}
		}
		for j, req := range requests {
			if got[j] != want[j] {
				t.Fatalf("step %d, %s cost %d: the script says %+v, the function %+v", i, req.name, req.cost, got[j], want[j])
			}
		}
	}
}

func refund(t *testing.T, l *Limiter, req request, id int64, v result) {
	t.Helper()
	if !v.passes || req.cost == 0 {
		return
	}
	if err := l.refund(t.Context(), &req, req.admission(id, v.at, 0, "group")); err != nil {
		t.Fatal(err)
	}
}

func bucketAt(t *testing.T, l *Limiter, req request) (b bucket) {
	t.Helper()
	msg, err := l.redis.Do(t.Context(), func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		return c.Do(ctx, c.B().Get().Key(l.redisKey("group", &req)).Build())
	})
	if rueidis.IsRedisNil(err) {
		return bucket{}
	}
	if err != nil {
		t.Fatal(err)
	}
	text, err := msg.ToString()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(text, &b.level, &b.last); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestScripts(t *testing.T) {
	t.Parallel()
	// A call that is sent again, because its reply got lost, counts once.
	t.Run("a call that is repeated counts once", func(t *testing.T) {
		l := limiterAt(t, servicestest.StartRedis(t).Addr)
		policy := models.Policy{Name: "p", Limit: 3, Window: time.Minute}
		requests, err := l.prepare([]models.Hit{{Policy: policy, Key: "k", Cost: 2}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			got, err := l.run(t.Context(), "k", requests, 42)
			if err != nil {
				t.Fatal(err)
			}
			if !got[0].passes || got[0].remaining != 1 {
				t.Fatalf("got %+v, want it to pass with 1 remaining", got[0])
			}
		}
		got, err := l.run(t.Context(), "k", requests, 43)
		if err != nil {
			t.Fatal(err)
		}
		if got[0].passes || got[0].remaining != 1 || got[0].retry <= 0 {
			t.Fatalf("got %+v, want a refusal", got[0])
		}
	})

	// The refund of one script never gives back more than is left of its hit.
	t.Run("a refund is the pure function", func(t *testing.T) {
		server := miniredis.RunT(t)
		l := embeddedAt(t, server.Addr())
		rnd := rand.New(rand.NewPCG(9, 9))
		policy := models.Policy{Name: "p", Limit: 60, Window: time.Second, Algorithm: models.AlgorithmGCRA}
		requests, err := l.prepare([]models.Hit{{Policy: policy, Key: "k", Cost: 2}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		req := requests[0]
		clock := time.Now()
		var b bucket
		for i := range int64(400) {
			clock = clock.Add(time.Duration(rnd.Int64N(int64(60 * time.Millisecond))))
			server.SetTime(clock)
			got, err := l.run(t.Context(), "group", requests, i+1)
			if err != nil {
				t.Fatal(err)
			}
			want := b.look(clock.UnixMicro(), req.rule, req.cost)
			if got[0].passes != want.passes {
				t.Fatalf("step %d: the script says %+v, the function %+v", i, got[0], want)
			}
			if !want.passes {
				continue
			}
			b.add(want.at, req.rule, req.cost)
			if rnd.IntN(2) == 0 {
				clock = clock.Add(time.Duration(rnd.Int64N(int64(40 * time.Millisecond))))
				server.SetTime(clock)
				refund(t, l, req, i+1, got[0])
				b.remove(clock.UnixMicro(), req.rule, req.cost, got[0].at)
				if got := bucketAt(t, l, req); got != b {
					t.Fatalf("step %d: %+v by the script, %+v by the function", i, got, b)
				}
			}
		}
	})

	// After its limit was lowered a key can be over it. More quota is there when the next hit
	// passes, not when the oldest one leaves.
	t.Run("after a limit was lowered, more quota is when the next hit passes", func(t *testing.T) {
		t.Parallel()
		l, server := limiterWithClock(t)
		clock := time.Now()
		beside := models.Policy{Name: "beside", Limit: 1000, Window: time.Minute}
		for _, policy := range []models.Policy{
			{Name: "log", Limit: 10, Window: time.Minute},
			{Name: "gcra", Limit: 100, Window: time.Minute, Algorithm: models.AlgorithmGCRA},
			{Name: "leased", Limit: 10, Window: time.Minute, Block: 1},
		} {
			for _, others := range [][]models.Policy{nil, {beside}} {
				key := fmt.Sprint("key", len(others))
				hits := func() []models.Hit {
					all := []models.Hit{{Policy: policy, Key: key}}
					for _, other := range others {
						all = append(all, models.Hit{Policy: other, Key: key})
					}
					return all
				}
				for range 10 {
					clock = clock.Add(10 * time.Millisecond)
					server.SetTime(clock)
					if d := take(t, l, hits()...)[0]; !d.Allowed || d.Degraded {
						t.Fatalf("%+v", d)
					}
				}
				policy.Limit /= 2
				d := take(t, l, hits()...)[0]
				if d.Allowed || d.RetryAfter <= 0 || (d.ResetAfter-d.RetryAfter).Abs() > time.Millisecond { // instead of 50 ms
					t.Errorf("%s, with %d others: it passes after %v, and more quota is there after %v", policy.Name, len(others), d.RetryAfter, d.ResetAfter)
				}
				policy.Limit *= 2
			}
		}
	})
}
