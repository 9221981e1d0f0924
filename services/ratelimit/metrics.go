package ratelimit

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"gatehouse/models"
)

// metrics counts by policy, never by key. It also remembers which policies are valid, so
// that each is checked once.
type metrics struct {
	decisions *prometheus.CounterVec
	degraded  *prometheus.CounterVec
	seconds   *prometheus.HistogramVec

	mu       sync.Mutex
	policies atomic.Pointer[map[string]*policyMetrics] // replaced, never changed
}

type policyMetrics struct {
	policy                              models.Policy // found valid
	allowed, denied, shadowed, degraded prometheus.Counter
	seconds                             prometheus.Observer
}

func newMetrics(registerer prometheus.Registerer) *metrics {
	m := &metrics{
		decisions: promauto.With(registerer).NewCounterVec(prometheus.CounterOpts{
			Name: "gatehouse_rate_limit_decisions_total",
			Help: "Rate limit decisions by policy and result: allowed, denied, or shadowed (a shadow policy would have denied).",
		}, []string{"policy", "result"}),
		degraded: promauto.With(registerer).NewCounterVec(prometheus.CounterOpts{
			Name: "gatehouse_rate_limit_degraded_total",
			Help: "Rate limit decisions by policy that were made without Redis.",
		}, []string{"policy"}),
		seconds: promauto.With(registerer).NewHistogramVec(prometheus.HistogramOpts{
			Name:    "gatehouse_rate_limit_decision_seconds",
			Help:    "How long decisions took, by policy: from memory (microseconds), by Redis, or cut off at its timeout.",
			Buckets: []float64{.00001, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25},
		}, []string{"policy"}),
	}
	m.policies.Store(&map[string]*policyMetrics{})
	return m
}

// check returns the policy's counters, or what is wrong with the policy. A limit that differs
// from request to request is still the same policy.
func (m *metrics) check(p *models.Policy) (*policyMetrics, error) {
	known := (*m.policies.Load())[p.Name]
	if known != nil {
		same := known.policy
		same.Limit, same.Block = p.Limit, p.Block
		highest := int64(models.MaxLimit)
		if p.Algorithm == models.AlgorithmSlidingLog {
			highest = models.MaxSlidingLogLimit
		}
		if same == *p && p.Limit >= 1 && p.Limit <= highest && p.Block >= models.BlockAuto && p.Block <= p.Limit {
			return known, nil
		}
	}
	if err := p.Validate(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	found := policyMetrics{
		policy:   *p,
		allowed:  m.decisions.WithLabelValues(p.Name, "allowed"),
		denied:   m.decisions.WithLabelValues(p.Name, "denied"),
		shadowed: m.decisions.WithLabelValues(p.Name, "shadowed"),
		degraded: m.degraded.WithLabelValues(p.Name),
		seconds:  m.seconds.WithLabelValues(p.Name),
	}
	policies := maps.Clone(*m.policies.Load())
	policies[p.Name] = &found
	m.policies.Store(&policies)
	return &found, nil
}

// observe counts how long a decision took.
func (m *policyMetrics) observe(took time.Duration) { m.seconds.Observe(took.Seconds()) }

// count counts a decision. A request that passes counts as allowed only if all of its group do.
func (req *request) count(v result, counted, degraded bool) {
	if req.cost == 0 {
		return
	}
	p := req.metrics
	switch {
	case !v.passes && req.hit.Policy.Shadow:
		p.shadowed.Inc()
	case !v.passes:
		p.denied.Inc()
	case counted:
		p.allowed.Inc()
	}
	if degraded {
		p.degraded.Inc()
	}
}

// countUnavailable counts a decision refused because Redis is away.
func countUnavailable(requests []request) {
	for i := range requests {
		if requests[i].cost > 0 {
			requests[i].metrics.degraded.Inc()
		}
	}
}
