package middleware

import (
	"slices"
	"strings"

	"github.com/gin-gonic/gin"
)

// The parts of an answer that X-Degraded can name.
const (
	DegradedLocks     = "locks"
	DegradedSessions  = "sessions"
	DegradedRateLimit = "rate-limit"
)

const degradedHeader = "X-Degraded"

type degradedKey struct{}

// SetDegradedHeader says in X-Degraded that a part of the answer was made without Redis.
// Each part is named once, in the order above; other parts are ignored. It has no effect
// once the answer has begun.
func SetDegradedHeader(c *gin.Context, part string) {
	known, _ := c.Get(degradedKey{})
	named, _ := known.([]string)
	var parts []string
	for _, p := range [...]string{DegradedLocks, DegradedSessions, DegradedRateLimit} {
		if p == part || slices.Contains(named, p) {
			parts = append(parts, p)
		}
	}
	if len(parts) > len(named) {
		c.Set(degradedKey{}, parts)
		c.Header(degradedHeader, strings.Join(parts, ", "))
	}
}
