package redis

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// registerMetrics registers the collectors. A nil registerer registers none.
func (r *Client) registerMetrics(registerer prometheus.Registerer) {
	calls := promauto.With(registerer).NewCounterVec(prometheus.CounterOpts{
		Name: "gatehouse_redis_calls_total",
		Help: "Redis calls by result: ok, failed, timeout, or skipped because Redis was known to be away.",
	}, []string{"result"})
	r.calls.ok, r.calls.failed = calls.WithLabelValues("ok"), calls.WithLabelValues("failed")
	r.calls.timeout, r.calls.skipped = calls.WithLabelValues("timeout"), calls.WithLabelValues("skipped")
	promauto.With(registerer).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "gatehouse_redis_up",
		Help: "1 while all of Redis is used, 0 while it or a node of it is away, or it is disabled.",
	}, func() float64 { return oneIf(r.Status() == "ok" || r.Status() == "embedded") })
	if registerer != nil {
		registerer.MustRegister(nodeCollector{client: r, up: prometheus.NewDesc("gatehouse_redis_node_up",
			"1 while a node of Redis is used, 0 while it is away, with its state: ok, slow, mute, gone, timeout, permission, incapable, ...",
			[]string{"node", "state"}, nil)})
	}
}

func oneIf(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// nodeCollector reports the nodes of the moment: in a Cluster they come and go.
type nodeCollector struct {
	client *Client
	up     *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c nodeCollector) Describe(described chan<- *prometheus.Desc) { described <- c.up }

// Collect implements prometheus.Collector.
func (c nodeCollector) Collect(collected chan<- prometheus.Metric) {
	for _, n := range c.client.Nodes() {
		collected <- prometheus.MustNewConstMetric(c.up, prometheus.GaugeValue, oneIf(n.Up), n.Name, string(n.State))
	}
}
