package middleware_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
	"gatehouse/services/ratelimit"
	"gatehouse/services/redis"
)

func TestRateLimitHeadersAndRefusal(t *testing.T) { synctest.Test(t, testRateLimitHeadersAndRefusal) }

func testRateLimitHeadersAndRefusal(t *testing.T) {
	rdb := redis.New(redis.Options{Disabled: true})
	defer func() { _ = rdb.Close(t.Context()) }()
	limiter := ratelimit.New(rdb, ratelimit.Options{})
	defer func() { _ = limiter.Close(t.Context()) }()
	app := appWith(middleware.RateLimit(limiter, perMinute("api", 2)))

	for _, remaining := range []string{"1", "0"} {
		w := get(app, "/")
		if w.Code != http.StatusOK {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		wantHeaders(t, w, map[string]string{
			"RateLimit-Policy": `"api";q=2;w=60`, "RateLimit": `"api";r=` + remaining + `;t=60`,
			"X-RateLimit-Limit": "2", "X-RateLimit-Remaining": remaining, "X-RateLimit-Reset": fmt.Sprint(time.Now().Unix() + 60),
			"X-Degraded": "rate-limit", "Retry-After": "",
		})
	}
	w := get(app, "/")
	wantHeaders(t, w, map[string]string{
		"RateLimit": `"api";r=0;t=60`, "Retry-After": "60", "X-RateLimit-Remaining": "0", "Content-Type": "application/problem+json",
	})
	var problem map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &problem); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"type": "/problems/quota-exceeded", "title": "Too many requests", "status": 429.0, "instance": "/", "requestId": "",
		"detail":            `Too many requests: "api" allows 2 in 60 seconds. Try again in 60 seconds.`,
		"violated-policies": []any{"api"},
	}
	if w.Code != http.StatusTooManyRequests || !reflect.DeepEqual(problem, want) {
		t.Errorf("%d %v, want %v", w.Code, problem, want)
	}
}

func TestRateLimitRoundsUp(t *testing.T) {
	limiter := &fakeLimiter{decide: func(models.Hit) models.Decision {
		return models.Decision{RetryAfter: 1001 * time.Millisecond, ResetAfter: time.Microsecond}
	}}
	w := get(appWith(middleware.RateLimit(limiter, perMinute("p", 5))), "/")
	wantHeaders(t, w, map[string]string{"Retry-After": "2", "RateLimit": `"p";r=0;t=1`})

	limiter.decide = func(models.Hit) models.Decision { return models.Decision{} }
	w = get(appWith(middleware.RateLimit(limiter, perMinute("p", 5))), "/")
	wantHeaders(t, w, map[string]string{"Retry-After": "1"})
}

func TestRateLimitSeveralPolicies(t *testing.T) {
	limiter := &fakeLimiter{decide: func(hit models.Hit) models.Decision {
		return map[string]models.Decision{
			"wide":   {Allowed: true, Remaining: 90, ResetAfter: time.Minute},
			"burst":  {Allowed: hit.Key != "ip:192.0.2.1", Remaining: 1, RetryAfter: 3 * time.Second, ResetAfter: 2 * time.Second},
			"shadow": {Allowed: true, Remaining: 0, RetryAfter: time.Hour},
			"last":   {Allowed: true, Remaining: 5, Degraded: true},
		}[hit.Policy.Name]
	}}
	shadow := perMinute("shadow", 1)
	shadow.Shadow = true
	burst := perMinute("burst", 10)
	burst.Window = time.Second
	wide := perMinute("wide", 100)
	wide.Key = middleware.ByRoute
	burst.Key = middleware.ByHeader("X-Api-Key")
	app := appWith(
		middleware.RateLimit(limiter, wide, shadow, burst),
		func(c *gin.Context) {
			if limiter.group != "burst+shadow+wide" {
				t.Errorf("group %q", limiter.group)
			}
			keys := []string{limiter.hits[0].Key, limiter.hits[1].Key, limiter.hits[2].Key}
			if want := []string{"route:GET:/", "ip:192.0.2.1", "no-header:x-api-key:192.0.2.1"}; !slices.Equal(keys, want) {
				t.Errorf("keys %q, want %q", keys, want)
			}
		},
		middleware.RateLimit(limiter, perMinute("last", 7)),
		// A newer decision of a policy replaces the older one.
		func(c *gin.Context) {
			middleware.WriteDecisions(c, []models.Decision{{Policy: models.Policy{Name: wide.Name, Limit: wide.Limit, Window: wide.Window}, Allowed: true, Remaining: 89, ResetAfter: time.Minute}})
		},
	)
	w := get(app, "/")
	wantHeaders(t, w, map[string]string{
		"RateLimit-Policy":  `"wide";q=100;w=60, "burst";q=10;w=1, "last";q=7;w=60`,
		"RateLimit":         `"wide";r=89;t=60, "burst";r=1;t=2, "last";r=5;t=0`,
		"X-RateLimit-Limit": "10", "X-RateLimit-Remaining": "1", "X-Degraded": "rate-limit",
	})

	burst.Key = nil
	app = appWith(middleware.RateLimit(limiter, wide, burst))
	w = get(app, "/")
	wantHeaders(t, w, map[string]string{"Retry-After": "3", "RateLimit": `"wide";r=90;t=60, "burst";r=1;t=2`})
	if w.Code != http.StatusTooManyRequests || !strings.Contains(w.Body.String(), `"violated-policies":["burst"]`) ||
		!strings.Contains(w.Body.String(), `\"burst\" allows 10 in 1 second. Try again in 3 seconds.`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestRateLimitChoosesHeaders(t *testing.T) {
	limiter := &fakeLimiter{}
	for _, row := range []struct {
		headers          middleware.Headers
		standard, legacy string // with a second policy "b" that has all headers
	}{
		{0, `"a";r=1;t=60, "b";r=8;t=60`, "1"},
		{middleware.NoStandardHeaders, `"b";r=8;t=60`, "1"},
		{middleware.NoLegacyHeaders, `"a";r=1;t=60, "b";r=8;t=60`, "8"},
		{middleware.NoHeaders, `"b";r=8;t=60`, "8"},
	} {
		a, b := perMinute("a", 2), perMinute("b", 9)
		a.Headers = row.headers
		w := get(appWith(middleware.RateLimit(limiter, a, b)), "/")
		wantHeaders(t, w, map[string]string{"RateLimit": row.standard, "X-RateLimit-Remaining": row.legacy})
	}
	alone := perMinute("a", 2)
	alone.Headers = middleware.NoHeaders
	if w := get(appWith(middleware.RateLimit(limiter, alone)), "/"); w.Header().Get("RateLimit") != "" || w.Header().Get("X-RateLimit-Limit") != "" {
		t.Errorf("headers %v", w.Header())
	}
}
