package middleware

import (
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"
)

const (
	// Scripts, styles and images are files of this server. Nothing is inline or from another
	// site, and no site may frame a page.
	pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
		"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
	// Swagger UI's page has style attributes; its scripts are files.
	// It makes one style element itself, which the hash lets pass.
	swaggerPolicy = "default-src 'none'; script-src 'self'; style-src 'self' 'sha256-RL3ie0nH+Lzz2YNqQN83mnU0J1ot4QL7b99vMdIX99w='; style-src-attr 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; " +
		"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

// SecurityHeaders makes browsers strict with every answer: a Content-Security-Policy without
// unsafe-inline (but inline styles under /swagger/), no guessing of content types, no
// framing, no referrer for other sites, and with https a year of https only.
//
// The referrer policy is same-origin. With no-referrer, browsers send "Origin: null" with the
// page's own forms, and SameOrigin could not tell them from forms of other sites.
func SecurityHeaders(https bool) gin.HandlerFunc {
	// The spelling is net/http's, and all answers share the values: nothing is made for each.
	type header struct {
		name  string
		value []string
	}
	one := func(name, value string) header { return header{http.CanonicalHeaderKey(name), []string{value}} }
	page, swagger := one("Content-Security-Policy", pagePolicy), one("Content-Security-Policy", swaggerPolicy)
	always := []header{
		one("X-Content-Type-Options", "nosniff"),
		one("X-Frame-Options", "DENY"), // for browsers that do not know frame-ancestors
		one("Referrer-Policy", "same-origin"),
		one("Cross-Origin-Opener-Policy", "same-origin"),
		one("Cross-Origin-Resource-Policy", "same-origin"),
	}
	if https {
		always = append(always, one("Strict-Transport-Security", "max-age=31536000"))
	}
	return func(c *gin.Context) {
		answer, policy := c.Writer.Header(), page
		if strings.HasPrefix(c.Request.URL.Path, "/swagger/") {
			policy = swagger
		}
		answer[policy.name] = policy.value
		for _, h := range always {
			answer[h.name] = h.value
		}
	}
}
