package lock_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/lock"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// Two Lockers with prefixes of their own live in one program, on one Redis and on one metrics
// registry, and know nothing of each other.
func TestTwoLockersInOneProgram(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	registry := prometheus.NewRegistry()
	start := func(name string) *lock.Locker {
		metrics := prometheus.WrapRegistererWith(prometheus.Labels{"site": name}, registry)
		rdb := redistest.Start(t, redis.Options{
			Client: rueidis.ClientOption{InitAddress: []string{server.Addr}}, KeyPrefix: name + ":", Metrics: metrics,
		})
		redistest.WaitReady(t, rdb)
		return lock.New(rdb, lock.Options{Logger: redistest.Quiet(), Metrics: metrics})
	}
	shop, desk := start("shop"), start("desk")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	events := desk.Events(ctx)
	inShop := mustAcquire(t, shop, request("process:1", alice))
	inDesk := mustAcquire(t, desk, request("process:1", bob))
	if _, err := desk.Check(t.Context(), inShop.Claim); !errors.Is(err, models.ErrNotHeld) {
		t.Errorf("a claim of the other Locker: %v", err)
	}
	if err := shop.ReleaseUser(t.Context(), bob.UserID); err != nil {
		t.Fatal(err)
	}
	if _, err := shop.Release(t.Context(), inShop.Claim); err != nil {
		t.Fatal(err)
	}
	if _, err := desk.Release(t.Context(), inDesk.Claim); err != nil {
		t.Errorf("the lock of the other Locker: %v", err)
	}
	var seen []string
	for event := range events {
		seen = append(seen, event.Holder.Email)
		if event.Name == models.LockReleased {
			stop()
		}
	}
	if want := []string{bob.Email, bob.Email}; !slices.Equal(seen, want) {
		t.Errorf("events of %q, want %q", seen, want)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sites := map[string]bool{}
	for _, family := range families {
		if family.GetName() != "gatehouse_lock_operations_total" {
			continue
		}
		for _, metric := range family.GetMetric() {
			for _, label := range metric.GetLabel() {
				if label.GetName() == "site" && metric.GetCounter().GetValue() > 0 {
					sites[label.GetValue()] = true
				}
			}
		}
	}
	if !sites["shop"] || !sites["desk"] {
		t.Errorf("counted of %v", sites)
	}
}
