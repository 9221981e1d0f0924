package app

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
)

// Behind https no route that changes something takes a request from an http page, also of
// the same host, and each takes the page's own.
func TestEveryUnsafeRouteKnowsItsOrigin(t *testing.T) {
	a := startApp(t, map[string]string{"PUBLIC_URL": "https://gate.example"})
	parameter := regexp.MustCompile(`[:*][a-z]+`)
	token, routes := a.signIn(t, "admin@example.com"), 0
	for _, route := range a.server.Handler.(*gin.Engine).Routes() {
		if route.Method == http.MethodGet || route.Method == http.MethodHead {
			continue
		}
		routes++
		for origin, refused := range map[string]bool{"http://gate.example": true, "https://evil.example": true, "https://gate.example": false} {
			if !refused && strings.HasSuffix(route.Path, "/logout") {
				continue // there would be no session for the others
			}
			for _, host := range []string{"gate.example", "10.0.0.1:8080"} {
				r := httptest.NewRequest(route.Method, parameter.ReplaceAllString(route.Path, "999"), nil)
				r.Host = host
				r.Header.Set("Origin", origin)
				r.Header.Set("X-Forwarded-Proto", "https")
				r.AddCookie(&http.Cookie{Name: "__Host-gatehouse", Value: token})
				w := httptest.NewRecorder()
				a.server.Handler.ServeHTTP(w, r)
				if crossOrigin := w.Code == http.StatusForbidden; crossOrigin != refused {
					t.Errorf("%s %s on %s from %s: %d %s", route.Method, route.Path, host, origin, w.Code, w.Body)
				}
			}
		}
	}
	if routes < 20 {
		t.Errorf("only %d routes", routes)
	}
}
