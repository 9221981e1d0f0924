package middleware_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/redis/rueidis"

	"gatehouse/middleware"
	"gatehouse/services"
	"gatehouse/services/servicestest"
)

// What an answer does not cost is gone from Redis when the answer is there.
func TestRateLimitSkipsByOutcomeInRedis(t *testing.T) {
	server := servicestest.StartRedis(t)
	redis := services.NewRedis(services.RedisOptions{Client: rueidis.ClientOption{InitAddress: []string{server.Addr}}, Timeout: 5 * time.Second})
	defer func() { _ = redis.Close(t.Context()) }()
	redis.WaitReady(t.Context())
	limiter := services.NewRateLimiter(redis, services.RateLimiterOptions{})
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
