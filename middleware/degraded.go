package middleware

import (
	"slices"
	"strings"

	"github.com/gin-gonic/gin"
)

// The parts of an answer that can be made without Redis.
const (
	DegradedLocks     = "locks"
	DegradedSessions  = "sessions"
	DegradedRateLimit = "rate-limit"
)

const degradedHeader = "X-Degraded"

// MarkDegraded says in X-Degraded that part of the answer was made without
// Redis. Each part is named once, in the order above; other parts are ignored.
// It has no effect once the answer was begun.
func MarkDegraded(c *gin.Context, part string) {
	order := []string{DegradedLocks, DegradedSessions, DegradedRateLimit}
	before := c.Writer.Header()[degradedHeader]
	if before == nil && slices.Contains(order, part) { // as always but with several parts
		c.Writer.Header()[degradedHeader] = []string{part}
		return
	}
	named := append(strings.Split(strings.Join(before, ", "), ", "), part)
	var parts []string
	for _, known := range order {
		if slices.Contains(named, known) {
			parts = append(parts, known)
		}
	}
	if len(parts) > 0 {
		c.Header(degradedHeader, strings.Join(parts, ", "))
	}
}
