package middleware_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/redis/rueidis"

	"gatehouse/middleware"
	"gatehouse/services/ratelimit"
	"gatehouse/services/ratelimit/policyfile"
	"gatehouse/services/redis"
	"gatehouse/services/redis/embedded"
)

var seconds = regexp.MustCompile(`;t=\d+`) // until there are more

// Rate limits in another Gin application: two policies on one route, decided
// together. It never fails because Redis is away; then this instance counts.
func ExampleRateLimit() {
	server, err := embedded.Start() // for yours leave out Embedded: Client: rueidis.ClientOption{InitAddress: []string{"redis:6379"}}
	if err != nil {
		panic(err)
	}
	defer server.Close()
	rdb := redis.New(redis.Options{Client: server.ClientOption(), Embedded: true, KeyPrefix: "shop:", Timeout: time.Second}) // 0 is 100 ms
	defer rdb.Close(context.Background())
	ready, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	rdb.WaitReady(ready) // if there is none, it goes on without Redis

	limiter := ratelimit.New(rdb, ratelimit.Options{})
	app := gin.New()
	_ = app.SetTrustedProxies(nil) // else each client chooses the address that is counted
	app.GET("/quote", middleware.RateLimit(limiter,
		middleware.Policy{Name: "steady", Limit: 100, Window: time.Hour, Key: middleware.ByHeader("X-Api-Key")},
		middleware.Policy{Name: "burst", Limit: 2, Window: time.Minute, Key: middleware.ByHeader("X-Api-Key")},
	), func(c *gin.Context) { c.String(http.StatusOK, "42") })

	for range 3 {
		r := httptest.NewRequest(http.MethodGet, "/quote", nil)
		r.Header.Set("X-Api-Key", "alice")
		w := httptest.NewRecorder()
		app.ServeHTTP(w, r)
		fmt.Println(w.Code, seconds.ReplaceAllString(w.Header().Get("RateLimit"), ";t=..."))
	}
	// Output:
	// 200 "steady";r=99;t=..., "burst";r=1;t=...
	// 200 "steady";r=98;t=..., "burst";r=0;t=...
	// 429 "steady";r=98;t=..., "burst";r=0;t=...
}

// A sign-in form: failed attempts count, successful ones are given back.
func ExampleRateLimit_skipSuccessful() {
	rdb := redis.New(redis.Options{Client: rueidis.ClientOption{}, Disabled: true}) // counts in this process
	limiter := ratelimit.New(rdb, ratelimit.Options{})

	app := gin.New()
	app.POST("/login", middleware.RateLimit(limiter, middleware.Policy{
		Name: "login", Limit: 1, Window: time.Minute,
		SkipSuccessful: true,
		Message:        "Too many failed attempts. Wait a minute.",
	}), func(c *gin.Context) {
		if c.Query("password") != "right" {
			c.Status(http.StatusUnauthorized)
		}
	})
	for _, password := range []string{"right", "right", "wrong", "right"} {
		w := httptest.NewRecorder()
		app.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/login?password="+password, nil))
		fmt.Println(password, w.Code)
	}
	// Output:
	// right 200
	// right 200
	// wrong 401
	// right 429
}

// Limits by tier, an allow list, and blocks of admissions for a busy key.
func ExampleRateLimit_tiers() {
	rdb := redis.New(redis.Options{Client: rueidis.ClientOption{}, Disabled: true}) // counts in this process
	limiter := ratelimit.New(rdb, ratelimit.Options{})
	defer limiter.Close(context.Background()) // gives back what is left of blocks

	app := gin.New()
	_ = app.SetTrustedProxies(nil)
	app.GET("/report", middleware.RateLimit(limiter, middleware.Policy{
		Name: "report", Limit: 1, Window: time.Minute, Block: 1,
		LimitFor: func(c *gin.Context) int64 { return map[string]int64{"gold": 3}[c.GetHeader("X-Tier")] },
		Key:      middleware.ByHeader("X-Tier"),
		Skip:     middleware.InNetworks("10.0.0.0/8"),
		Headers:  middleware.NoLegacyHeaders,
	}))
	for _, tier := range []string{"free", "free", "gold", "gold"} {
		r := httptest.NewRequest(http.MethodGet, "/report", nil)
		r.Header.Set("X-Tier", tier)
		w := httptest.NewRecorder()
		app.ServeHTTP(w, r)
		fmt.Println(tier, w.Code, w.Header().Get("RateLimit-Policy"))
	}
	// Output:
	// free 200 "report";q=1;w=60
	// free 429 "report";q=1;w=60
	// gold 200 "report";q=3;w=60
	// gold 200 "report";q=3;w=60
}

// Limits by tier from a policy file, which may be changed while the app runs.
func ExampleRateLimit_policyFile() {
	rdb := redis.New(redis.Options{Client: rueidis.ClientOption{}, Disabled: true}) // counts in this process
	limiter := ratelimit.New(rdb, ratelimit.Options{})
	set, err := policyfile.Parse("limits.yaml", []byte(`
policies:
  - name: report
    limit: 1
    window: 1m
    tiers: {gold: 30}
`), map[string][]string{"report": {"free", "gold"}})
	if err != nil {
		panic(err)
	}
	limiter.Configure(set)

	app := gin.New()
	_ = app.SetTrustedProxies(nil)
	app.GET("/report", middleware.RateLimit(limiter, middleware.Policy{
		Name: "report", Limit: 5, Window: time.Minute, // without a file
		Tier: func(c *gin.Context) string { return c.GetHeader("X-Tier") }, // in earnest: what the account says
		Key:  middleware.ByHeader("X-Tier"),
	}))
	for _, tier := range []string{"free", "free", "gold"} {
		r := httptest.NewRequest(http.MethodGet, "/report", nil)
		r.Header.Set("X-Tier", tier)
		w := httptest.NewRecorder()
		app.ServeHTTP(w, r)
		fmt.Println(tier, w.Code, w.Header().Get("RateLimit-Policy"))
	}
	// Output:
	// free 200 "report";q=1;w=60
	// free 429 "report";q=1;w=60
	// gold 200 "report";q=30;w=60
}
