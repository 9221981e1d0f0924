package middleware

import (
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
)

// AccessLog writes one line per request once it is answered: request id, user,
// method, route, status, duration and client address. It logs the route, not the
// URL, and no header: neither tokens nor what people search for end up in a log.
// What handlers noted with c.Error comes along.
// Answers of 500 and above are errors, what monitoring asks for is debug.
func AccessLog(log *slog.Logger, quietRoutes ...string) gin.HandlerFunc {
	quiet := map[string]bool{}
	for _, route := range quietRoutes {
		quiet[route] = true
	}
	return func(c *gin.Context) {
		start := time.Now()
		c.Next()
		status, level := c.Writer.Status(), slog.LevelInfo
		switch {
		case status >= http.StatusInternalServerError:
			level = slog.LevelError
		case quiet[c.FullPath()]:
			level = slog.LevelDebug
		}
		session, _ := SessionFrom(c)
		fields := []slog.Attr{
			slog.String("requestId", c.Writer.Header().Get(requestIDHeader)), slog.String("user", session.User.ID),
			slog.String("method", c.Request.Method), slog.String("route", c.FullPath()), slog.Int("status", status),
			slog.Duration("took", time.Since(start)), slog.String("ip", c.ClientIP()),
		}
		if len(c.Errors) > 0 {
			fields = append(fields, slog.String("error", strings.Join(c.Errors.Errors(), "; ")))
		}
		log.LogAttrs(c.Request.Context(), level, "request", fields...)
	}
}
