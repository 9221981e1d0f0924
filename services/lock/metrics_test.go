package lock_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gatehouse/models"
	"gatehouse/services/lock"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// lockCounters is what a Locker measures by short name and label values; of a
// histogram the number of observations.
func lockCounters(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]float64{}
	for _, family := range families {
		name, ok := strings.CutPrefix(family.GetName(), "gatehouse_lock_")
		if !ok {
			t.Errorf("%s is not a lock's", family.GetName())
		}
		for _, m := range family.GetMetric() {
			labels := strings.TrimSuffix(name, "_total")
			for _, label := range m.GetLabel() {
				labels += " " + label.GetValue()
				if strings.Contains(label.GetValue(), "process:") {
					t.Errorf("%s is counted per resource", name)
				}
			}
			found[labels] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return found
}

func wantCounters(t *testing.T, registry *prometheus.Registry, want map[string]float64) {
	t.Helper()
	got := lockCounters(t, registry)
	for name, value := range want {
		if counted, ok := got[name]; !ok || counted != value {
			t.Errorf("%s is %v (known: %v), want %v", name, counted, ok, value)
		}
	}
}

func TestLockMetrics(t *testing.T) {
	server := servicestest.StartRedis(t)
	registry := prometheus.NewRegistry()
	redis := redistest.Patient(t, server.Addr)
	l := lock.New(redis, lock.Options{Metrics: registry, Logger: redistest.Quiet()})
	wantCounters(t, registry, map[string]float64{ // all are there from the start
		"waiting": 0, "wait_seconds": 0, "hand_overs": 0, "conflicts": 0,
		"leases_lost expired": 0, "leases_lost revoked": 0, "leases_lost backend": 0,
	})
	taken := mustAcquire(t, l, request("process:1", alice))
	_, _ = l.TryAcquire(t.Context(), request("process:1", bob))
	granted, gone := make(chan lock.Lock, 1), make(chan error, 1)
	go func() {
		next, err := l.Acquire(t.Context(), request("process:1", bob))
		if err != nil {
			t.Error(err)
		}
		granted <- next
	}()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		gone <- l.WithLock(ctx, request("process:1", bob), func(context.Context, lock.Lock) error { return nil })
	}()
	waitFor(t, l, 2)
	wantCounters(t, registry, map[string]float64{"waiting": 2, "wait_seconds": 0})
	cancel()
	if err := <-gone; !errors.Is(err, models.ErrNotAcquired) {
		t.Error(err)
	}
	if _, err := l.Release(t.Context(), taken.Claim); err != nil {
		t.Fatal(err)
	}
	taken = <-granted
	servicestest.Within(t, time.Second, func() bool { return lockCounters(t, registry)["waiting"] == 0 }, "still waiting")
	if _, err := l.Extend(t.Context(), taken.Claim, time.Minute); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Check(t.Context(), taken.Claim); err != nil {
		t.Fatal(err)
	}
	if _, err := l.ForceRelease(t.Context(), "process:1", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Release(t.Context(), taken.Claim); !errors.Is(err, models.ErrNotHeld) {
		t.Fatal(err)
	}
	wantCounters(t, registry, map[string]float64{ // once for each call, however often it asked
		"operations acquire done": 2, "operations acquire refused": 2, "operations extend done": 1, "operations check done": 1, "operations force done": 1,
		"operations release done": 1, "operations release refused": 1, "wait_seconds": 1, "waiting": 0,
	})
}

// What becomes of WithLock's leases is counted.
func TestWithLockMetrics(t *testing.T) {
	server := servicestest.StartRedis(t)
	registry := prometheus.NewRegistry()
	l := lock.New(redistest.New(t, server.Addr), lock.Options{Metrics: registry, MaxHold: 500 * time.Millisecond, Logger: redistest.Quiet()})
	until := func(reason lock.Loss, lose func()) {
		t.Helper()
		err := l.WithLock(t.Context(), request("process:1", alice), func(ctx context.Context, _ lock.Lock) error {
			lose()
			<-ctx.Done()
			return nil
		})
		var lost *lock.LostError
		if !errors.As(err, &lost) || lost.Reason != reason {
			t.Fatalf("%v, want %s", err, reason)
		}
	}
	until(lock.LostRevoked, func() { _, _ = l.ForceRelease(t.Context(), "process:1", nil) })
	until(lock.LostExpired, func() {})
	const others = 10
	ended := make(chan error, others)
	err := l.WithLock(t.Context(), request("process:2", alice), func(context.Context, lock.Lock) error {
		for range others {
			go func() {
				ended <- l.WithLock(t.Context(), request("process:2", alice), func(context.Context, lock.Lock) error { return nil })
			}()
		}
		servicestest.Eventually(t, func() bool { return lockCounters(t, registry)["waiting"] == others }, "the others do not wait")
		return nil
	})
	for range others {
		err = errors.Join(err, <-ended)
	}
	if err != nil {
		t.Fatal(err)
	}
	wantCounters(t, registry, map[string]float64{
		"leases_lost revoked": 1, "leases_lost expired": 1, "leases_lost backend": 0, "wait_seconds": 3 + others, "waiting": 0,
	})
	if n := lockCounters(t, registry)["hand_overs"]; n < 1 || n > others {
		t.Errorf("%v hand-overs for %d who waited", n, others)
	}
	until(lock.LostBackend, server.Freeze)
	server.Thaw()
	wantCounters(t, registry, map[string]float64{"leases_lost backend": 1})
}
