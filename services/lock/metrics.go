package lock

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"gatehouse/models"
)

// metrics counts over all resources, never per resource.
type metrics struct {
	operations map[[2]string]prometheus.Counter // by operation and outcome
	conflicts  prometheus.Counter
	waiting    prometheus.Gauge
	waited     prometheus.Histogram
	lost       map[Loss]prometheus.Counter
	handOvers  prometheus.Counter
}

func newMetrics(registerer prometheus.Registerer) *metrics {
	with := promauto.With(registerer)
	m := &metrics{operations: map[[2]string]prometheus.Counter{}, lost: map[Loss]prometheus.Counter{}}
	operations := with.NewCounterVec(prometheus.CounterOpts{
		Name: "gatehouse_lock_operations_total",
		Help: "Lock operations by how they ended, waiting included: done, refused, degraded or unavailable.",
	}, []string{"operation", "outcome"})
	for _, operation := range []string{"acquire", "extend", "check", "release", "force", "replace"} {
		for _, outcome := range []string{"done", "refused", "degraded", "unavailable"} {
			m.operations[[2]string{operation, outcome}] = operations.WithLabelValues(operation, outcome)
		}
	}
	m.conflicts = with.NewCounter(prometheus.CounterOpts{
		Name: "gatehouse_lock_conflicts_total",
		Help: "Locks that could not be reasserted when Redis returned: another holder had them, or they had ended.",
	})
	m.waiting = with.NewGauge(prometheus.GaugeOpts{
		Name: "gatehouse_lock_waiting",
		Help: "Waiters for a lock in this instance now.",
	})
	m.waited = with.NewHistogram(prometheus.HistogramOpts{
		Name:    "gatehouse_lock_wait_seconds",
		Help:    "How long waiters that were granted the lock had waited, in the queue or in the instance.",
		Buckets: []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
	})
	lost := with.NewCounterVec(prometheus.CounterOpts{
		Name: "gatehouse_lock_leases_lost_total",
		Help: "Leases of WithLock that ended before the work did, by reason: expired (the longest hold was reached), revoked, or backend (Redis could not be asked in time).",
	}, []string{"reason"})
	for _, reason := range []Loss{LostExpired, LostRevoked, LostBackend} {
		m.lost[reason] = lost.WithLabelValues(string(reason))
	}
	m.handOvers = with.NewCounter(prometheus.CounterOpts{
		Name: "gatehouse_lock_hand_overs_total",
		Help: "Leases of WithLock handed over within this instance, without asking Redis.",
	})
	return m
}

func (l *Locker) count(operation, outcome string) {
	l.metrics.operations[[2]string{operation, outcome}].Inc()
}

// countAcquire counts an acquire by what its caller gets.
func (l *Locker) countAcquire(lock Lock, err error) {
	if err == nil && !lock.Degraded {
		l.count("acquire", "done")
		return
	}
	var refused *models.NotAcquiredError
	switch {
	case err == nil, errors.As(err, &refused) && refused.Status.Degraded:
		l.count("acquire", "degraded")
	case errors.Is(err, models.ErrNotAcquired) && !errors.Is(err, models.ErrUnavailable):
		l.count("acquire", "refused")
	default:
		l.count("acquire", "unavailable")
	}
}

// wait counts one who waits until it is called with what came of it.
func (m *metrics) wait() (done func(err error)) {
	start := time.Now()
	m.waiting.Inc()
	return func(err error) {
		m.waiting.Dec()
		if err == nil {
			m.waited.Observe(time.Since(start).Seconds())
		}
	}
}

// lease counts one that is over, if it was lost.
func (m *metrics) lease(cause error) {
	var lost *LostError
	if errors.As(cause, &lost) {
		m.lost[lost.Reason].Inc()
	}
}
