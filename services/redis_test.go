package services_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/services/servicestest"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// startRedisClient is a client that need not be connected yet.
func startRedisClient(t *testing.T, opt services.RedisOptions) *services.Redis {
	t.Helper()
	if opt.Logger == nil {
		opt.Logger = quiet()
	}
	redis := services.NewRedis(opt)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := redis.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return redis
}

// newRedis is a client connected to addr.
func newRedis(t *testing.T, addr string) *services.Redis {
	t.Helper()
	return redisAt(t, addr, services.RedisOptions{})
}

// redisAt is a client connected to addr, with what else opt says.
func redisAt(t *testing.T, addr string, opt services.RedisOptions) *services.Redis {
	t.Helper()
	opt.Client.InitAddress, opt.KeyPrefix = []string{addr}, "test:"
	redis := startRedisClient(t, opt)
	waitReady(t, redis)
	return redis
}

func waitReady(t *testing.T, redis *services.Redis) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	redis.WaitReady(ctx)
	if !redis.Available() {
		t.Fatal("Redis did not become available")
	}
}

// redisOf is a client of a real server or of the embedded one.
func redisOf(t *testing.T, backend string) *services.Redis {
	t.Helper()
	if backend != "embedded" {
		return patientRedis(t, servicestest.StartRedis(t).Addr)
	}
	server, err := services.StartEmbeddedRedis()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	redis := startRedisClient(t, services.RedisOptions{Client: server.ClientOption(), Embedded: true, KeyPrefix: "test:", Timeout: 5 * time.Second})
	waitReady(t, redis)
	return redis
}

func ping(ctx context.Context, redis *services.Redis) error {
	_, err := redis.Do(ctx, func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		return c.Do(ctx, c.B().Ping().Build())
	})
	return err
}

func TestRedisFrozenCostsOneDeadlineThenNothing(t *testing.T) {
	server := servicestest.StartRedis(t)
	redis := newRedis(t, server.Addr)
	server.Freeze()
	start := time.Now()
	if err := ping(t.Context(), redis); !errors.Is(err, models.ErrUnavailable) {
		t.Fatalf("frozen: %v", err)
	}
	if took := time.Since(start); took > 500*time.Millisecond {
		t.Errorf("the first call took %v", took)
	}
	servicestest.Eventually(t, 5*time.Second, func() bool { return !redis.Available() }, "Redis still counts as available")
	start = time.Now()
	for range 1000 {
		if err := ping(t.Context(), redis); !errors.Is(err, models.ErrUnavailable) {
			t.Fatal(err)
		}
	}
	if took := time.Since(start); took > 500*time.Millisecond {
		t.Errorf("1,000 calls without Redis took %v", took)
	}
	server.Thaw()
	servicestest.Eventually(t, time.Second, redis.Available, "not back within 1 s of recovery")
	if err := ping(t.Context(), redis); err != nil {
		t.Errorf("after recovery: %v", err)
	}
}

func TestRedisKilledAndBack(t *testing.T) {
	server := servicestest.StartRedis(t)
	redis := newRedis(t, server.Addr)
	for range 2 {
		server.Kill()
		servicestest.Eventually(t, 5*time.Second, func() bool { return !redis.Available() }, "a killed server counts as available")
		server.Start()
		servicestest.Eventually(t, time.Second, redis.Available, "not back within 1 s of recovery")
	}
}

func TestRedisNeverThere(t *testing.T) {
	start := time.Now()
	redis := startRedisClient(t, services.RedisOptions{Client: rueidis.ClientOption{InitAddress: []string{servicestest.FreeAddr(t)}}})
	if err := ping(t.Context(), redis); !errors.Is(err, models.ErrUnavailable) || redis.Status() != "down" {
		t.Errorf("%v, %s", err, redis.Status())
	}
	if took := time.Since(start); took > 300*time.Millisecond {
		t.Errorf("NewRedis and a call took %v", took)
	}
}

// Who waits for a Redis that is not there goes on without it.
func TestRedisWaitReadyIsBounded(t *testing.T) {
	t.Parallel()
	redis := startRedisClient(t, services.RedisOptions{Client: rueidis.ClientOption{InitAddress: []string{servicestest.FreeAddr(t)}}})
	waited := make(chan struct{})
	go func() { redis.WaitReady(context.Background()); close(waited) }()
	select {
	case <-waited:
	case <-time.After(20 * time.Second):
		t.Error("still waiting after 20 s")
	}
}

