package middleware_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"gatehouse/middleware"
)

func TestWarnUntrustedProxy(t *testing.T) {
	for _, row := range []struct {
		name    string
		header  string
		value   string
		trusted []string
		want    int
	}{
		{"no header", "", "203.0.113.5", nil, 0},
		{"no proxy is trusted", "X-Forwarded-For", "203.0.113.5", nil, 1},
		{"another is trusted", "Forwarded", "203.0.113.5", []string{"198.51.100.0/24"}, 1},
		{"trusted", "X-Forwarded-For", "203.0.113.5", []string{"192.0.2.0/24"}, 0},
		{"trusted, behind another", "X-Forwarded-For", "203.0.113.5:1, 2001:db8::1", []string{"192.0.2.0/24"}, 0},
		{"two trusted, the first with a port", "X-Forwarded-For", "203.0.113.5:1, 192.0.2.9", []string{"192.0.2.0/24"}, 1},
		{"trusted, with a port", "X-Forwarded-For", "203.0.113.5:51234", []string{"192.0.2.0/24"}, 1},
		{"trusted, by another header", "X-Real-IP", "203.0.113.5", []string{"192.0.2.0/24"}, 1},
		{"trusted, by a header that is not read", "Forwarded", "203.0.113.5", []string{"192.0.2.0/24"}, 1},
	} {
		var log bytes.Buffer
		app := appWith(middleware.WarnUntrustedProxy(slog.New(slog.NewTextHandler(&log, nil)), row.trusted))
		for range 3 {
			r := httptest.NewRequest(http.MethodGet, "/", nil) // from 192.0.2.1
			if row.header != "" {
				r.Header.Set(row.header, row.value)
			}
			app.ServeHTTP(httptest.NewRecorder(), r)
		}
		if got := strings.Count(log.String(), "TRUSTED_PROXIES"); got != row.want {
			t.Errorf("%s: %d warnings, want %d: %s", row.name, got, row.want, log.String())
		}
	}
}
