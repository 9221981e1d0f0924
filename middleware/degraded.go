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

var (
	degradedOrder = []string{DegradedLocks, DegradedSessions, DegradedRateLimit}
	// degradedAlone is the header's value for one part: all answers share it.
	degradedAlone = map[string][]string{
		DegradedLocks: {DegradedLocks}, DegradedSessions: {DegradedSessions}, DegradedRateLimit: {DegradedRateLimit},
	}
)

// MarkDegraded says in X-Degraded that part of the answer was made without
// Redis. Each part is named once, in the order above; other parts are ignored.
// It has no effect once the answer was begun.
func MarkDegraded(c *gin.Context, part string) {
	header := c.Writer.Header()
	before := header[degradedHeader]
	if before == nil { // as nearly always
		if value := degradedAlone[part]; value != nil {
			header[degradedHeader] = value
		}
		return
	}
	named := append(strings.Split(strings.Join(before, ", "), ", "), part)
	var parts []string
	for _, known := range degradedOrder {
		if slices.Contains(named, known) {
			parts = append(parts, known)
		}
	}
	header.Set(degradedHeader, strings.Join(parts, ", "))
}
