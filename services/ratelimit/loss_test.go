package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// lossy are policies of which ten pass at once, and then none for a long time.
func lossy() []models.Policy {
	return []models.Policy{
		{Name: "log", Limit: 10, Window: time.Hour},
		{Name: "gcra", Limit: 100, Window: 24 * time.Hour, Algorithm: models.AlgorithmGCRA},
		{Name: "leased", Limit: 10, Window: time.Hour, Block: 4},
		{Name: "closed", Limit: 10, Window: time.Hour, OnRedisDown: models.OnRedisDownClosed},
	}
}

// losses are the ways in which Redis loses what it has.
func losses() map[string]func(*servicestest.RedisServer) {
	return map[string]func(*servicestest.RedisServer){
		"emptied":   func(s *servicestest.RedisServer) { s.Do("FLUSHALL") },
		"restarted": func(s *servicestest.RedisServer) { s.Restart() },
	}
}

// companies are the ways in which hits are decided: alone, with others for one key,
// and with others for keys of their own.
func companies(round int) map[string][]models.Hit {
	all := map[string][]models.Hit{}
	for _, p := range lossy() {
		all[p.Name] = []models.Hit{{Policy: p, Key: fmt.Sprint("alone", round)}}
	}
	for i, p := range lossy() {
		if p.Algorithm != models.AlgorithmGCRA && p.Block == 0 { // others would tell that these are lost
			all["logs"] = append(all["logs"], models.Hit{Policy: p, Key: fmt.Sprint("logs", round)})
		}
		all["one key"] = append(all["one key"], models.Hit{Policy: p, Key: fmt.Sprint("common", round)})
		all["keys"] = append(all["keys"], models.Hit{Policy: p, Key: fmt.Sprint("own", i, round)})
	}
	return all
}

// passes takes until the hits are refused, by whatever counts, and returns how often they
// passed.
func passes(t *testing.T, l *Limiter, hits []models.Hit) (passed int) {
	t.Helper()
	for range 40 {
		var ds []models.Decision
		servicestest.Eventually(t, func() (decided bool) { // where closed, when Redis is back
			var err error
			ds, err = l.Take(t.Context(), "group", hits...)
			return err == nil
		}, "nothing decides")
		for _, d := range ds {
			if !d.Allowed {
				return passed
			}
		}
		passed++
	}
	return passed
}

// Whatever Redis loses, and however often, on one instance not one more passes, whether it
// has refused before or not.
func TestHoldsWhenRedisForgets(t *testing.T) {
	t.Parallel()
	for name, suspectLoss := range losses() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := servicestest.StartRedis(t)
			l := limiterAt(t, server.Addr)
			var ahead atomic.Int64
			l.local.clock = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
			names := slices.Sorted(maps.Keys(companies(0)))
			for round, first := range names { // that tells of the loss by itself, before another does
				servicestest.Eventually(t, l.redis.Available, "Redis is not back")
				all := companies(round)
				for group, hits := range all {
					if hits = hits[:len(hits)-len(hits)/4]; round%2 == 0 {
						for range 10 {
							if d := take(t, l, hits...)[0]; !d.Allowed {
								t.Fatalf("%s: %+v", group, d)
							}
						}
					} else if got := passes(t, l, hits); got != 10 {
						t.Fatalf("%s: %d pass, want 10", group, got)
					}
				}
				ahead.Add(int64(2 * time.Second)) // refusals are believed for a second
				suspectLoss(server)
				for _, group := range append([]string{first}, names...) {
					if got := passes(t, l, all[group]); got != 0 {
						t.Errorf("%s, round %d: %d more pass", group, round, got)
					}
				}
			}
		})
	}
}