func TestRedisDisabled(t *testing.T) {
	redis := startRedisClient(t, services.RedisOptions{Disabled: true})
	if err := ping(t.Context(), redis); !errors.Is(err, models.ErrUnavailable) || redis.Status() != "disabled" || redis.Available() {
		t.Errorf("%v, %s", err, redis.Status())
	}
}

func TestRedisBudgetIsSharedByTheCallsOfARequest(t *testing.T) {
	server := servicestest.StartRedis(t)
	redis := newRedis(t, server.Addr)
	server.Freeze()
	ctx := services.WithRedisBudget(t.Context())
	start := time.Now()
	for range 5 {
		if err := ping(ctx, redis); !errors.Is(err, models.ErrUnavailable) {
			t.Fatal(err)
		}
	}
	if took := time.Since(start); took > 250*time.Millisecond {
		t.Errorf("five calls of one request took %v, the budget is 100 ms", took)
	}
}

func TestRedisThatCannotServeIsUnavailable(t *testing.T) {
	server := servicestest.StartRedis(t)
	redis := newRedis(t, server.Addr)
	server.Do("CONFIG", "SET", "maxmemory", "1")
	_, err := redis.Do(t.Context(), func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		return c.Do(ctx, c.B().Set().Key("test:x").Value("1").Build())
	})
	if !errors.Is(err, models.ErrUnavailable) {
		t.Errorf("OOM: %v", err)
	}
	servicestest.Eventually(t, 5*time.Second, func() bool { return !redis.Available() }, "a full server counts as available")
	server.Do("CONFIG", "SET", "maxmemory", "0")
	servicestest.Eventually(t, time.Second, redis.Available, "not back within 1 s of recovery")
}

func TestRedisLogsOneLinePerChangeOfState(t *testing.T) {
	server := servicestest.StartRedis(t)
	var log servicestest.LogLines
	redis := redisAt(t, server.Addr, services.RedisOptions{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	server.Kill()
	servicestest.Eventually(t, 5*time.Second, func() bool { return !redis.Available() }, "a killed server counts as available")
	for range 100 {
		_ = ping(t.Context(), redis)
	}
	server.Start()
	servicestest.Eventually(t, time.Second, redis.Available, "not back")
	if got := strings.Count(log.String(), "\n"); got != 2 {
		t.Errorf("%d lines, want 2 (down, up):\n%s", got, log.String())
	}
}

func TestRedisRecoverHooksRunBeforeItCountsAsAvailable(t *testing.T) {
	server := servicestest.StartRedis(t)
	redis := newRedis(t, server.Addr)
	type seen struct {
		available bool
		err       error
	}
	runs := make(chan seen, 10)
	redis.OnRecover(func(ctx context.Context) { runs <- seen{redis.Available(), ping(ctx, redis)} })
	server.Kill()
	servicestest.Eventually(t, 5*time.Second, func() bool { return !redis.Available() }, "a killed server counts as available")
	server.Start()
	servicestest.Eventually(t, 2*time.Second, func() bool { return len(runs) > 0 && redis.Available() }, "the hook did not run")
	if got := <-runs; got.available || got.err != nil {
		t.Errorf("hook saw available=%v, call: %v", got.available, got.err)
	}
}

func TestRedisCallerThatLeavesIsNotAFailure(t *testing.T) {
	redis := newRedis(t, servicestest.StartRedis(t).Addr)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 10 {
		if err := ping(ctx, redis); err == nil {
			t.Fatal("a call with an ended context passed")
		}
	}
	if !redis.Available() {
		t.Error("callers that left made Redis count as away")
	}
}

func TestRedisSubscribe(t *testing.T) {
	server := servicestest.StartRedis(t)
	redis := newRedis(t, server.Addr)
	got := make(chan string, 1000)
	redis.Subscribe("hints", func(m string) { got <- m })
	arrives := func() bool {
		_ = redis.Publish(t.Context(), "hints", "hello")
		select {
		case m := <-got:
			return m == "hello"
		default:
			return false
		}
	}
	servicestest.Eventually(t, 3*time.Second, arrives, "no message arrived")
	server.Restart()
	for len(got) > 0 {
		<-got
	}
	servicestest.Eventually(t, 3*time.Second, arrives, "no message arrived after a restart")
}
