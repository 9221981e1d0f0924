package redis_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
)

// ping calls Redis, and returns the error of that.
func ping(ctx context.Context, rdb *redis.Client) error {
	_, err := rdb.Do(ctx, func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		return c.Do(ctx, c.B().Ping().Build())
	})
	return err
}

func TestStart(t *testing.T) {
	refused := rueidis.ClientOption{InitAddress: []string{"127.0.0.1:1"}}
	refused.DialCtxFn = func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error) {
		return nil, syscall.ECONNREFUSED
	}
	t.Run("where no server is there, nothing waits for it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			t.Cleanup(func() { time.Sleep(time.Minute) }) // until rueidis has ended
			start := time.Now()
			rdb := redistest.Start(t, redis.Options{Client: refused})
			if err := ping(t.Context(), rdb); !errors.Is(err, redis.ErrNotSent) || rdb.Status() != "down" {
				t.Errorf("%v, %s", err, rdb.Status())
			}
			if took := time.Since(start); took != 0 {
				t.Errorf("New and a call took %v", took)
			}
		})
	})
	t.Run("WaitReady waits for 5 s at most", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			t.Cleanup(func() { time.Sleep(time.Minute) })
			rdb := redistest.Start(t, redis.Options{Client: refused})
			start := time.Now()
			rdb.WaitReady(context.Background())
			if took := time.Since(start); took != 5*time.Second {
				t.Errorf("it waited %v", took)
			}
		})
	})
	t.Run("without Redis on purpose, nothing is sent", func(t *testing.T) {
		rdb := redistest.Start(t, redis.Options{Disabled: true})
		rdb.WaitReady(t.Context())
		if err := ping(t.Context(), rdb); !errors.Is(err, models.ErrUnavailable) || rdb.Status() != "disabled" || rdb.Available() {
			t.Errorf("%v, %s", err, rdb.Status())
		}
	})
}

// A task that comes beside Close is waited for, or not run.
func TestGoBesideClose(t *testing.T) {
	for range 50 {
		rdb := redis.New(redis.Options{Disabled: true})
		var closed, late atomic.Bool
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				rdb.Go(func(ctx context.Context) {
					<-ctx.Done()
					time.Sleep(time.Millisecond) // its last work
					if closed.Load() {
						late.Store(true)
					}
				})
			})
		}
		if err := rdb.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		closed.Store(true)
		group.Wait()
		rdb.Go(func(context.Context) { late.Store(true) })
		time.Sleep(2 * time.Millisecond)
		if late.Load() {
			t.Fatal("a task runs after Close")
		}
	}
}
