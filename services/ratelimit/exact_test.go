package ratelimit

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// Many at once, one key: exactly the limit passes, on every backend.
func TestIsExactAtOnce(t *testing.T) {
	eachBackend(t, func(t *testing.T, l *Limiter) {
		policy := perMinute("p", 25)
		if !strings.HasSuffix(t.Name(), "disabled") {
			policy.OnRedisDown = models.OnRedisDownClosed
		}
		var admitted atomic.Int64
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				for range 4 {
					ds, err := l.Take(context.Background(), "group", hitOf(policy, "k"))
					if err != nil {
						t.Error(err)
						return
					}
					if ds[0].Allowed {
						admitted.Add(1)
					}
				}
			})
		}
		wg.Wait()
		if admitted.Load() != 25 {
			t.Errorf("%d admitted, want 25", admitted.Load())
		}
	})
}

// Several instances, one key: exactly the limit passes.
func TestIsExactAcrossInstances(t *testing.T) {
	server := servicestest.StartRedis(t)
	policies := []models.Policy{
		perMinute("log", 500),
		{Name: "gcra", Limit: 5000, Window: 24 * time.Hour},
	}
	for _, policy := range policies {
		policy.OnRedisDown = models.OnRedisDownClosed
		var admitted, refused atomic.Int64
		var wg sync.WaitGroup
		for range 3 {
			l := limiterAt(t, server.Addr)
			for range 8 {
				wg.Go(func() {
					for range 40 {
						ds, err := l.Take(context.Background(), "group", hitOf(policy, "k"))
						switch {
						case err != nil:
							t.Error(err)
						case ds[0].Allowed:
							admitted.Add(1)
						default:
							refused.Add(1)
						}
					}
				})
			}
		}
		wg.Wait()
		if admitted.Load() != 500 {
			t.Errorf("%s: %d admitted and %d refused, want 500 admitted", policy.Name, admitted.Load(), refused.Load())
		}
	}
}
