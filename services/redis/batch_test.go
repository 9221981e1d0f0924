package redis_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// newCounting returns a Batcher whose script adds to a counter, and returns its value and how
// many calls were in the batch. A call waits a minute for others.
func newCounting(rdb *redis.Client) *redis.Batcher {
	script := rueidis.NewLuaScript(`
local reply = {}
for i = 1, #KEYS do
  reply[2 * i - 1] = ARGV[i] == '' and 0 or redis.call('INCRBY', KEYS[i], ARGV[i])
  reply[2 * i] = #KEYS
end
return reply`)
	b := redis.NewBatcher(rdb, script, 1, 2, func(task func()) bool {
		go task()
		return true
	})
	b.SetPatience(time.Minute)
	return b
}

// Calls that wait go together, and each has its own reply.
func TestBatchOfCalls(t *testing.T) {
	t.Parallel()
	b := newCounting(redistest.At(t, servicestest.StartRedis(t).Addr, redis.Options{Timeout: 5 * time.Second}))
	release := b.Hold()
	const calls = redis.BatchCalls + 5
	var wg sync.WaitGroup
	for i := range calls {
		wg.Go(func() {
			got, err := b.Exec(t.Context(), fmt.Sprint("{a}", i), fmt.Sprint(i))
			if err != nil || got[0] != int64(i) || got[1] != redis.BatchCalls && got[1] != calls-redis.BatchCalls {
				t.Errorf("call %d was answered %v, %v", i, got, err)
			}
		})
	}
	// A full batch does not wait.
	servicestest.Eventually(t, func() bool { return b.Waiting() == calls-redis.BatchCalls }, "no full batch was sent")
	release()
	wg.Wait()
	if got, err := b.Exec(t.Context(), "{a}alone", "7"); err != nil || !slices.Equal(got, []int64{7, 1}) {
		t.Errorf("a call that is alone was answered %v, %v", got, err)
	}
	servicestest.Eventually(t, b.Idle, "something seems to be under way")
}

// A caller that leaves before the batch is sent has changed nothing; the others are served.
func TestBatchWithoutTheCallerThatLeft(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	b := newCounting(redistest.At(t, server.Addr, redis.Options{Timeout: 5 * time.Second}))
	release := b.Hold()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := b.Exec(ctx, "left", "1"); !errors.Is(err, models.ErrUnavailable) {
		t.Fatal(err)
	}
	stayed := make(chan error, 1)
	go func() {
		_, err := b.Exec(t.Context(), "stayed", "1")
		stayed <- err
	}()
	servicestest.Eventually(t, func() bool { return b.Waiting() == 2 }, "the call does not wait")
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
	server := servicestest.StartRedis(t)
	b := newCounting(redistest.At(t, server.Addr, redis.Options{Timeout: 200 * time.Millisecond}))
	server.Freeze()
	var wg sync.WaitGroup
	for range 3 * redis.BatchCalls {
		wg.Go(func() {
			start := time.Now()
			if _, err := b.Exec(t.Context(), "counter", "1"); !errors.Is(err, models.ErrUnavailable) {
				t.Error("answered by a Redis that hangs:", err)
			}
			if took := time.Since(start); took > time.Second {
				t.Error("waited", took)
			}
		})
	}
	wg.Wait()
	server.Thaw()
	servicestest.Eventually(t, func() bool {
		_, err := b.Exec(t.Context(), "counter", "1")
		return err == nil && b.Idle()
	}, "not served after the outage")
}

// No call waits for others for longer than the Batcher's patience, so that a Redis far away serves
// a few calls at a time as it would serve one.
func TestBatchForARedisFarAway(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	proxy := servicestest.NewProxy(t, server.Addr)
	b := newCounting(redistest.At(t, proxy.Addr, redis.Options{Timeout: 5 * time.Second}))
	b.SetPatience(10 * time.Millisecond)
	if _, err := b.Exec(t.Context(), "far", "1"); err != nil { // loads the script
		t.Fatal(err)
	}
	const latency = 500 * time.Millisecond
	proxy.SetLatency(latency)
	var wg sync.WaitGroup
	for range redis.RunsUnderway + 3 {
		wg.Go(func() {
			start := time.Now()
			_, err := b.Exec(t.Context(), "far", "1")
			// Waiting for another one to return would make it two round trips.
			if took := time.Since(start); err != nil || took > 3*latency {
				t.Errorf("took %v, %v", took, err)
			}
		})
	}
	wg.Wait()
}
