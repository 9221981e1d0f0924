package services_test

import (
	"context"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/lock"
	"gatehouse/services/redis"
	"gatehouse/services/servicestest"
	"gatehouse/services/store"
)

// lockRequest is what one editor asks for.
func lockRequest(resource string) lock.Request {
	return lock.Request{Resource: resource, Holder: models.Holder{UserID: "1", Email: "alice@example.com"}, TTL: 10 * time.Second}
}

// lockFor is the lock of a resource that is free.
func lockFor(t *testing.T, locks *lock.Locker, resource string) lock.Lock {
	t.Helper()
	return must(locks.TryAcquire(t.Context(), lockRequest(resource)))
}

// must returns the value of a call that has to work.
func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// errorOf is the error of a call whose value does not matter.
func errorOf[T any](_ T, err error) error { return err }

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newDatabase is a SQLite file with the tables of a store and nothing in them.
var newDatabase = servicestest.Copies(func(path string) error {
	db, err := store.Open(context.Background(), store.Options{URL: path, Timeout: servicestest.Patience})
	if err != nil {
		return err
	}
	return db.Close()
})

// openStore opens a database with a timeout that a busy test machine keeps.
func openStore(t testing.TB, url string) *store.Store {
	t.Helper()
	db := must(store.Open(t.Context(), store.Options{URL: url, Timeout: servicestest.Patience}))
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func pingOnce(t *testing.T, rdb *redis.Client) error {
	t.Helper()
	_, err := rdb.Do(t.Context(), func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		return c.Do(ctx, c.B().Ping().Build())
	})
	return err
}
