package services

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// counting adds to a counter and answers its value and how many were in the bundle.
func counting(r *Redis) *bundler {
	background := func(task func()) bool {
		go task()
		return true
	}
	return &bundler{redis: r, args: 1, replies: 2, patience: time.Minute, spawn: background, script: rueidis.NewLuaScript(`
local reply = {}
for i = 1, #KEYS do
  reply[2 * i - 1] = ARGV[i] == '' and 0 or redis.call('INCRBY', KEYS[i], ARGV[i])
  reply[2 * i] = #KEYS
end
return reply`)}
}

// hold keeps what comes from now on together until release.
func (b *bundler) hold() (release func()) {
	for !b.redis.lane.busy.CompareAndSwap(false, true) { // the probe has it now and then
		runtime.Gosched()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.underway = bundlesUnderway
	return func() {
		b.redis.lane.free()
		for range bundlesUnderway {
			b.landed()
		}
	}
}

func (b *bundler) waiting() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == nil {
		return 0
	}
	return len(b.next.keys)
}

func (b *bundler) idle() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.underway == 0 && b.next == nil
}

// What waits goes together, and each has its own reply.
func TestBundleOfCalls(t *testing.T) {
	t.Parallel()
	b := counting(redisAt(t, servicestest.StartRedis(t).Addr, RedisOptions{Timeout: 5 * time.Second}))
	release := b.hold()
	const calls = bundleCalls + 5
	var wg sync.WaitGroup
	for i := range calls {
		wg.Go(func() {
			got, err := b.exec(t.Context(), fmt.Sprint("{a}", i), fmt.Sprint(i))
			if err != nil || got[0] != int64(i) || got[1] != bundleCalls && got[1] != calls-bundleCalls {
				t.Errorf("call %d was answered %v, %v", i, got, err)
			}
		})
	}
	// A full bundle does not wait.
	servicestest.Eventually(t, 5*time.Second, func() bool { return b.waiting() == calls-bundleCalls }, "no full bundle was sent")
	release()
	wg.Wait()
	if got, err := b.exec(t.Context(), "{a}alone", "7"); err != nil || !slices.Equal(got, []int64{7, 1}) {
		t.Errorf("a call that is alone was answered %v, %v", got, err)
	}
	servicestest.Eventually(t, 5*time.Second, b.idle, "something seems to be under way")
}

// A call that has the lane is alone: it waits for nobody, and nothing can overtake it.
func TestBundleIsNotJoinedFromTheLane(t *testing.T) {
	redis := openLane(t, servicestest.StartRedis(t))
	b := counting(redis)
	b.underway = bundlesUnderway
	for range bundleCalls / 2 { // the probe has the lane now and then
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, err := b.exec(ctx, "alone", "1")
		cancel()
		if err == nil {
			return
		}
	}
	t.Error("a call that is alone waits for others")
}

// When the background has come to an end, what waits is answered, and Redis does not
// count as away for it.
func TestBundleAfterClose(t *testing.T) {
	t.Parallel()
	l := limiterAt(t, servicestest.StartRedis(t).Addr, false)
	release := l.single.hold()
	policy := models.Policy{Name: "p", Limit: 5, Window: time.Hour}
	var wg sync.WaitGroup
	for range 2 * suspectFailures {
		wg.Go(func() {
			decisions, err := l.Take(t.Context(), "", models.Hit{Policy: policy, Key: "a"})
			if err != nil || !decisions[0].Degraded {
				t.Errorf("%+v, %v", decisions, err)
			}
		})
	}
	servicestest.Eventually(t, 5*time.Second, func() bool { return l.single.waiting() == 2*suspectFailures }, "the decisions are not together")
	if err := l.Close(t.Context()); err != nil {
		t.Error(err)
	}
	release()
	wg.Wait()
	if !l.redis.Available() {
		t.Error("Redis counts as away")
	}
}

