package ratelimit_test

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/ratelimit"
	"gatehouse/services/redis"
)

// Two messages a minute for each sender, in an application without a database and without HTTP.
// Nothing listens at the address: then this instance counts by itself, and says so.
func ExampleLimiter_Take() {
	rdb := redis.New(redis.Options{Client: rueidis.ClientOption{InitAddress: []string{"127.0.0.1:1"}}, KeyPrefix: "shop:"})
	defer rdb.Close(context.Background())
	limiter := ratelimit.New(rdb, ratelimit.Options{})
	policy := models.Policy{Name: "messages", Limit: 2, Window: time.Minute}
	for range 3 {
		decisions, err := limiter.Take(context.Background(), "messages", models.Hit{Policy: policy, Key: "alice"})
		if err != nil {
			panic(err) // the policy is wrong, or closed without Redis
		}
		d := decisions[0]
		fmt.Println(d.Allowed, d.Remaining, d.RetryAfter.Round(time.Minute), d.Degraded)
	}
	// Output:
	// true 1 0s true
	// true 0 0s true
	// false 0 1m0s true
}
