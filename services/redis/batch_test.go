package redis_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// newCounting returns a Batcher whose script adds to a counter, and returns its value and how
// many calls were in the batch.
func newCounting(rdb *redis.Client) *redis.Batcher {
	script := rueidis.NewLuaScript(`
local reply = {}
for i = 1, #KEYS do
  reply[2 * i - 1] = ARGV[i] == '' and 0 or redis.call('INCRBY', KEYS[i], ARGV[i])
  reply[2 * i] = #KEYS
end
return reply`)
	return redis.NewBatcher(rdb, script, 1, 2, func(task func()) bool {
		go task()
		return true
	})
}

// Calls that wait go together, and each has its own reply.
func TestBatchOfCalls(t *testing.T) {
	t.Parallel()
	b := newCounting(redistest.New(t, servicestest.StartRedis(t).Addr))
	release := b.Hold()
	var wg sync.WaitGroup
	var answered atomic.Int32
	call := func(n int) {
		for i := range n {
			wg.Go(func() {
				defer answered.Add(1)
				got, err := b.Exec(t.Context(), fmt.Sprint("{a}", n, " ", i), fmt.Sprint(i))
				if err != nil || !slices.Equal(got, []int64{int64(i), int64(n)}) {
					t.Errorf("call %d of %d was answered %v, %v", i, n, got, err)
				}
			})
		}
	}
	call(redis.BatchCalls)
	servicestest.Eventually(t, func() bool { return answered.Load() == redis.BatchCalls }, "a full batch waits")
	call(5)
	servicestest.Eventually(t, func() bool { return b.Waiting() == 5 }, "they do not wait")
	release()
	wg.Wait()
	if got, err := b.Exec(t.Context(), "{a}alone", "7"); err != nil || !slices.Equal(got, []int64{7, 1}) {
		t.Errorf("a call that is alone was answered %v, %v", got, err)
	}
	servicestest.Eventually(t, func() bool { return b.Underway() == 0 }, "something seems to be under way")
}

// A caller that leaves before the batch is sent has changed nothing; the others are served.
func TestBatchWithoutTheCallerThatLeft(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	b := newCounting(redistest.New(t, server.Addr))
	release := b.Hold()
	ctx, leave := context.WithCancel(t.Context())
	left, stayed := make(chan error, 1), make(chan error, 1)
	call := func(ctx context.Context, key string, result chan<- error) {
		_, err := b.Exec(ctx, key, "1")
		result <- err
	}
	go call(ctx, "left", left)
	go call(t.Context(), "stayed", stayed)
	servicestest.Eventually(t, func() bool { return b.Waiting() == 2 }, "the calls do not wait")
	leave()
	if err := <-left; !errors.Is(err, models.ErrUnavailable) {
		t.Fatal(err)
	}
	release()
	if err := <-stayed; err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(server.Do("MGET", "left", "stayed")); !slices.Equal(got, []string{"1"}) {
		t.Errorf("left and stayed are %v", got)
	}
}

// While Redis hangs no call waits longer than the timeout, whether it was sent or not. Later calls
// are served.
func TestBatchWhileRedisHangs(t *testing.T) {
	t.Parallel()
	const timeout = 200 * time.Millisecond
	server := servicestest.StartRedis(t)
	b := newCounting(redistest.At(t, server.Addr, redis.Options{Timeout: timeout}))
	server.Freeze()
	var wg sync.WaitGroup
	for range 3 * redis.BatchCalls {
		wg.Go(func() {
			start := time.Now()
			if _, err := b.Exec(t.Context(), "counter", "1"); !errors.Is(err, models.ErrUnavailable) {
				t.Error("answered by a Redis that hangs:", err)
			}
			if took := time.Since(start); took > timeout+servicestest.Slack(start) {
				t.Error("waited", took)
			}
		})
	}
	wg.Wait()
	server.Thaw()
	servicestest.Eventually(t, func() bool {
		_, err := b.Exec(t.Context(), "counter", "1")
		return err == nil && b.Underway() == 0
	}, "not served after the outage")
}

// No call waits for others for longer than the Batcher's patience, so that a Redis far away serves
// a few calls at a time as it would serve one.
func TestBatchForARedisFarAway(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	proxy := servicestest.NewProxy(t, server.Addr)
	b := newCounting(redistest.At(t, proxy.Addr, redis.Options{Timeout: time.Minute}))
	if _, err := b.Exec(t.Context(), "far", "1"); err != nil { // loads the script
		t.Fatal(err)
	}
	b.SetPatience(10 * time.Millisecond)
	proxy.Stall()
	var wg sync.WaitGroup
	for range redis.RunsUnderway + 3 {
		wg.Go(func() {
			if _, err := b.Exec(t.Context(), "far", "1"); err != nil {
				t.Error(err)
			}
		})
	}
	servicestest.Eventually(t, func() bool { return b.Underway() > redis.RunsUnderway && b.Waiting() == 0 }, "calls wait for others to return")
	proxy.Resume()
	wg.Wait()
}
