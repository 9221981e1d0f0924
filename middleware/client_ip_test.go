package middleware_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
)

func TestClientNetwork(t *testing.T) {
	for _, row := range []struct {
		name, remote, forwarded string
		proxies                 []string
		want                    string
	}{
		{"IPv4", "192.0.2.7:1234", "", nil, "192.0.2.7"},
		{"IPv4 in IPv6", "[::ffff:192.0.2.7]:1234", "", nil, "192.0.2.7"},
		{"IPv6", "[2001:db8:1:2fff:aaaa::1]:1234", "", nil, "2001:db8:1:2f00::/56"},
		{"IPv6, a neighbour in the same /56", "[2001:db8:1:2f01::2]:1234", "", nil, "2001:db8:1:2f00::/56"},
		{"a header from a peer that is not trusted", "192.0.2.7:1234", "198.51.100.1", nil, "192.0.2.7"},
		{"a trusted proxy", "192.0.2.7:1234", "198.51.100.1", []string{"192.0.2.0/24"}, "198.51.100.1"},
		{"a trusted proxy, what came before it", "192.0.2.7:1234", "203.0.113.9, 198.51.100.1", []string{"192.0.2.7"}, "198.51.100.1"},
		{"no address", "@", "", nil, ""},
	} {
		c, app := gin.CreateTestContext(httptest.NewRecorder())
		if err := app.SetTrustedProxies(row.proxies); err != nil {
			t.Fatal(err)
		}
		c.Request = httptest.NewRequest(http.MethodGet, "/", nil)
		c.Request.RemoteAddr = row.remote
		if row.forwarded != "" {
			c.Request.Header.Set("X-Forwarded-For", row.forwarded)
		}
		if got := middleware.ClientNetwork(c); got != row.want {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
	}
}
