package redis_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/redis"
)

// One call of a request. Where Redis is away, the request goes on without it.
func ExampleClient_Do() {
	option, err := rueidis.ParseURL("redis://127.0.0.1:1/0") // nothing listens there
	if err != nil {
		panic(err)
	}
	rdb := redis.New(redis.Options{Client: option, KeyPrefix: "shop:", Timeout: 50 * time.Millisecond})
	defer rdb.Close(context.Background())

	ctx := redis.WithBudget(context.Background()) // all calls of this request take 50 ms at most
	_, err = rdb.Do(ctx, func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		return c.Do(ctx, c.B().Get().Key(rdb.Key("greeting")).Build())
	})
	switch {
	case rueidis.IsRedisNil(err):
		fmt.Println("there is no greeting")
	case errors.Is(err, models.ErrUnavailable):
		fmt.Println("going on without Redis, which is", rdb.Status())
	}
	// Output: going on without Redis, which is down
}
