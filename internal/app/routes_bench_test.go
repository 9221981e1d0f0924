package app

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"gatehouse/services/servicestest"
)

// discard is an answer that is not kept.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) WriteHeader(status int)      { d.status = status }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }

// BenchmarkRoutes is what a whole request costs between net/http and Redis: run it with
// -benchmem, or with -memprofile to see where it goes.
func BenchmarkRoutes(b *testing.B) {
	server := servicestest.StartRedis(b)
	a := startApp(b, map[string]string{"REDIS_URL": "redis://" + server.Addr, "LOG_LEVEL": "info"})
	token := a.signIn(b, "alice@example.com")
	id := decoded[struct{ ID string }](b, a.api(token, "POST", "/processes", `{"title": "Measured"}`), http.StatusCreated).ID
	locked := decoded[struct{ LockToken string }](b, a.api(token, "POST", "/processes/"+id+"/lock", ``), http.StatusCreated)
	other := decoded[struct{ ID string }](b, a.api(token, "POST", "/processes", `{"title": "Locked"}`), http.StatusCreated).ID

	request := func(method, path, body string) *http.Request {
		r := httptest.NewRequest(method, "/api/v1"+path, strings.NewReader(body))
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("User-Agent", "benchmark")
		if body != "" {
			r.Header.Set("Content-Type", "application/json")
		}
		return r
	}
	serve := func(b *testing.B, want int, method, path, body string, headers ...string) {
		r := request(method, path, body)
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		b.ReportAllocs()
		for b.Loop() {
			r.Body = http.NoBody
			if body != "" {
				r.Body = readCloser{strings.NewReader(body)}
			}
			r.Header.Del("X-Request-Id")
			w := discard{header: http.Header{}}
			a.server.Handler.ServeHTTP(&w, r)
			if w.status != want && (w.status != 0 || want != http.StatusOK) {
				b.Fatalf("%s %s: %d", method, path, w.status)
			}
		}
	}
	b.Run("GET session", func(b *testing.B) { serve(b, 200, "GET", "/auth/session", "") })
	b.Run("GET process", func(b *testing.B) { serve(b, 200, "GET", "/processes/"+id, "") })
	b.Run("PUT", func(b *testing.B) {
		serve(b, 200, "PUT", "/processes/"+id, `{"title": "Measured", "status": "active", "description": "Often."}`, "X-Lock-Token", locked.LockToken)
	})
	b.Run("lock", func(b *testing.B) { // the same grant again
		serve(b, 201, "POST", "/processes/"+other+"/lock", `{"ttl": 300}`, "Idempotency-Key", "one")
	})
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }
