package middleware

import (
	"strings"

	"github.com/gin-gonic/gin"
)

const (
	// Scripts, styles and images are files of this server. Nothing is inline or from another
	// site, and no site may frame a page.
	pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
		"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
	// Swagger UI's page has style attributes; its scripts are files.
	swaggerPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; style-src-attr 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; " +
		"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

// SecurityHeaders makes browsers strict with every answer: a Content-Security-Policy without
// unsafe-inline (but inline styles under /swagger/), no guessing of content types, no
// framing, no referrer for other sites, and with https a year of https only.
//
// The referrer policy is same-origin. With no-referrer, browsers send "Origin: null" with the
// page's own forms, and SameOrigin could not tell them from forms of other sites.
func SecurityHeaders(https bool) gin.HandlerFunc {
	return func(c *gin.Context) {
		policy := pagePolicy
		if strings.HasPrefix(c.Request.URL.Path, "/swagger/") {
			policy = swaggerPolicy
		}
		c.Header("Content-Security-Policy", policy)
		c.Header("X-Content-Type-Options", "nosniff")
		c.Header("X-Frame-Options", "DENY") // for browsers that do not know frame-ancestors
		c.Header("Referrer-Policy", "same-origin")
		c.Header("Cross-Origin-Opener-Policy", "same-origin")
		c.Header("Cross-Origin-Resource-Policy", "same-origin")
		if https {
			c.Header("Strict-Transport-Security", "max-age=31536000")
		}
	}
}
