package middleware

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/gin-gonic/gin"

	"gatehouse/models"
)

// ByUser counts each signed-in user, and each client address of requests without a session.
// It needs LookUp or LoadSession before it.
func ByUser(c *gin.Context) string {
	if session, ok := SessionFrom(c); ok && session.User.ID != "" {
		return "user:" + session.User.ID
	}
	return "anonymous:" + ClientNetwork(c)
}

// ByClientIP counts each client address: see ClientNetwork.
func ByClientIP(c *gin.Context) string { return "ip:" + ClientNetwork(c) }

// ByHeader counts each value of a request header, and each client address of requests without
// the header. A value may be a secret, so the key holds only its hash. It panics without a
// name: that is a mistake in the program.
func ByHeader(name string) func(*gin.Context) string {
	if name == "" {
		panic("middleware.ByHeader: no name")
	}
	prefix := "header:" + strings.ToLower(name) + ":"
	return func(c *gin.Context) string {
		if value := c.GetHeader(name); value != "" {
			sum := sha256.Sum256([]byte(value))
			return prefix + hex.EncodeToString(sum[:16])
		}
		return "no-" + prefix + ClientNetwork(c)
	}
}

// ByRoute counts each route, for all clients together; all paths without a route are one.
func ByRoute(c *gin.Context) string { return "route:" + c.Request.Method + ":" + c.FullPath() }

// Role is the highest role of the signed-in user, empty without one. It serves as a Tier, and
// needs LookUp or LoadSession before it.
func Role(c *gin.Context) string {
	session, _ := SessionFrom(c)
	return models.HighestRole(session.Roles)
}
