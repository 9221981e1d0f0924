package ratelimit

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// In a Cluster a group of a log, GCRA and blocks, of one key or of several, works like elsewhere.
// It is decided, shown, refunded and reset, and published after an outage.
func TestCluster(t *testing.T) {
	t.Parallel()
	nodes := servicestest.StartCluster(t)
	l, other := limiterAt(t, nodes[0].Addr), limiterAt(t, nodes[0].Addr)
	policies := []models.Policy{
		{Name: "log", Limit: 10, Window: time.Hour},
		{Name: "gcra", Limit: 100, Window: 24 * time.Hour, Algorithm: models.AlgorithmGCRA},
		{Name: "leased", Limit: 10, Window: time.Hour, Block: 1},
	}
	groups := map[string][]models.Hit{}
	for name, keys := range map[string][3]string{"same": {"k", "k", "k"}, "same elsewhere": {"m", "m", "m"}, "different": {"a", "b", "c"}} {
		for i, p := range policies {
			groups[name] = append(groups[name], models.Hit{Policy: p, Key: keys[i]})
		}
	}
	wants := func(name string, l *Limiter, remaining ...int64) {
		t.Helper()
		ds, err := l.Peek(t.Context(), "group", groups[name]...)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for i, d := range ds {
			if d.Degraded || d.Remaining != remaining[i] {
				t.Errorf("%s, %s: %+v, want %d remaining", name, d.Policy.Name, d, remaining[i])
			}
		}
	}
	for name, hits := range groups {
		wants(name, l, 10, 10, 10)
		var taken []models.Decision
		for range 3 {
			taken = take(t, l, hits...)
			for _, d := range taken {
				if !d.Allowed || d.Degraded {
					t.Fatalf("%s: %+v", name, d)
				}
			}
		}
		wants(name, l, 7, 7, 7)
		if err := l.Refund(t.Context(), taken...); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		wants(name, l, 8, 8, 8)
	}
	if err := l.Reset(t.Context(), "group", groups["same"]...); err != nil {
		t.Error(err)
	}
	if err := l.Reset(t.Context(), "group", groups["different"]...); err != nil {
		t.Error(err)
	}
	wants("same", l, 10, 10, 10)
	wants("different", l, 10, 10, 10)
	wants("same elsewhere", other, 8, 8, 7) // the unit given back is still l's to use

	// Single hits at the same time are of different slots: each goes alone.
	release := other.logs.Hold()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			ds, err := other.Take(t.Context(), "group", models.Hit{Policy: policies[i%2], Key: fmt.Sprint("at once ", i)})
			if err != nil || ds[0].Degraded {
				t.Errorf("%+v, %v", ds, err)
			}
		})
	}
	wg.Wait()
	release()

	// Full nodes refuse at once, so the patient limiter waits for none. What a frozen one costs is
	// shown in package services (cluster_test.go) and by TestProofFrozenUnderLoad.
	for _, node := range nodes {
		node.Do("CONFIG", "SET", "maxmemory", "1")
	}
	servicestest.Eventually(t, func() bool {
		take(t, l, models.Hit{Policy: policies[0], Key: "probe"})
		return !l.redis.AnyAvailable()
	}, "the cluster did not count as away")
	for range 2 {
		for _, d := range take(t, l, groups["different"]...) {
			if !d.Allowed || !d.Degraded {
				t.Fatalf("%+v", d)
			}
		}
	}
	for _, node := range nodes {
		node.Do("CONFIG", "SET", "maxmemory", "0")
	}
	servicestest.Eventually(t, func() bool {
		ds, err := other.Peek(t.Context(), "group", groups["different"]...)
		return err == nil && !slices.ContainsFunc(ds, func(d models.Decision) bool { return d.Degraded || d.Remaining > 8 })
	}, "not published")
	wants("different", other, 8, 8, 8)

	// Each node loses what it has: all of it is published again.
	asker := limiterAt(t, nodes[0].Addr)
	for _, node := range nodes {
		node.Do("FLUSHALL")
	}
	for name, remaining := range map[string]int64{"same elsewhere": 8, "different": 8} {
		servicestest.Within(t, time.Second, func() bool {
			ds, err := asker.Peek(t.Context(), "group", groups[name]...)
			return err == nil && !slices.ContainsFunc(ds, func(d models.Decision) bool { return d.Degraded || d.Remaining > remaining })
		}, name+": not published again")
	}
}
