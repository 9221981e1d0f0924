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
	named := append(strings.Split(c.Writer.Header().Get(degradedHeader), ", "), part)
	var parts []string
	for _, known := range []string{DegradedLocks, DegradedSessions, DegradedRateLimit} {
		if slices.Contains(named, known) {
			parts = append(parts, known)
		}
	}
	if len(parts) > 0 {
		c.Header(degradedHeader, strings.Join(parts, ", "))
	}
}
