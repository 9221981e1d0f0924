package middleware

import (
	"cmp"
	"log/slog"
	"net/http"
	"runtime/debug"

	"github.com/gin-gonic/gin"

	"gatehouse/models"
)

// Recovery answers 500 when a handler panics, and logs the cause and the stack. The answer
// shows neither. It panics again with http.ErrAbortHandler, which is for net/http. A nil log
// is slog.Default.
func Recovery(log *slog.Logger) gin.HandlerFunc {
	log = cmp.Or(log, slog.Default())
	return func(c *gin.Context) {
		defer func() {
			cause := recover()
			if cause == nil {
				return
			}
			if cause == http.ErrAbortHandler { //nolint:errorlint // the sentinel itself is what net/http compares
				panic(cause)
			}
			log.ErrorContext(c.Request.Context(), "panic", "cause", cause, "route", c.FullPath(),
				"requestId", RequestIDFrom(c), "stack", string(debug.Stack()))
			WriteProblem(c, models.NewProblem("internal", "This is a fault of the server. Report it with the requestId."))
		}()
		c.Next()
	}
}
