package middleware_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
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

// It has the real limiter, without Redis.

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
