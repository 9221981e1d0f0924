package ratelimit

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// failuresToShut is how many failed calls in a row end the use of a node.
const failuresToShut = 3

func TestBatch(t *testing.T) {
	t.Parallel()
	// A key that cannot be decided does not concern those that are decided with it, and many at a
	// time are decided exactly.
	for _, row := range []struct {
		name   string
		policy models.Policy
		key    string // what holds another type of value
		batch  func(*Limiter) *redis.Batcher
	}{
		{"a log", models.Policy{Limit: 3}, "rate:log:p:", func(l *Limiter) *redis.Batcher { return l.logs }},
		{"a bucket", models.Policy{Limit: 30, Algorithm: models.AlgorithmGCRA}, "rate:gcra3600:p:", func(l *Limiter) *redis.Batcher { return l.buckets }},
	} {
		t.Run("each key is decided by itself, and exactly: "+row.name, func(t *testing.T) {
			t.Parallel()
			server := servicestest.StartRedis(t)
			l := limiterAt(t, server.Addr)
			for _, key := range []string{"broken", "costly"} {
				server.Do("RPUSH", "test:{"+key+"}"+row.key+key, "x")
			}
			policy := row.policy
			policy.Name, policy.Window, policy.OnRedisDown = "p", time.Hour, models.OnRedisDownClosed
			batch := row.batch(l)
			release := batch.Hold()
			admitted := make(chan string, 100)
			var wg sync.WaitGroup
			for _, hit := range []models.Hit{{Key: "a"}, {Key: "a"}, {Key: "broken"}, {Key: "costly", Cost: 1000}, {Key: "b"}} {
				hit.Policy = policy
				broken := hit.Key == "broken" || hit.Key == "costly"
				for range 3 {
					wg.Go(func() {
						decisions, err := l.Take(t.Context(), "", hit)
						switch {
						case broken != errors.Is(err, models.ErrUnavailable):
							t.Errorf("%s: %v", hit.Key, err)
						case err == nil && decisions[0].Allowed:
							admitted <- hit.Key
						}
					})
				}
			}
			servicestest.Eventually(t, func() bool { return batch.Waiting() == 15 }, "the decisions are not together")
			release()
			wg.Wait()
			close(admitted)
			count := map[string]int{}
			for key := range admitted {
				count[key]++
			}
			if count["a"] != 3 || count["b"] != 3 {
				t.Errorf("admitted %v of a limit of 3", count)
			}
		})
	}

	// When the background has come to an end, what waits is answered, and Redis does not count as
	// away for it.
	t.Run("what waits is answered after Close", func(t *testing.T) {
		t.Parallel()
		l := limiterAt(t, servicestest.StartRedis(t).Addr)
		release := l.logs.Hold()
		policy := models.Policy{Name: "p", Limit: 5, Window: time.Hour}
		var wg sync.WaitGroup
		for range 2 * failuresToShut {
			wg.Go(func() {
				decisions, err := l.Take(t.Context(), "", models.Hit{Policy: policy, Key: "a"})
				if err != nil || !decisions[0].Degraded {
					t.Errorf("%+v, %v", decisions, err)
				}
			})
		}
		servicestest.Eventually(t, func() bool { return l.logs.Waiting() == 2*failuresToShut }, "the decisions are not together")
		if err := l.Close(t.Context()); err != nil {
			t.Error(err)
		}
		release()
		wg.Wait()
		if !l.redis.Available() {
			t.Error("Redis counts as away")
		}
	})

	// That Redis cannot serve stops the limiter from asking it, also where only a script finds out.
	t.Run("scripts that Redis cannot serve make it count as away", func(t *testing.T) {
		t.Parallel()
		for name, strike := range map[string]func(*servicestest.RedisServer){
			"read-only":     func(s *servicestest.RedisServer) { s.Do("REPLICAOF", "127.0.0.1", "1") },
			"out of memory": func(s *servicestest.RedisServer) { s.Do("CONFIG", "SET", "maxmemory", "1") },
		} {
			t.Run(name, func(t *testing.T) {
				server := servicestest.StartRedis(t)
				var logged bytes.Buffer
				rdb := redistest.New(t, server.Addr)
				l := New(rdb, Options{Logger: slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelError}))})
				policy := models.Policy{Name: "p", Limit: 1000, Window: time.Hour}
				take := func(key int) {
					if _, err := l.Take(t.Context(), "", models.Hit{Policy: policy, Key: fmt.Sprint(key)}); err != nil {
						t.Error(err)
					}
				}
				take(0)
				strike(server)
				// Each time for another key: one that is there already is served without memory. A
				// call that a probe meanwhile made up for does not count.
				asked := 1
				for ; rdb.Available() && asked < 100; asked++ {
					take(asked)
				}
				if rdb.Available() || asked > 10*failuresToShut {
					t.Errorf("asked %d times, counts as available: %v", asked, rdb.Available())
				}
				if text := logged.String(); text != "" {
					t.Errorf("a line for each request: %.500s", text)
				}
			})
		}
	})
}
