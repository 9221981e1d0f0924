package middleware

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
)

// AccessLog writes one line per request once it is answered: request id, user,
// method, route, status, duration and client address. It logs the route, not the
// URL, and no header: neither tokens nor what people search for end up in a log.
// What handlers noted with c.Error comes along.
// Answers of 500 and above are errors, what monitoring asks for is debug. The status
// is 499 if it failed because the client had left. A nil log is slog.Default.
func AccessLog(log *slog.Logger, quietRoutes ...string) gin.HandlerFunc {
	log = cmp.Or(log, slog.Default())
	quiet := map[string]bool{}
	for _, route := range quietRoutes {
		quiet[route] = true
	}
	return func(c *gin.Context) {
		start := time.Now()
		c.Next()
		status, level := outcome(c), slog.LevelInfo
		switch {
		case status >= http.StatusInternalServerError:
			level = slog.LevelError
		case quiet[c.FullPath()]:
			level = slog.LevelDebug
		}
		session, _ := SessionFrom(c)
		fields := []slog.Attr{
			slog.String("requestId", RequestIDFrom(c)), slog.String("user", session.User.ID),
			slog.String("method", c.Request.Method), slog.String("route", c.FullPath()), slog.Int("status", status),
			slog.Duration("took", time.Since(start)), slog.String("ip", c.ClientIP()),
		}
		if len(c.Errors) > 0 {
			fields = append(fields, slog.String("error", strings.Join(c.Errors.Errors(), "; ")))
		}
		log.LogAttrs(c.Request.Context(), level, "request", fields...)
	}
}

// statusClientClosedRequest is nginx's number for a client that did not wait for
// its answer; it is logged, never sent.
const statusClientClosedRequest = 499

// outcome is the status of the answer, or 499 for one that failed because the client
// had left: that is no fault of the server. Other errors may have followed from it.
func outcome(c *gin.Context) int {
	status := c.Writer.Status()
	left := func(err *gin.Error) bool { return errors.Is(err, context.Canceled) }
	if status >= http.StatusInternalServerError && c.Request.Context().Err() != nil && slices.ContainsFunc(c.Errors, left) {
		return statusClientClosedRequest
	}
	return status
}
