package services

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"gatehouse/models"
)

// limitMetrics counts per policy, never per key. It also remembers which
// policies are valid, so that each is checked once.
type limitMetrics struct {
	decisions *prometheus.CounterVec
	degraded  *prometheus.CounterVec

	mu       sync.RWMutex
	policies map[string]*policyMetrics
}

type policyMetrics struct {
	policy                              models.Policy // the latest found valid
	allowed, denied, shadowed, degraded prometheus.Counter
}

func newLimitMetrics(registerer prometheus.Registerer) *limitMetrics {
	return &limitMetrics{
		decisions: promauto.With(registerer).NewCounterVec(prometheus.CounterOpts{
			Name: "gatehouse_rate_limit_decisions_total",
			Help: "Rate limit decisions by policy and result: allowed, denied, or shadowed (a shadow policy would have denied).",
		}, []string{"policy", "result"}),
		degraded: promauto.With(registerer).NewCounterVec(prometheus.CounterOpts{
			Name: "gatehouse_rate_limit_degraded_total",
			Help: "Rate limit decisions by policy that were made without Redis.",
		}, []string{"policy"}),
		policies: map[string]*policyMetrics{},
	}
}

// check is nil if the policy is valid.
func (m *limitMetrics) check(p models.Policy) error {
	m.mu.RLock()
	known, found := m.policies[p.Name]
	valid := found && known.policy == p
	m.mu.RUnlock()
	if valid {
		return nil
	}
	if err := p.Validate(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if known := m.policies[p.Name]; known != nil {
		known.policy = p
		return nil
	}
	m.policies[p.Name] = &policyMetrics{
		policy:   p,
		allowed:  m.decisions.WithLabelValues(p.Name, "allowed"),
		denied:   m.decisions.WithLabelValues(p.Name, "denied"),
		shadowed: m.decisions.WithLabelValues(p.Name, "shadowed"),
		degraded: m.degraded.WithLabelValues(p.Name),
	}
	return nil
}

// of is the policy's counters. The policy was checked.
func (m *limitMetrics) of(a ask) *policyMetrics {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.policies[a.hit.Policy.Name]
}

// count counts a decision. A hit that passed is counted as allowed only if the
// whole decision was.
func (m *limitMetrics) count(a ask, v verdict, counted, degraded bool) {
	if a.cost == 0 {
		return
	}
	p := m.of(a)
	switch {
	case !v.passes && a.hit.Policy.Shadow:
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

// unavailable counts a decision refused because Redis is away.
func (m *limitMetrics) unavailable(asks []ask) {
	for _, a := range asks {
		if a.cost > 0 {
			m.of(a).degraded.Inc()
		}
	}
}
