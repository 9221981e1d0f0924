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

// AccessLog writes one line for each request once it is answered: request id, user, method,
// route, status, duration, client address, and the errors that handlers gave to c.Error. It
// logs the route instead of the URL, and no header: no token or search word reaches the log.
//
// Answers of 500 and above are logged as errors, the quiet routes at debug level. The status
// is 499 where a request failed because its client had left. A nil log is slog.Default.
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
			slog.Float64("took_ms", float64(time.Since(start).Microseconds())/1000), slog.String("ip", c.ClientIP()),
		}
		if len(c.Errors) > 0 {
			fields = append(fields, slog.String("error", strings.Join(c.Errors.Errors(), "; ")))
		}
		log.LogAttrs(c.Request.Context(), level, "request", fields...)
	}
}

// statusClientClosedRequest is nginx's status for a client that did not wait for the answer.
// It is logged, never sent.
const statusClientClosedRequest = 499

// outcome is the status of the answer, or 499 where the request failed because its client
// had left. That is no fault of the server; other errors may have followed from it.
func outcome(c *gin.Context) int {
	status := c.Writer.Status()
	left := func(err *gin.Error) bool { return errors.Is(err, context.Canceled) }
	if status >= http.StatusInternalServerError && c.Request.Context().Err() != nil && slices.ContainsFunc(c.Errors, left) {
		return statusClientClosedRequest
	}
	return status
}