// A caller that leaves before the bundle is sent has changed nothing; the others
// are served.
func TestBundleWithoutTheCallerThatLeft(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	b := counting(redisAt(t, server.Addr, RedisOptions{Timeout: 5 * time.Second}))
	release := b.hold()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := b.exec(ctx, "left", "1"); !errors.Is(err, models.ErrUnavailable) {
		t.Fatal(err)
	}
	stayed := make(chan error, 1)
	go func() {
		_, err := b.exec(t.Context(), "stayed", "1")
		stayed <- err
	}()
	servicestest.Eventually(t, 5*time.Second, func() bool { return b.waiting() == 2 }, "the call does not wait")
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
	b := counting(redisAt(t, server.Addr, RedisOptions{Timeout: 200 * time.Millisecond}))
	server.Freeze()
	var wg sync.WaitGroup
	for range 3 * bundleCalls {
		wg.Go(func() {
			start := time.Now()
			if _, err := b.exec(t.Context(), "counter", "1"); !errors.Is(err, models.ErrUnavailable) {
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
		_, err := b.exec(t.Context(), "counter", "1")
		return err == nil && b.idle()
	}, "not served after the outage")
}

// Nobody waits for others for longer than the bundler's patience, so that a Redis
// which is far away serves a few calls at a time as it would serve one.
func TestBundleForARedisFarAway(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	proxy := servicestest.NewProxy(t, server.Addr)
	l := limiterAt(t, proxy.Addr, false) // with a timeout of 5 s
	l.single.patience = 10 * time.Millisecond
	if _, err := l.single.exec(t.Context(), "test:{a}far", "", "0", "5", "1000000", "1", "", "0"); err != nil { // loads the script
		t.Fatal(err)
	}
	const latency = 500 * time.Millisecond
	proxy.SetLatency(latency)
	var wg sync.WaitGroup
	for range bundlesUnderway + 3 {
		wg.Go(func() {
			start := time.Now()
			_, err := l.single.exec(t.Context(), "test:{a}far", "", "0", "5", "1000000", "1", "", "0")
			// Waiting for another one to return would make it two round trips.
			if took := time.Since(start); err != nil || took > 3*latency {
				t.Errorf("took %v, %v", took, err)
			}
		})
	}
	wg.Wait()
}

// That Redis cannot serve stops the limiter from asking it, also where only a
// script finds out.
func TestRateLimitScriptThatRedisCannotServe(t *testing.T) {
	t.Parallel()
	for name, strike := range map[string]func(*servicestest.RedisServer){
		"read-only":     func(s *servicestest.RedisServer) { s.Do("REPLICAOF", "127.0.0.1", "1") },
		"out of memory": func(s *servicestest.RedisServer) { s.Do("CONFIG", "SET", "maxmemory", "1") },
	} {
		t.Run(name, func(t *testing.T) {
			server := servicestest.StartRedis(t)
			var logged bytes.Buffer
			redis := redisAt(t, server.Addr, RedisOptions{})
			l := NewRateLimiter(redis, RateLimiterOptions{Logger: slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelError}))})
			policy := models.Policy{Name: "p", Limit: 1000, Window: time.Hour}
			take := func(key int) {
				if _, err := l.Take(t.Context(), "", models.Hit{Policy: policy, Key: fmt.Sprint(key)}); err != nil {
					t.Error(err)
				}
			}
			take(0)
			strike(server)
			asked := 1 // each time for another key: one that is there already is served without memory
			for ; redis.Available() && asked < 100; asked++ {
				take(asked)
			}
			if redis.Available() || asked > 1+suspectFailures {
				t.Errorf("asked %d times, counts as available: %v", asked, redis.Available())
			}
			if text := logged.String(); text != "" {
				t.Errorf("a line for each request: %.500s", text)
			}
		})
	}
}

// Time never goes back for a key, whatever its lease in Redis says: that was
// counted by another clock, or for another window.
func TestRateLimitClockPutBack(t *testing.T) {
	for name, window := range map[string]time.Duration{"same window": time.Minute, "longer window": time.Hour} {
		t.Run(name, func(t *testing.T) {
			l, server := limiterWithClock(t)
			began := time.Now()
			decide := func(window time.Duration) verdict {
				t.Helper()
				a := newAsk(&models.Hit{Policy: models.Policy{Name: "p", Limit: 10, Window: window}, Key: "k"})
				got, err := l.run(t.Context(), "k", []ask{a}, rand.Int64N(maxCallID)+1)
				if err != nil {
					t.Fatal(err)
				}
				return got[0]
			}
			server.SetTime(began)
			first := decide(time.Minute)
			server.FastForward(time.Second) // what remains of the key's life; the clock is another matter
			server.SetTime(began.Add(-5 * time.Second))
			second := decide(window)
			if second.at < first.at || !second.passes || second.remaining != 8 {
				t.Errorf("first %+v, then %+v", first, second)
			}
		})
	}
}

// A key that cannot be decided does not concern those that are decided with it, and
// many at a time are decided exactly.
func TestRateLimitDecisionsInABundle(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	l := limiterAt(t, server.Addr, false)
	server.Do("SET", "test:{broken}rate:log:p:broken", "x")
	policy := models.Policy{Name: "p", Limit: 3, Window: time.Hour, OnRedisDown: models.OnRedisDownClosed}
	release := l.single.hold()
	admitted := make(chan string, 100)
	var wg sync.WaitGroup
	for _, key := range []string{"a", "broken", "b"} {
		for range 5 {
			wg.Go(func() {
				decisions, err := l.Take(t.Context(), "", models.Hit{Policy: policy, Key: key})
				switch {
				case (key == "broken") != errors.Is(err, models.ErrUnavailable):
					t.Errorf("%s: %v", key, err)
				case err == nil && decisions[0].Allowed:
					admitted <- key
				}
			})
		}
	}
	servicestest.Eventually(t, 5*time.Second, func() bool { return l.single.waiting() == 15 }, "the decisions are not together")
	release()
	wg.Wait()
	close(admitted)
	count := map[string]int{}
	for key := range admitted {
		count[key]++
	}
	if count["a"] != 3 || count["b"] != 3 {
		t.Errorf("admitted %v of a limit of 3", count)
	}
}
