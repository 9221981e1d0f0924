package middleware_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
)

func TestRateLimitByHeaderKeepsTheValueSecret(t *testing.T) {
	limiter := &fakeLimiter{}
	policy := perMinute("p", 5)
	policy.Key = middleware.ByHeader("X-Api-Key")
	app := appWith(middleware.RateLimit(limiter, policy))
	keys := map[string]bool{}
	for _, value := range []string{"secret-1", "secret-2", "secret-1"} {
		ask(app, "/", "X-Api-Key", value)
		key := limiter.hits[0].Key
		if keys[key] = true; strings.Contains(key, "secret") || !strings.HasPrefix(key, "header:x-api-key:") {
			t.Errorf("key %q", key)
		}
	}
	if len(keys) != 2 {
		t.Errorf("two values have %d keys", len(keys))
	}
}

func TestRateLimitByUser(t *testing.T) {
	limiter, sessions := &fakeLimiter{}, newFakeSessions()
	policy := perMinute("api", 5)
	policy.Key = middleware.ByUser
	app := appWith(middleware.FindToken("session"), middleware.LookUp(sessions), middleware.RateLimit(limiter, policy))
	get(app, "/")
	if key := limiter.hits[0].Key; key != "anonymous:192.0.2.1" {
		t.Errorf("signed out: %q", key)
	}
	ask(app, "/", "Authorization", "Bearer "+sessions.signIn("editor"))
	if key := limiter.hits[0].Key; key != "user:7" {
		t.Errorf("signed in: %q", key)
	}
}

func TestRateLimitLimitFor(t *testing.T) {
	limiter := &fakeLimiter{}
	policy := perMinute("p", 5)
	policy.Block = 4
	policy.LimitFor = func(c *gin.Context) int64 {
		return map[string]int64{"gold": 50, "free": 2, "all": 1 << 40}[c.GetHeader("X-Tier")]
	}
	app := appWith(middleware.RateLimit(limiter, policy))
	for tier, want := range map[string][2]int64{"": {5, 4}, "gold": {50, 4}, "free": {2, 2}, "all": {models.MaxLimit, 4}} {
		w := ask(app, "/", "X-Tier", tier)
		got := limiter.hits[0].Policy
		if got.Limit != want[0] || got.Block != want[1] || !strings.Contains(w.Header().Get("RateLimit-Policy"), fmt.Sprintf("q=%d;", want[0])) {
			t.Errorf("tier %q: %+v, headers %q", tier, got, w.Header().Get("RateLimit-Policy"))
		}
	}
	policy.Algorithm = models.AlgorithmSlidingLog
	ask(appWith(middleware.RateLimit(limiter, policy)), "/", "X-Tier", "all")
	if got := limiter.hits[0].Policy.Limit; got != models.MaxSlidingLogLimit {
		t.Errorf("a log of %d", got)
	}
}

// The hit says the tier; what it is worth is the limiter's business.
func TestRateLimitTier(t *testing.T) {
	limiter, sessions := &fakeLimiter{}, newFakeSessions()
	policy := perMinute("api", 5)
	policy.Tier = middleware.Role
	app := appWith(middleware.FindToken("session"), middleware.LookUp(sessions), middleware.RateLimit(limiter, policy, perMinute("untiered", 5)))
	get(app, "/")
	if tier := limiter.hits[0].Tier; tier != "" {
		t.Errorf("signed out: %q", tier)
	}
	for _, role := range []string{models.RoleViewer, models.RoleEditor, models.RoleAdmin} {
		ask(app, "/", "Authorization", "Bearer "+sessions.signIn(role))
		if hits := limiter.hits; hits[0].Tier != role || hits[1].Tier != "" {
			t.Errorf("%s: tiers %q and %q", role, hits[0].Tier, hits[1].Tier)
		}
	}
}
