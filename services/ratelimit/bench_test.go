package ratelimit

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

func benchLimiter(b *testing.B, opt redis.Options) *Limiter {
	b.Helper()
	opt.Logger = redistest.Quiet()
	rdb := redis.New(opt)
	b.Cleanup(func() {
		if err := rdb.Close(context.Background()); err != nil {
			b.Error(err)
		}
	})
	if !opt.Disabled {
		servicestest.Eventually(b, rdb.Available, "Redis did not become available")
	}
	return newLimiter(rdb)
}

// One decision by Redis: 64 at a time over 1,000 keys.
func BenchmarkRedis(b *testing.B) {
	for _, policy := range []models.Policy{
		{Name: "log", Limit: 100, Window: time.Second},
		{Name: "gcra", Limit: 1_000_000, Window: time.Second},
	} {
		b.Run(policy.Name, func(b *testing.B) {
			server := servicestest.StartRedis(b)
			l := benchLimiter(b, redis.Options{Client: rueidis.ClientOption{InitAddress: []string{server.Addr}}, Timeout: time.Second})
			keys := make([]string, 1000)
			for i := range keys {
				keys[i] = fmt.Sprint("user:", i)
			}
			var n atomic.Int64
			b.ReportAllocs()
			b.SetParallelism(32)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := l.Take(context.Background(), "group", hitOf(policy, keys[n.Add(1)%1000])); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// A key that is over its limit: Redis is not asked.
func BenchmarkDenied(b *testing.B) {
	server := servicestest.StartRedis(b)
	l := benchLimiter(b, redis.Options{Client: rueidis.ClientOption{InitAddress: []string{server.Addr}}})
	hit := hitOf(models.Policy{Name: "p", Limit: 1, Window: time.Hour}, "k")
	for range 2 {
		if _, err := l.Take(b.Context(), "group", hit); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		if ds, err := l.Take(b.Context(), "group", hit); err != nil || ds[0].Allowed {
			b.Fatal(ds, err)
		}
	}
}

// A decision in this instance, without Redis.
func BenchmarkLocal(b *testing.B) {
	l := benchLimiter(b, redis.Options{Disabled: true})
	hit := hitOf(models.Policy{Name: "p", Limit: 1000, Window: time.Second}, "k")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.Take(b.Context(), "group", hit); err != nil {
			b.Fatal(err)
		}
	}
}
