package middleware

import (
	"crypto/rand"

	"github.com/gin-gonic/gin"

	"gatehouse/models"
)

const requestIDHeader = "X-Request-Id"

// RequestID gives every answer an X-Request-Id: the request's own if it is 1 to 64 of
// A-Z a-z 0-9 . _ -, else a new random one. So one ID can go through several services, and
// a client cannot put anything harmful into a log.
func RequestID() gin.HandlerFunc {
	return func(c *gin.Context) {
		id := c.GetHeader(requestIDHeader)
		if models.IsName(id, "._-") {
			c.Header(requestIDHeader, id)
			return
		}
		made := []string{rand.Text()}
		c.Request.Header[requestIDHeader] = made // for what handlers send on
		c.Writer.Header()[requestIDHeader] = made
	}
}

// RequestIDFrom is the X-Request-Id of the answer, "" if it has none. Any middleware may have
// set it.
func RequestIDFrom(c *gin.Context) string { return c.Writer.Header().Get(requestIDHeader) }
