package middleware_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
)

func TestSameOrigin(t *testing.T) {
	const (
		https = "https://gate.example"
		plain = "http://gate.example"
	)
	forwarded := func(proto string) []string {
		return []string{"X-Forwarded-Proto", proto, "X-Forwarded-Host", "gate.example", "Forwarded", "proto=" + proto + ";host=gate.example"}
	}
	for _, row := range []struct {
		name, public, host, origin string
		headers                    []string
		refused                    bool
	}{
		{name: "right", public: https, host: "gate.example", origin: https},
		{name: "no Origin", public: https, host: "gate.example"},
		{name: "http page of an https site", public: https, host: "gate.example", origin: plain, refused: true},
		{name: "http page, proxy says https", public: https, host: "gate.example", origin: plain, headers: forwarded("https"), refused: true},
		{name: "http page, proxy says http", public: https, host: "gate.example", origin: plain, headers: forwarded("http"), refused: true},
		{name: "right, proxy says http", public: https, host: "gate.example", origin: https, headers: forwarded("http")},
		{name: "http page, another host inside", public: https, host: "10.0.0.1:8080", origin: plain, headers: forwarded("https"), refused: true},
		{name: "right, another host inside", public: https, host: "10.0.0.1:8080", origin: https, headers: forwarded("https")},
		{name: "https by another name of the host", public: https, host: "other.example", origin: "https://other.example"},
		{name: "http by another name of the host", public: https, host: "other.example", origin: "http://other.example", refused: true},
		{name: "another scheme", public: https, host: "gate.example", origin: "ftp://gate.example", refused: true},
		{name: "null", public: https, host: "gate.example", origin: "null", refused: true},
		{name: "null, on a plain site", public: plain, host: "gate.example", origin: "null", refused: true},
		{name: "null, that the browser calls cross-site", public: plain, host: "gate.example", origin: "null", headers: []string{"Sec-Fetch-Site", "cross-site"}, refused: true},
		{name: "another port", public: https, host: "gate.example", origin: "https://gate.example:8443", refused: true},
		{name: "another site", public: https, host: "gate.example", origin: "https://evil.example", refused: true},
		{name: "named by the proxy alone", public: https, host: "10.0.0.1", origin: "https://evil.example", headers: []string{"X-Forwarded-Host", "evil.example"}, refused: true},
		{name: "Sec-Fetch-Site knows better", public: https, host: "gate.example", origin: plain, headers: []string{"Sec-Fetch-Site", "same-origin"}},
		{name: "cross-site", public: https, host: "gate.example", headers: []string{"Sec-Fetch-Site", "cross-site"}, refused: true},
		{name: "same-site, which is another origin", public: https, host: "gate.example", origin: plain, headers: []string{"Sec-Fetch-Site", "same-site"}, refused: true},
		{name: "Bearer", public: https, host: "gate.example", origin: plain, headers: []string{"Authorization", "Bearer x"}},
		{name: "public URL in a form that no browser sends", public: "https://Gate.Example:443", host: "10.0.0.1", origin: https},
		{name: "the same without https", public: "http://Gate.Example:80", host: "10.0.0.1", origin: plain},
		{name: "plain site", public: plain, host: "gate.example", origin: plain},
		{name: "https where the public URL forgets it", public: plain, host: "gate.example", origin: https},
	} {
		router := gin.New()
		router.Use(middleware.SameOrigin(row.public))
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
			router.Handle(method, "/", func(*gin.Context) {})
			r := httptest.NewRequest(method, "/", nil)
			r.Host = row.host
			if row.origin != "" {
				r.Header.Set("Origin", row.origin)
			}
			for i := 0; i < len(row.headers); i += 2 {
				r.Header.Set(row.headers[i], row.headers[i+1])
			}
			w := httptest.NewRecorder()
			router.ServeHTTP(w, r)
			if want := row.refused && method != http.MethodGet; want != (w.Code == http.StatusForbidden) {
				t.Errorf("%s: %s: %d", row.name, method, w.Code)
			}
		}
	}
}
