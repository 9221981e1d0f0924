package lock

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// counters is what a Locker measures by short name and label values; of a histogram the number of
// observations.
func counters(t testing.TB, registry *prometheus.Registry) map[string]float64 {
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

func wantCounters(t testing.TB, registry *prometheus.Registry, want map[string]float64) {
	t.Helper()
	got := counters(t, registry)
	for name, value := range want {
		if counted, ok := got[name]; !ok || counted != value {
			t.Errorf("%s is %v (known: %v), want %v", name, counted, ok, value)
		}
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	start := func(t *testing.T) (*Locker, *prometheus.Registry) {
		t.Helper()
		registry := prometheus.NewRegistry()
		return at(t, server.Addr, patient, Options{Metrics: registry}), registry
	}

	t.Run("count each call once, however often it asks", func(t *testing.T) {
		l, registry := start(t)
		wantCounters(t, registry, map[string]float64{ // all are there from the start
			"waiting": 0, "wait_seconds": 0, "hand_overs": 0, "conflicts": 0,
			"leases_lost expired": 0, "leases_lost revoked": 0, "leases_lost backend": 0,
		})
		taken := take(t, l, request("process:1", alice))
		wantRefused(t, l, "process:1")
		granted := queueFor(t.Context(), t, l, request("process:1", bob))
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan error, 1)
		go func() { gone <- l.WithLock(ctx, request("process:1", bob), nothing) }()
		waiting(t, l, "process:1", 2)
		wantCounters(t, registry, map[string]float64{"waiting": 2, "wait_seconds": 0})
		cancel()
		if err := <-gone; !errors.Is(err, models.ErrNotAcquired) {
			t.Error(err)
		}
		giveBack(t, l, taken)
		taken = <-granted
		extend(t, l, taken, time.Minute)
		wantHolder(t, l, taken)
		force(t, l, "process:1")
		if _, err := l.Release(t.Context(), taken.Claim); !errors.Is(err, models.ErrNotHeld) {
			t.Fatal(err)
		}
		wantCounters(t, registry, map[string]float64{
			"operations acquire done": 2, "operations acquire refused": 2, "operations extend done": 1, "operations check done": 1,
			"operations force done": 1, "operations release done": 1, "operations release refused": 1, "wait_seconds": 1, "waiting": 0,
		})
	})

	t.Run("count what becomes of WithLock's leases", func(t *testing.T) {
		l, registry := start(t)
		const others = 10
		ended := make(chan error, others)
		err := l.WithLock(t.Context(), request("process:2", alice), func(context.Context, Lock) error {
			for range others {
				go func() { ended <- l.WithLock(t.Context(), request("process:2", alice), nothing) }()
			}
			servicestest.Eventually(t, func() bool { return counters(t, registry)["waiting"] == others }, "the others do not wait")
			insiders(t, l, others)
			return nil
		})
		for range others {
			err = errors.Join(err, <-ended)
		}
		if err != nil {
			t.Fatal(err)
		}
		wantCounters(t, registry, map[string]float64{"hand_overs": others, "wait_seconds": 1 + others, "waiting": 0})
	})

	t.Run("count the leases that were lost, by reason", func(t *testing.T) {
		l, registry := start(t)
		err := l.WithLock(t.Context(), request("process:3", alice), func(ctx context.Context, _ Lock) error {
			force(t, l, "process:3")
			<-ctx.Done()
			return nil
		})
		if !errors.Is(err, models.ErrNotHeld) {
			t.Errorf("not lost: %v", err)
		}
		for _, cause := range []error{&LostError{Reason: LostExpired}, &LostError{Reason: LostBackend}, context.Canceled, nil} {
			l.metrics.lease(cause)
		}
		wantCounters(t, registry, map[string]float64{"leases_lost revoked": 1, "leases_lost expired": 1, "leases_lost backend": 1})
	})
}
