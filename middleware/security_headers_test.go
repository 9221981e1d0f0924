package middleware_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
)

func securityHeaders(t *testing.T, https bool, path string) http.Header {
	t.Helper()
	gin.SetMode(gin.TestMode)
	r := gin.New()
	r.Use(middleware.SecurityHeaders(https))
	r.GET("/page", func(c *gin.Context) { c.String(http.StatusOK, "page") })
	r.GET("/swagger/*any", func(c *gin.Context) { c.String(http.StatusOK, "docs") })
	w := httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Header()
}

func directives(policy string) map[string]string {
	found := map[string]string{}
	for directive := range strings.SplitSeq(policy, ";") {
		name, sources, _ := strings.Cut(strings.TrimSpace(directive), " ")
		found[name] = sources
	}
	return found
}

func TestContentSecurityPolicy(t *testing.T) {
	want := map[string]string{
		"default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "img-src": "'self' data:", "connect-src": "'self'",
		"form-action": "'self'", "base-uri": "'none'", "frame-ancestors": "'none'",
	}
	for _, path := range []string{"/page", "/nowhere", "/swaggerish/", "/api/swagger/"} {
		got := directives(securityHeaders(t, false, path).Get("Content-Security-Policy"))
		if len(got) != len(want) {
			t.Errorf("%s: %v", path, got)
		}
		for name, sources := range want {
			if got[name] != sources {
				t.Errorf("%s: %s is %q, want %q", path, name, got[name], sources)
			}
		}
	}
	swagger := directives(securityHeaders(t, false, "/swagger/index.html").Get("Content-Security-Policy"))
	if swagger["style-src-attr"] != "'unsafe-inline'" {
		t.Errorf("Swagger UI may not style: %v", swagger)
	}
	delete(swagger, "style-src-attr")
	if own, ok := strings.CutPrefix(swagger["style-src"], "'self' 'sha256-"); !ok || strings.Contains(own, " ") {
		t.Errorf("Swagger UI may style more than by its own element: %v", swagger)
	}
	swagger["style-src"] = "'self'"
	for name, sources := range want { // nothing else is looser
		if swagger[name] != sources {
			t.Errorf("/swagger/: %s is %q, want %q", name, swagger[name], sources)
		}
	}
}

func TestOtherSecurityHeaders(t *testing.T) {
	got := securityHeaders(t, false, "/nowhere")
	for name, want := range map[string]string{
		"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "same-origin",
		"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin", "Strict-Transport-Security": "",
	} {
		if got.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, got.Get(name), want)
		}
	}
	if got := securityHeaders(t, true, "/page").Get("Strict-Transport-Security"); got != "max-age=31536000" {
		t.Errorf("with https, Strict-Transport-Security is %q", got)
	}
}
