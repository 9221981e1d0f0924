package ratelimit

import (
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// TestBlockBesideLocalAdmissions: what is left of a block from before an outage is not used on top
// of what the instance admits without Redis. A policy without a block in the group takes it there.
func TestBlockBesideLocalAdmissions(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	l := impatientAt(t, server.Addr)
	const limit = 100
	hits := func(key string) []models.Hit {
		return []models.Hit{
			{Policy: models.Policy{Name: "blocks", Limit: limit, Window: time.Minute, Block: 50}, Key: key},
			{Policy: models.Policy{Name: "exact", Limit: 1000, Window: time.Minute}, Key: key},
		}
	}
	admits := func(key string) (allowed, degraded bool) {
		d := take(t, l, hits(key)...)
		return d[0].Allowed && d[1].Allowed, d[0].Degraded
	}
	for _, key := range []string{"a", "b", "c"} {
		admitted := 0
		for range 33 { // blocks of 1, 2, 4, 8, 16 and 32
			if allowed, _ := admits(key); allowed {
				admitted++
			}
		}
		server.Freeze()
		servicestest.Eventually(t, func() bool { return !l.redis.Available() }, "Redis counts as available")
		for {
			allowed, degraded := admits(key)
			if !degraded {
				t.Fatal("decided by a frozen Redis")
			}
			if !allowed {
				break
			}
			admitted++
		}
		server.Thaw()
		servicestest.Eventually(t, l.redis.Available, "Redis does not count as available")
		for range 40 {
			if allowed, _ := admits(key); allowed {
				admitted++
			}
		}
		if admitted > limit {
			t.Errorf("%d of %d are admitted", admitted, limit)
		}
	}
}
