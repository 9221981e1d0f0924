package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// redisAt is a client connected to addr, with what else opt says.
func redisAt(t testing.TB, addr string, opt Options) *Client {
	t.Helper()
	opt.Client.InitAddress, opt.KeyPrefix, opt.Logger = []string{addr}, "test:", slog.New(slog.DiscardHandler)
	rdb := New(opt)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := rdb.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	servicestest.Eventually(t, 5*time.Second, rdb.Available, "Redis did not become available")
	return rdb
}

// counting adds to a counter and answers its value and how many were in the bundle.
func counting(r *Client) *Batcher {
	background := func(task func()) bool {
		go task()
		return true
	}
	return &Batcher{redis: r, args: 1, replies: 2, patience: time.Minute, spawn: background, script: rueidis.NewLuaScript(`
local reply = {}
for i = 1, #KEYS do
  reply[2 * i - 1] = ARGV[i] == '' and 0 or redis.call('INCRBY', KEYS[i], ARGV[i])
  reply[2 * i] = #KEYS
end
return reply`)}
}

func (b *Batcher) idle() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.underway == 0 && b.next == nil
}

// What waits goes together, and each has its own reply.
func TestBundleOfCalls(t *testing.T) {
	t.Parallel()
	b := counting(redisAt(t, servicestest.StartRedis(t).Addr, Options{Timeout: 5 * time.Second}))
	release := b.Hold()
	const calls = bundleCalls + 5
	var wg sync.WaitGroup
	for i := range calls {
		wg.Go(func() {
			got, err := b.Exec(t.Context(), fmt.Sprint("{a}", i), fmt.Sprint(i))
			if err != nil || got[0] != int64(i) || got[1] != bundleCalls && got[1] != calls-bundleCalls {
				t.Errorf("call %d was answered %v, %v", i, got, err)
			}
		})
	}
	// A full bundle does not wait.
	servicestest.Eventually(t, 5*time.Second, func() bool { return b.Waiting() == calls-bundleCalls }, "no full bundle was sent")
	release()
	wg.Wait()
	if got, err := b.Exec(t.Context(), "{a}alone", "7"); err != nil || !slices.Equal(got, []int64{7, 1}) {
		t.Errorf("a call that is alone was answered %v, %v", got, err)
	}
	servicestest.Eventually(t, 5*time.Second, b.idle, "something seems to be under way")
}

// A caller that leaves before the bundle is sent has changed nothing; the others
// are served.
func TestBundleWithoutTheCallerThatLeft(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	b := counting(redisAt(t, server.Addr, Options{Timeout: 5 * time.Second}))
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
	servicestest.Eventually(t, 5*time.Second, func() bool { return b.Waiting() == 2 }, "the call does not wait")
	release()
	if err := <-stayed; err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(server.Do("MGET", "left", "stayed")); !slices.Equal(got, []string{"1"}) {
		t.Errorf("left and stayed are %v", got)
	}
}

// While Redis hangs nobody waits longer than the timeout, whether sent or not, and
// afterwards all goes on.
func TestBundleWhileRedisHangs(t *testing.T) {
	server := servicestest.StartRedis(t)
	b := counting(redisAt(t, server.Addr, Options{Timeout: 200 * time.Millisecond}))
	server.Freeze()
	var wg sync.WaitGroup
	for range 3 * bundleCalls {
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
	servicestest.Eventually(t, 5*time.Second, func() bool {
		_, err := b.Exec(t.Context(), "counter", "1")
		return err == nil && b.idle()
	}, "not served after the outage")
}

// Nobody waits for others for longer than the bundler's patience, so that a Redis
// which is far away serves a few calls at a time as it would serve one.
func TestBundleForARedisFarAway(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	proxy := servicestest.NewProxy(t, server.Addr)
	b := counting(redisAt(t, proxy.Addr, Options{Timeout: 5 * time.Second}))
	b.patience = 10 * time.Millisecond
	if _, err := b.Exec(t.Context(), "far", "1"); err != nil { // loads the script
		t.Fatal(err)
	}
	const latency = 500 * time.Millisecond
	proxy.SetLatency(latency)
	var wg sync.WaitGroup
	for range bundlesUnderway + 3 {
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
