package middleware

import (
	"strconv"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics measures how long requests took, by method, route and status. The status is 499
// where a request failed because its client had left. All paths without a route count as
// one, so clients cannot add time series. A nil registry registers nothing. A second Metrics on
// one registry needs prometheus.WrapRegistererWith, or it panics.
func Metrics(registry prometheus.Registerer) gin.HandlerFunc {
	took := promauto.With(registry).NewHistogramVec(prometheus.HistogramOpts{
		Name:    "gatehouse_http_request_duration_seconds",
		Help:    "Time from the arrival of a request to its answer, in seconds.",
		Buckets: []float64{0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 5, 30},
	}, []string{"method", "route", "status"})
	return func(c *gin.Context) {
		start := time.Now()
		c.Next()
		method, route := c.Request.Method, c.FullPath()
		if route == "" {
			method, route = "other", "none"
		}
		took.WithLabelValues(method, route, strconv.Itoa(outcome(c))).Observe(time.Since(start).Seconds())
	}
}
