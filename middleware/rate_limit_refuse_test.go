package middleware_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
)

func TestRateLimitClosedWithoutRedis(t *testing.T) {
	limiter := &fakeLimiter{err: fmt.Errorf("take: %w", models.ErrUnavailable)}
	var logged []string
	log := func(c *gin.Context) {
		c.Next()
		logged = c.Errors.Errors()
	}
	w := get(appWith(log, middleware.RateLimit(limiter, perMinute("p", 5))), "/")
	if want := []string{"take: unavailable"}; !slices.Equal(logged, want) {
		t.Errorf("the access log gets %q, want %q", logged, want)
	}
	wantHeaders(t, w, map[string]string{"Retry-After": "1", "X-Degraded": "rate-limit"})
	if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "/problems/unavailable") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestRateLimitRefundsByOutcome(t *testing.T) {
	successes, failures, both := perMinute("failures-only", 5), perMinute("successes-only", 5), perMinute("all", 5)
	successes.SkipSuccessful, failures.SkipFailed = true, true
	for _, row := range []struct {
		name   string
		status int
		want   []string
	}{
		{"success", http.StatusOK, []string{"failures-only"}},
		{"redirect", http.StatusFound, []string{"failures-only"}},
		{"refused", http.StatusUnauthorized, []string{"successes-only"}},
		{"broken", http.StatusBadGateway, []string{"successes-only"}},
		{"panic", 0, []string{"successes-only"}},
	} {
		limiter := &fakeLimiter{}
		app := gin.New()
		app.Use(gin.CustomRecoveryWithWriter(nil, func(c *gin.Context, _ any) { c.AbortWithStatus(http.StatusInternalServerError) }))
		app.GET("/", middleware.RateLimit(limiter, successes, failures, both), func(c *gin.Context) {
			if row.status == 0 {
				panic("broken")
			}
			c.Status(row.status)
		})
		ctx, leave := context.WithCancel(t.Context())
		leave() // the client has left: the refund happens all the same
		app.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil))
		if !slices.Equal(limiter.refunded, row.want) || !limiter.live {
			t.Errorf("%s: refunded %q, want %q; live ctx %v", row.name, limiter.refunded, row.want, limiter.live)
		}
	}
}

func TestRateLimitAllowAndDenyLists(t *testing.T) {
	limiter := &fakeLimiter{}
	for _, row := range []struct {
		name        string
		allow, deny []string
		status      int
		asked       bool
	}{
		{"neither", []string{"10.0.0.0/8"}, []string{"203.0.113.0/24"}, http.StatusOK, true},
		{"allowed", []string{"192.0.2.0/24"}, nil, http.StatusOK, false},
		{"denied", nil, []string{"192.0.2.1"}, http.StatusForbidden, false},
		{"both", []string{"192.0.2.0/24"}, []string{"192.0.2.1"}, http.StatusForbidden, false},
	} {
		limiter.hits = nil
		policy := perMinute("p", 5)
		policy.Skip, policy.Deny = middleware.InNetworks(row.allow...), middleware.InNetworks(row.deny...)
		w := get(appWith(middleware.RateLimit(limiter, policy)), "/")
		if w.Code != row.status || (limiter.hits != nil) != row.asked {
			t.Errorf("%s: %d, asked %v", row.name, w.Code, limiter.hits)
		}
		if row.status == http.StatusForbidden && !strings.Contains(w.Body.String(), "/problems/forbidden") {
			t.Errorf("%s: %s", row.name, w.Body)
		}
	}
	// A deny list in a policy file answers the same, even if a Handler answers for the limit.
	limiter.decide = func(models.Hit) models.Decision { return models.Decision{Blocked: true, RetryAfter: time.Minute} }
	policy := perMinute("p", 5)
	policy.Handler = func(c *gin.Context, _ []models.Decision) { c.Status(http.StatusTooManyRequests) }
	w := get(appWith(middleware.RateLimit(limiter, policy)), "/")
	if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "/problems/forbidden") || w.Header().Get("Retry-After") != "" {
		t.Errorf("denied by a policy file: %d %s %v", w.Code, w.Body, w.Header())
	}
	defer func() {
		if recover() == nil {
			t.Error("no panic on nonsense")
		}
	}()
	middleware.InNetworks("10.0.0.0/33")
}

func TestRateLimitHandlerAnswersInPlace(t *testing.T) {
	limiter := &fakeLimiter{decide: func(hit models.Hit) models.Decision {
		return models.Decision{Allowed: hit.Policy.Name == "fine", RetryAfter: 7 * time.Second}
	}}
	own := perMinute("own", 5)
	own.Handler = func(c *gin.Context, decisions []models.Decision) {
		c.String(http.StatusServiceUnavailable, "%s is busy", decisions[1].Policy.Name)
	}
	reached := false
	app := appWith(middleware.RateLimit(limiter, perMinute("fine", 5), own), func(*gin.Context) { reached = true })
	w := get(app, "/")
	wantHeaders(t, w, map[string]string{"Retry-After": "7", "RateLimit": `"fine";r=0;t=0, "own";r=0;t=0`})
	if w.Code != http.StatusServiceUnavailable || w.Body.String() != "own is busy" || reached {
		t.Errorf("%d %s, reached %v", w.Code, w.Body, reached)
	}
}
