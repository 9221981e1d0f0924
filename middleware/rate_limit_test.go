package middleware_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
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

// fakeLimiter answers what a test sets, and records its hits.
type fakeLimiter struct {
	decide   func(models.Hit) models.Decision // nil allows
	err      error
	group    string
	hits     []models.Hit
	refunded []string
	live     bool // the refund's ctx had not ended
}

func (f *fakeLimiter) Take(_ context.Context, group string, hits ...models.Hit) ([]models.Decision, error) {
	f.group, f.hits = group, hits
	if f.err != nil {
		return nil, f.err
	}
	decisions := make([]models.Decision, len(hits))
	for i, hit := range hits {
		decisions[i] = models.Decision{Allowed: true, Remaining: hit.Policy.Limit - 1, ResetAfter: hit.Policy.Window}
		if f.decide != nil {
			decisions[i] = f.decide(hit)
		}
		decisions[i].Policy = hit.Policy
		decisions[i].Admission.Key = hit.Policy.Name
	}
	return decisions, nil
}

func (f *fakeLimiter) Refund(ctx context.Context, decisions ...models.Decision) error {
	f.live = ctx.Err() == nil
	for _, d := range decisions {
		f.refunded = append(f.refunded, d.Admission.Key)
	}
	return nil
}

func perMinute(name string, limit int64) middleware.Policy {
	return middleware.Policy{Name: name, Limit: limit, Window: time.Minute}
}

func get(app http.Handler, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	app.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w
}

func appWith(handlers ...gin.HandlerFunc) *gin.Engine {
	app := gin.New()
	app.GET("/", append(handlers, func(c *gin.Context) { c.String(http.StatusOK, "fine") })...)
	return app
}

func wantHeaders(t *testing.T, w *httptest.ResponseRecorder, want map[string]string) {
	t.Helper()
	for name, value := range want {
		if got := w.Header().Get(name); got != value {
			t.Errorf("%s: %q, want %q", name, got, value)
		}
	}
}

func TestRateLimitHeadersAndRefusal(t *testing.T) { synctest.Test(t, testRateLimitHeadersAndRefusal) }

// It has the real limiter, without Redis.
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

func TestRateLimitSkipCostAndMessage(t *testing.T) {
	limiter := &fakeLimiter{}
	free, dear, skipped := perMinute("free", 5), perMinute("dear", 5), perMinute("skipped", 5)
	free.Cost = func(*gin.Context) int64 { return 0 }
	dear.Cost = func(*gin.Context) int64 { return 3 }
	dear.Message = "Slow down."
	skipped.Skip = func(*gin.Context) bool { return true }

	w := get(appWith(middleware.RateLimit(limiter, free, dear, skipped)), "/")
	wantHeaders(t, w, map[string]string{"RateLimit": `"dear";r=4;t=60`})
	if len(limiter.hits) != 3 || limiter.hits[0].Cost != -1 || limiter.hits[1].Cost != 3 || limiter.hits[2].Cost != -1 {
		t.Errorf("asked %+v", limiter.hits)
	}

	limiter.hits = nil
	w = get(appWith(middleware.RateLimit(limiter, free, skipped)), "/")
	if w.Code != http.StatusOK || limiter.hits != nil || w.Header().Get("RateLimit") != "" {
		t.Errorf("all skipped: %d, asked %+v, headers %v", w.Code, limiter.hits, w.Header())
	}

	limiter.decide = func(models.Hit) models.Decision { return models.Decision{} }
	w = get(appWith(middleware.RateLimit(limiter, dear)), "/")
	if w.Code != http.StatusTooManyRequests || !strings.Contains(w.Body.String(), `"detail":"Slow down."`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// A limiter gets each field of a models.Policy, also those that are added to it later.
func TestPolicyOfLosesNoField(t *testing.T) {
	policy := models.Policy{
		Name: "p", Limit: 5, Window: time.Minute, Algorithm: models.AlgorithmGCRA, OnRedisDown: models.OnRedisDownClosed, Shadow: true, Block: 2,
	}
	value, mounted := reflect.ValueOf(policy), reflect.ValueOf(middleware.PolicyOf(policy))
	for i := range value.NumField() {
		name := value.Type().Field(i).Name
		got := mounted.FieldByName(name)
		if value.Field(i).IsZero() || !got.IsValid() || !got.Equal(value.Field(i)) {
			t.Errorf("%s: PolicyOf makes %v of %v, and a zero value proves nothing", name, got, value.Field(i))
		}
	}
	limiter := &fakeLimiter{}
	get(appWith(middleware.RateLimit(limiter, middleware.PolicyOf(policy))), "/")
	if len(limiter.hits) != 1 || limiter.hits[0].Policy != policy {
		t.Errorf("the limiter got %+v, want %+v", limiter.hits, policy)
	}
}

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

func TestRateLimitPanicsOnBadPolicies(t *testing.T) {
	for name, policies := range map[string][]middleware.Policy{
		"no name":  {perMinute("", 1)},
		"no limit": {perMinute("p", 0)},
		"twice":    {perMinute("p", 1), perMinute("p", 2)},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			middleware.RateLimit(&fakeLimiter{}, policies...)
		}()
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
