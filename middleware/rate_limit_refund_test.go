package middleware_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/redis/rueidis"

	"gatehouse/middleware"
	"gatehouse/services/ratelimit"
	"gatehouse/services/ratelimit/policyfile"
	"gatehouse/services/redis"
	"gatehouse/services/servicestest"
)

func limiterOn(t *testing.T, server *servicestest.RedisServer) *ratelimit.Limiter {
	t.Helper()
	rdb := redis.New(redis.Options{Client: rueidis.ClientOption{InitAddress: []string{server.Addr}}, Timeout: time.Minute})
	t.Cleanup(func() { _ = rdb.Close(context.Background()) })
	rdb.WaitReady(t.Context())
	return ratelimit.New(rdb, ratelimit.Options{})
}

// A policy that a policy file adds to another one is skipped, shown and refunded with it.
func TestRateLimitCompanionsFollowTheirPolicy(t *testing.T) {
	set, err := policyfile.Parse("p.yaml", []byte(`policies:
  - {name: base-burst, with: base, limit: 5, window: 1h}
  - {name: all-burst, with: all, limit: 5, window: 1h}
`), map[string][]string{"base": nil, "all": nil})
	if err != nil {
		t.Fatal(err)
	}
	server := servicestest.StartRedis(t)
	limiter := limiterOn(t, server)
	limiter.Configure(set)
	for i, row := range []struct {
		name    string
		change  func(*middleware.Policy)
		headers string // RateLimit-Policy
		units   string // of base-burst at Redis after 3 requests
	}{
		{"as they are", func(*middleware.Policy) {}, `"base";q=9;w=60, "all";q=9;w=60, "base-burst";q=5;w=3600, "all-burst";q=5;w=3600`, "3"},
		{"refunded", func(p *middleware.Policy) { p.SkipSuccessful = true }, `"base";q=9;w=60, "all";q=9;w=60, "base-burst";q=5;w=3600, "all-burst";q=5;w=3600`, "0"},
		{"not refunded", func(p *middleware.Policy) { p.SkipFailed = true }, `"base";q=9;w=60, "all";q=9;w=60, "base-burst";q=5;w=3600, "all-burst";q=5;w=3600`, "3"},
		{"not shown", func(p *middleware.Policy) { p.Headers = middleware.NoHeaders }, `"all";q=9;w=60, "all-burst";q=5;w=3600`, "3"},
		{"skipped", func(p *middleware.Policy) { p.Skip = func(*gin.Context) bool { return true } }, `"all";q=9;w=60, "all-burst";q=5;w=3600`, "0"},
	} {
		base := perMinute("base", 9)
		row.change(&base)
		address := fmt.Sprintf("192.0.2.%d", i+1)
		app := appWith(middleware.RateLimit(limiter, base, perMinute("all", 9)))
		for range 3 {
			r, w := httptest.NewRequest(http.MethodGet, "/", nil), httptest.NewRecorder()
			r.RemoteAddr = address + ":1234"
			app.ServeHTTP(w, r)
			wantHeaders(t, w, map[string]string{"RateLimit-Policy": row.headers})
		}
		for policy, want := range map[string]string{"base-burst": row.units, "all-burst": "3"} {
			if got := server.Do("ZCARD", "{ip:"+address+"}rate:log:"+policy+":ip:"+address); got != want {
				t.Errorf("%s: %s has %s units, want %s", row.name, policy, got, want)
			}
		}
	}
}

// What an answer does not cost is gone from Redis when the answer is there.
func TestRateLimitSkipsByOutcomeInRedis(t *testing.T) {
	server := servicestest.StartRedis(t)
	limiter := limiterOn(t, server)
	failures, successes, all := perMinute("failures-only", 9), perMinute("successes-only", 9), perMinute("all", 9)
	failures.SkipSuccessful, successes.SkipFailed = true, true
	app := gin.New()
	app.GET("/:outcome", middleware.RateLimit(limiter, failures, successes, all), func(c *gin.Context) {
		if c.Param("outcome") == "failure" {
			c.Status(http.StatusUnauthorized)
		}
	})
	for _, path := range []string{"/success", "/failure", "/success", "/success"} {
		app.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, nil))
	}
	for policy, want := range map[string]string{"failures-only": "1", "successes-only": "3", "all": "4"} {
		if got := server.Do("ZCARD", "{ip:192.0.2.1}rate:log:"+policy+":ip:192.0.2.1"); got != want {
			t.Errorf("%s: %s units, want %s", policy, got, want)
		}
	}
}
