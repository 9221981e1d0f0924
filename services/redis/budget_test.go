package redis_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// The calls of a request share one Timeout.
func TestBudget(t *testing.T) {
	t.Parallel()
	rdb := redistest.New(t, servicestest.StartRedis(t).Addr)
	const spent = 20 * time.Millisecond
	// call spends that much and returns what it was allowed.
	call := func(ctx context.Context) (allowed time.Duration, err error) {
		_, err = rdb.Do(ctx, func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
			deadline, _ := ctx.Deadline()
			allowed = time.Until(deadline)
			<-time.After(spent)
			return c.Do(ctx, c.B().Ping().Build())
		})
		return allowed, err
	}
	t.Run("a call has what those before it left", func(t *testing.T) {
		ctx := redis.WithBudget(t.Context())
		for i := range time.Duration(5) {
			allowed, err := call(redis.EnsureBudget(ctx))
			if err != nil || allowed > rdb.Timeout()-i*spent {
				t.Errorf("call %d may take %v, %v", i+1, allowed, err)
			}
		}
	})
	t.Run("a wait for another request's call counts, too", func(t *testing.T) {
		ctx := redis.WithBudget(t.Context())
		redis.Spend(ctx, spent)
		if allowed, err := call(ctx); err != nil || allowed > rdb.Timeout()-spent {
			t.Errorf("a call may take %v, %v", allowed, err)
		}
		redis.Spend(t.Context(), spent) // there is none
	})
	t.Run("nothing is sent when it is spent", func(t *testing.T) {
		ctx := redis.WithSpentBudget(t.Context(), rdb.Timeout())
		for range 5 {
			if allowed, err := call(ctx); allowed != 0 || !errors.Is(err, redis.ErrNotSent) {
				t.Errorf("a call may take %v, %v", allowed, err)
			}
		}
		if allowed, err := call(redis.WithBudget(ctx)); allowed == 0 || err != nil {
			t.Errorf("the first call of a new budget may take %v, %v", allowed, err)
		}
	})
	t.Run("others do not share it", func(t *testing.T) {
		start := time.Now()
		allowed, err := call(t.Context())
		if late := time.Since(start); err != nil || allowed < rdb.Timeout()-late {
			t.Errorf("a call without a budget may take %v, %v", allowed, err)
		}
	})
}
