package middleware

import (
	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"
)

// Sessions stands in for sessions.Sessions of gin-contrib: sessions.Default(c)
// works the same after it. But where that hands over an empty session when the
// store cannot be asked, so that everybody looks signed out, this answers 503.
// It loads the session before the handlers run. Any Store will do; without one it
// panics, and without a name: that is a mistake in the program.
func Sessions(name string, store sessions.Store) gin.HandlerFunc {
	if name == "" {
		panic("middleware.Sessions: no name")
	}
	mustHave("Sessions", "Store", store)
	original := sessions.Sessions(name, store)
	return func(c *gin.Context) {
		if _, err := store.Get(c.Request, name); err != nil {
			_ = c.Error(err)
			refuseSessionUnknown(c)
			return
		}
		original(c)
	}
}
