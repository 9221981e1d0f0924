package middleware

import (
	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"
)

// Sessions replaces sessions.Sessions of gin-contrib: sessions.Default(c) works the same after
// it. It loads the session before the handlers run. If the store fails it answers 503
// unavailable; the original would go on with an empty session, as if all users were signed
// out. It takes any Store. It panics without one or without a name: that is a mistake in the
// program.
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
