package lock

import (
	"errors"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// Two Lockers with prefixes of their own live in one program, on one Redis and on one metrics
// registry, and know nothing of each other.
func TestTwoLockersInOneProgram(t *testing.T) {
	t.Parallel()
	server, registry := servicestest.StartRedis(t), prometheus.NewRegistry()
	start := func(name string) *Locker {
		metrics := prometheus.WrapRegistererWith(prometheus.Labels{"site": name}, registry)
		rdb := redistest.Start(t, redis.Options{
			Client: rueidis.ClientOption{InitAddress: []string{server.Addr}}, KeyPrefix: name + ":", Metrics: metrics, Timeout: patient,
		})
		redistest.WaitReady(t, rdb)
		return New(rdb, Options{Logger: redistest.Quiet(), Metrics: metrics})
	}
	shop, desk := start("shop"), start("desk")
	events := listen(t, desk)
	inShop, inDesk := take(t, shop, request("process:1", alice)), take(t, desk, request("process:1", bob))
	if _, err := desk.Check(t.Context(), inShop.Claim); !errors.Is(err, models.ErrNotHeld) {
		t.Errorf("a claim of the other Locker: %v", err)
	}
	if _, err := shop.ReleaseUser(t.Context(), bob.UserID); err != nil {
		t.Fatal(err)
	}
	giveBack(t, shop, inShop)
	giveBack(t, desk, inDesk)
	for _, want := range []string{models.LockAcquired, models.LockReleased} {
		if e, _ := events.next(); e.Name != want || e.Holder.Email != bob.Email {
			t.Errorf("event %+v, want %s of the own Locker", e, want)
		}
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
