package middleware

import (
	"crypto/rand"
	"regexp"

	"github.com/gin-contrib/requestid"
	"github.com/gin-gonic/gin"
)

const requestIDHeader = "X-Request-Id"

// RequestID gives every answer an X-Request-Id: the request's own if it is 1 to
// 64 of A-Z a-z 0-9 . _ -, so that it can be followed through several services
// and yet says nothing harmful in a log; a new random one otherwise.
func RequestID() gin.HandlerFunc {
	harmless := regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	assign := requestid.New(requestid.WithGenerator(rand.Text), requestid.WithCustomHeaderStrKey(requestIDHeader))
	return func(c *gin.Context) {
		if !harmless.MatchString(c.GetHeader(requestIDHeader)) {
			c.Request.Header.Del(requestIDHeader)
		}
		assign(c)
	}
}

// RequestIDFrom is the X-Request-Id of the answer, whoever has put it there; "" if none.
func RequestIDFrom(c *gin.Context) string { return c.Writer.Header().Get(requestIDHeader) }
