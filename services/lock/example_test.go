package lock_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"gatehouse/models"
	"gatehouse/services/lock"
	"gatehouse/services/redis"
	"gatehouse/services/redis/embedded"
)

// Locks need a Redis and nothing else: no database, no files, no other part of this module.
func Example() {
	server, err := embedded.Start() // for yours: rueidis.ParseURL("redis://127.0.0.1:6379")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()
	rdb := redis.New(redis.Options{Client: server.ClientOption(), Embedded: true, KeyPrefix: "shop:", Timeout: 3 * time.Second})
	defer func() { _ = rdb.Close(context.Background()) }()
	rdb.WaitReady(context.Background())
	locks := lock.New(rdb, lock.Options{})
	err = locks.WithLock(context.Background(), lock.Request{Resource: "report"}, func(ctx context.Context, held lock.Lock) error {
		fmt.Println("alone with the", held.Resource) // on all instances; ctx ends before the lock can
		return ctx.Err()
	})
	fmt.Println(err)
	// Output:
	// alone with the report
	// <nil>
}

// exampleRedis is a Redis inside the process; use redis.Options.Client for yours.
func exampleRedis() (*redis.Client, func()) {
	server, err := embedded.Start()
	if err != nil {
		panic(err)
	}
	rdb := redis.New(redis.Options{
		Client: server.ClientOption(), Embedded: true, Timeout: 3 * time.Second, Logger: slog.New(slog.DiscardHandler),
	})
	rdb.WaitReady(context.Background())
	return rdb, func() {
		_ = rdb.Close(context.Background())
		server.Close()
	}
}

// The lease is extended while the work runs, and given back after it.
func ExampleLocker_WithLock() {
	rdb, done := exampleRedis()
	defer done()
	locks := lock.New(rdb, lock.Options{})

	request := lock.Request{Resource: "report:2026", Holder: models.Holder{UserID: "cron"}}
	err := locks.WithLock(context.Background(), request, func(ctx context.Context, held lock.Lock) error {
		// Hand ctx to everything: it ends before the lease can. Hand held.Fence to
		// what you write to: it can refuse a holder that was too late.
		fmt.Println("working under a fence:", held.Fence != nil)
		return ctx.Err()
	})
	var lost *lock.LostError
	if errors.As(err, &lost) {
		fmt.Println("lost the lock:", lost.Reason)
	}
	fmt.Println("done:", err)
	// Output:
	// working under a fence: true
	// done: <nil>
}

// By hand: for a lock that lives longer than one call, as an editor's does.
func ExampleLocker_TryAcquire() {
	rdb, done := exampleRedis()
	defer done()
	locks := lock.New(rdb, lock.Options{})
	ctx := context.Background()

	alice := lock.Request{Resource: "process:42", TTL: 5 * time.Minute, Holder: models.Holder{UserID: "1", Email: "alice@example.com"}}
	held, err := locks.TryAcquire(ctx, alice)
	fmt.Println("alice:", err)

	bob := lock.Request{Resource: "process:42", Holder: models.Holder{UserID: "2", Email: "bob@example.com"}}
	_, err = locks.TryAcquire(ctx, bob)
	var refused *models.NotAcquiredError
	if errors.As(err, &refused) {
		fmt.Println("bob: held by", refused.Status.Holder.Email)
	}

	if _, err = locks.Extend(ctx, held.Claim, 10*time.Minute); err != nil {
		fmt.Println("extend:", err)
	}
	_, err = locks.Release(ctx, held.Claim)
	fmt.Println("released:", err)
	// Output:
	// alice: <nil>
	// bob: held by alice@example.com
	// released: <nil>
}

// Whoever waits is served in order. Bound the patience by ctx: it is the only limit.
func ExampleLocker_Acquire() {
	rdb, done := exampleRedis()
	defer done()
	locks := lock.New(rdb, lock.Options{})
	ctx := context.Background()

	alice, err := locks.Acquire(ctx, lock.Request{Resource: "printer", Holder: models.Holder{UserID: "1", Email: "alice@example.com"}})
	fmt.Println("alice:", err)

	bob := lock.Request{Resource: "printer", Holder: models.Holder{UserID: "2", Email: "bob@example.com"}}
	impatient, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	_, err = locks.Acquire(impatient, bob)
	// If Redis answered in time, err is also a *models.NotAcquiredError: it says who has the lock.
	fmt.Println("bob gave up:", errors.Is(err, models.ErrNotAcquired), errors.Is(err, context.DeadlineExceeded))

	granted := make(chan error)
	go func() {
		held, err := locks.Acquire(ctx, bob)
		granted <- err
		_, _ = locks.Release(ctx, held.Claim)
	}()
	_, _ = locks.Release(ctx, alice.Claim)
	fmt.Println("bob waited:", <-granted)
	// Output:
	// alice: <nil>
	// bob gave up: true true
	// bob waited: <nil>
}

// What happens to locks, on all instances. The channel also ends when something may
// have been missed: call Events again then, and List after it.
func ExampleLocker_Events() {
	rdb, done := exampleRedis()
	defer done()
	locks := lock.New(rdb, lock.Options{})
	ctx, stop := context.WithCancel(context.Background())
	defer stop()

	events := locks.Events(ctx)
	held, _ := locks.TryAcquire(ctx, lock.Request{Resource: "report:2026", Holder: models.Holder{UserID: "1", Email: "alice@example.com"}})
	_, _ = locks.Release(ctx, held.Claim)
	for event := range events {
		fmt.Println(event.Name, event.Resource, "by", event.Holder.Email)
		if event.Name == models.LockReleased {
			break
		}
	}
	// Output:
	// acquired report:2026 by alice@example.com
	// released report:2026 by alice@example.com
}