func TestLoss(t *testing.T) {
	t.Parallel()
	// What an instance admitted is at Redis again within a second, without a call for it: on
	// another instance not one more passes then.
	t.Run("on another instance not one more passes a second later", func(t *testing.T) {
		t.Parallel()
		for name, suspectLoss := range losses() {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				server := servicestest.StartRedis(t)
				one, two, other := limiterAt(t, server.Addr), limiterAt(t, server.Addr), limiterAt(t, server.Addr)
				for round := range 3 {
					all := companies(round)
					delete(all, "keys") // a look at one of them is another group
					all["one key"] = slices.DeleteFunc(all["one key"], func(hit models.Hit) bool { return hit.Policy.Block > 0 })
					for group, hits := range all { // half by each
						for i := range 10 {
							l := one
							if i%2 == 1 {
								l = two
							}
							for _, d := range take(t, l, hits...) {
								if !d.Allowed && d.Policy.Block == 0 {
									t.Fatalf("%s: %+v", group, d)
								}
							}
						}
					}
					suspectLoss(server)
					for group, hits := range all {
						for _, hit := range hits {
							servicestest.Within(t, time.Second, func() bool {
								ds, err := other.Peek(t.Context(), "group", hit)
								return err == nil && !ds[0].Degraded && ds[0].Remaining <= hit.Policy.Block
							}, group+" of "+hit.Policy.Name+" is not published again")
						}
					}
				}
			})
		}
	})

	// Many at once on many keys while Redis is emptied again and again: on one instance exactly the
	// limit passes.
	t.Run("exactly the limit passes while Redis is emptied", func(t *testing.T) {
		t.Parallel()
		server := servicestest.StartRedis(t)
		l := limiterAt(t, server.Addr)
		const keys, workers = 100, 16
		var admitted [keys][3]atomic.Int64
		var made atomic.Int64
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				for i := range 12 * keys / workers * 3 {
					key, policy := (i*7+w*13)%keys, (i+w)%3
					hit := models.Hit{Policy: lossy()[policy], Key: fmt.Sprint(key)}
					hit.Policy.OnRedisDown = models.OnRedisDownClosed
					if made.Add(1)%50 == 0 {
						server.Do("FLUSHALL")
					}
					ds, err := l.Take(context.Background(), "group", hit)
					switch {
					case errors.Is(err, models.ErrUnavailable):
						continue // on a busy machine it is emptied before a flush can come
					case err != nil:
						t.Error(err)
					case ds[0].Degraded:
						t.Errorf("%+v", ds[0])
					case ds[0].Allowed:
						admitted[key][policy].Add(1)
					}
				}
			})
		}
		wg.Wait()
		for key := range admitted {
			for policy := range admitted[key] {
				if got := admitted[key][policy].Load(); got > 10 {
					t.Errorf("%s of key %d: %d admitted, want 10 at most", lossy()[policy].Name, key, got)
				}
				hit := models.Hit{Policy: lossy()[policy], Key: fmt.Sprint(key)}
				hit.Policy.OnRedisDown = models.OnRedisDownClosed
				if more := passes(t, l, []models.Hit{hit}); more+int(admitted[key][policy].Load()) != 10 {
					t.Errorf("%s of key %d: %d admitted and %d more, want 10", hit.Policy.Name, key, admitted[key][policy].Load(), more)
				}
			}
		}
	})

	// A replica that missed the latest writes becomes the master.
	t.Run("what a replica missed is published again", func(t *testing.T) {
		t.Parallel()
		sentinel := servicestest.StartSentinel(t)
		limiter := func() *Limiter {
			return newLimiter(redistest.At(t, sentinel.Addr, redis.Options{
				Client: rueidis.ClientOption{Sentinel: rueidis.SentinelOption{MasterSet: servicestest.SentinelName}},
			}))
		}
		one, two := limiter(), limiter()
		take := func(l *Limiter, n int) {
			for _, p := range lossy() {
				for range n {
					if d := take(t, l, models.Hit{Policy: p, Key: "k"})[0]; !d.Allowed || d.Degraded {
						t.Fatalf("%+v", d)
					}
				}
			}
		}
		take(one, 3)
		sentinel.Master.Do("WAIT", "1", "1000")
		sentinel.Replica.LoseMaster()
		take(one, 2)
		take(two, 3)
		sentinel.Master.Kill()
		sentinel.Replica.Promote()
		sentinel.WaitFailedOver(t)
		uses := func(l *Limiter) bool { // it may not have noticed yet that the master is gone
			ds, err := l.Peek(t.Context(), "group", models.Hit{Policy: lossy()[0], Key: "k"})
			return err == nil && !ds[0].Degraded
		}
		servicestest.Eventually(t, func() bool { return uses(one) && uses(two) }, "the new master is not used")
		for _, p := range lossy() {
			servicestest.Within(t, time.Second, func() bool {
				ds, err := one.Peek(t.Context(), "group", models.Hit{Policy: p, Key: "k"})
				if err != nil || ds[0].Degraded {
					return false
				}
				return ds[0].Remaining == 2 || p.Block > 0 && ds[0].Remaining <= 2+3
			}, p.Name+": what the replica missed is not published again")
		}
	})

	// A server that takes over may have the beginning of what an instance added, and not the end.
	t.Run("what a bucket lacks is put back before it decides", func(t *testing.T) {
		t.Parallel()
		l, server := limiterWithClock(t)
		policy := models.Policy{Name: "p", Limit: 30, Window: time.Hour, Algorithm: models.AlgorithmGCRA}
		req := newRequest(&models.Hit{Policy: policy, Key: "k"})
		before := ""
		for i := range 3 {
			server.SetTime(time.Now())
			if d := takeOne(t, l, policy, "k"); !d.Allowed || d.Degraded {
				t.Fatalf("%+v", d)
			}
			if i == 0 {
				var err error
				if before, err = server.Get(l.redisKey("k", &req)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := server.Set(l.redisKey("k", &req), before); err != nil {
			t.Fatal(err)
		}
		if d := takeOne(t, l, policy, "k"); d.Allowed || d.Degraded {
			t.Errorf("%+v, want the burst of 3 to be used", d)
		}
	})
}
