package services_test

import (
	"context"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/lock"
	"gatehouse/services/redis"
)

// lockRequest is what one editor asks for.
func lockRequest(resource string) lock.Request {
	return lock.Request{Resource: resource, Holder: models.Holder{UserID: "1", Email: "alice@example.com"}, TTL: 10 * time.Second}
}

// lockFor is the lock of a resource that is free.
func lockFor(t *testing.T, locks *lock.Locker, resource string) lock.Lock {
	t.Helper()
	held, err := locks.TryAcquire(t.Context(), lockRequest(resource))
	if err != nil {
		t.Fatal(err)
	}
	return held
}

func pingOnce(t *testing.T, rdb *redis.Client) error {
	t.Helper()
	_, err := rdb.Do(t.Context(), func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		return c.Do(ctx, c.B().Ping().Build())
	})
	return err
}
