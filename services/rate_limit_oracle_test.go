package services

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// Several instances, random keys, costs and refunds, scripts flushed in between:
// by the server's clock no window ever holds more than the limit.
func TestRateLimitNeverAdmitsMoreInAnyWindow(t *testing.T) {
	server := servicestest.StartRedis(t)
	policies := []models.Policy{
		{Name: "log", Limit: 30, Window: time.Second, OnRedisDown: models.OnRedisDownClosed},
		{Name: "gcra", Limit: 60, Window: time.Second, Algorithm: models.AlgorithmGCRA, OnRedisDown: models.OnRedisDownClosed},
	}
	var mu sync.Mutex
	kept := map[limitKey][]counted{}
	var wg sync.WaitGroup
	end := time.Now().Add(2500 * time.Millisecond)
	for instance := range uint64(3) {
		l := limiterAt(t, server.Addr, false)
		for worker := range uint64(3) {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(instance, worker))
				for time.Now().Before(end) {
					hits := []models.Hit{{Policy: policies[rnd.IntN(2)], Key: string(rune('a' + rnd.IntN(3))), Cost: 1 + rnd.Int64N(3)}}
					decisions, err := l.Take(context.Background(), "group", hits...)
					if err != nil {
						t.Error(err)
						return
					}
					d := decisions[0]
					switch {
					case !d.Allowed:
						// A little idleness, so that the keys are often at their limit and not always.
						if rnd.IntN(20) == 0 {
							<-time.After(time.Duration(rnd.IntN(20)) * time.Millisecond)
						}
						continue
					case rnd.IntN(5) == 0:
						if err := l.Refund(context.Background(), d); err != nil {
							t.Error(err)
							return
						}
						continue
					}
					e, err := parseEntry(d.ID)
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					name := limitKey{d.Policy.Name, e.key}
					kept[name] = append(kept[name], counted{e.at, e.cost})
					mu.Unlock()
				}
			})
		}
	}
	for time.Now().Before(end) {
		server.Do("SCRIPT", "FLUSH")
		<-time.After(200 * time.Millisecond)
	}
	wg.Wait()
	for _, policy := range policies {
		total := 0
		for name, all := range kept {
			if name.policy != policy.Name {
				continue
			}
			slices.SortFunc(all, func(a, b counted) int { return int(a.at - b.at) })
			for _, c := range all {
				if sum := within(all, c.at, policy.Window.Microseconds()); sum > policy.Limit {
					t.Fatalf("%v: %d in one window, limit %d", name, sum, policy.Limit)
				}
			}
			total += len(all)
		}
		if total < 20 {
			t.Errorf("%s: only %d admissions kept", policy.Name, total)
		}
	}
}
