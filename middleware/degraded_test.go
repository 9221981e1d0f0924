package middleware_test

import (
	"net/http/httptest"
	"testing"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
)

func TestSetDegradedHeader(t *testing.T) {
	for _, row := range []struct {
		parts []string
		want  string
	}{
		{nil, ""},
		{[]string{"other"}, ""},
		{[]string{middleware.DegradedSessions}, "sessions"},
		{[]string{middleware.DegradedRateLimit, middleware.DegradedLocks, middleware.DegradedRateLimit}, "locks, rate-limit"},
		{[]string{middleware.DegradedRateLimit, middleware.DegradedSessions, middleware.DegradedLocks}, "locks, sessions, rate-limit"},
	} {
		w := httptest.NewRecorder()
		c, _ := gin.CreateTestContext(w)
		for _, part := range row.parts {
			middleware.SetDegradedHeader(c, part)
		}
		if got := w.Header().Get("X-Degraded"); got != row.want {
			t.Errorf("%v: %q, want %q", row.parts, got, row.want)
		}
	}
}
