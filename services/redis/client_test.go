package redis_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

func ping(ctx context.Context, rdb *redis.Client) error {
	_, err := rdb.Do(ctx, func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		return c.Do(ctx, c.B().Ping().Build())
	})
	return err
}

func TestFrozenServerCostsOneDeadlineThenNothing(t *testing.T) {
	server := servicestest.StartRedis(t)
	rdb := redistest.New(t, server.Addr)
	server.Freeze()
	start := time.Now()
	if err := ping(t.Context(), rdb); !errors.Is(err, models.ErrUnavailable) {
		t.Fatalf("frozen: %v", err)
	}
	if took := time.Since(start); took > 500*time.Millisecond {
		t.Errorf("the first call took %v", took)
	}
	servicestest.Eventually(t, func() bool { return !rdb.Available() }, "Redis still counts as available")
	start = time.Now()
	for range 1000 {
		if err := ping(t.Context(), rdb); !errors.Is(err, models.ErrUnavailable) {
			t.Fatal(err)
		}
	}
	if took := time.Since(start); took > 500*time.Millisecond {
		t.Errorf("1,000 calls without Redis took %v", took)
	}
	server.Thaw()
	servicestest.Within(t, time.Second, rdb.Available, "not back within 1 s of recovery")
	if err := ping(t.Context(), rdb); err != nil {
		t.Errorf("after recovery: %v", err)
	}
}

func TestServerKilledAndBack(t *testing.T) {
	server := servicestest.StartRedis(t)
	rdb := redistest.New(t, server.Addr)
	for range 2 {
		server.Kill()
		servicestest.Eventually(t, func() bool { return !rdb.Available() }, "a killed server counts as available")
		server.Start()
		servicestest.Within(t, time.Second, rdb.Available, "not back within 1 s of recovery")
	}
}

func TestServerNeverThere(t *testing.T) {
	start := time.Now()
	rdb := redistest.Start(t, redis.Options{Client: rueidis.ClientOption{InitAddress: []string{servicestest.FreeAddr(t)}}})
	if err := ping(t.Context(), rdb); !errors.Is(err, models.ErrUnavailable) || rdb.Status() != "down" {
		t.Errorf("%v, %s", err, rdb.Status())
	}
	if took := time.Since(start); took > 300*time.Millisecond {
		t.Errorf("New and a call took %v", took)
	}
}

// A program that waits for a Redis that is not there goes on without it.
func TestWaitReadyIsBounded(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t, redis.Options{Client: rueidis.ClientOption{InitAddress: []string{servicestest.FreeAddr(t)}}})
	waited := make(chan struct{})
	go func() { rdb.WaitReady(context.Background()); close(waited) }()
	select {
	case <-waited:
	case <-time.After(20 * time.Second):
		t.Error("still waiting after 20 s")
	}
}

func TestDisabled(t *testing.T) {
	rdb := redistest.Start(t, redis.Options{Disabled: true})
	if err := ping(t.Context(), rdb); !errors.Is(err, models.ErrUnavailable) || rdb.Status() != "disabled" || rdb.Available() {
		t.Errorf("%v, %s", err, rdb.Status())
	}
}

func TestBudgetIsSharedByTheCallsOfARequest(t *testing.T) {
	server := servicestest.StartRedis(t)
	rdb := redistest.New(t, server.Addr)
	server.Freeze()
	ctx := redis.WithBudget(t.Context())
	start := time.Now()
	for range 5 {
		if err := ping(ctx, rdb); !errors.Is(err, models.ErrUnavailable) {
			t.Fatal(err)
		}
	}
	if took := time.Since(start); took > 250*time.Millisecond {
		t.Errorf("five calls of one request took %v, the budget is 100 ms", took)
	}
}

func TestServerThatCannotServeIsUnavailable(t *testing.T) {
	server := servicestest.StartRedis(t)
	rdb := redistest.New(t, server.Addr)
	server.Do("CONFIG", "SET", "maxmemory", "1")
	_, err := rdb.Do(t.Context(), func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		return c.Do(ctx, c.B().Set().Key("test:x").Value("1").Build())
	})
	if !errors.Is(err, models.ErrUnavailable) {
		t.Errorf("OOM: %v", err)
	}
	servicestest.Eventually(t, func() bool { return !rdb.Available() }, "a full server counts as available")
	server.Do("CONFIG", "SET", "maxmemory", "0")
	servicestest.Within(t, time.Second, rdb.Available, "not back within 1 s of recovery")
}

func TestLogsOneLinePerChangeOfState(t *testing.T) {
	server := servicestest.StartRedis(t)
	var log servicestest.LogLines
	rdb := redistest.At(t, server.Addr, redis.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	server.Kill()
	servicestest.Eventually(t, func() bool { return !rdb.Available() }, "a killed server counts as available")
	for range 100 {
		_ = ping(t.Context(), rdb)
	}
	server.Start()
	servicestest.Within(t, time.Second, rdb.Available, "not back")
	if got := strings.Count(log.String(), "\n"); got != 2 {
		t.Errorf("%d lines, want 2 (down, up):\n%s", got, log.String())
	}
}

func TestRecoverHooksRunBeforeItCountsAsAvailable(t *testing.T) {
	server := servicestest.StartRedis(t)
	rdb := redistest.New(t, server.Addr)
	type seen struct {
		available bool
		err       error
	}
	runs := make(chan seen, 10)
	rdb.OnRecover(func(ctx context.Context) { runs <- seen{rdb.Available(), ping(ctx, rdb)} })
	server.Kill()
	servicestest.Eventually(t, func() bool { return !rdb.Available() }, "a killed server counts as available")
	server.Start()
	servicestest.Within(t, 2*time.Second, func() bool { return len(runs) > 0 && rdb.Available() }, "the hook did not run")
	if got := <-runs; got.available || got.err != nil {
		t.Errorf("hook saw available=%v, call: %v", got.available, got.err)
	}
}

func TestCallerThatLeavesIsNotAFailure(t *testing.T) {
	rdb := redistest.New(t, servicestest.StartRedis(t).Addr)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 10 {
		if err := ping(ctx, rdb); err == nil {
			t.Fatal("a call with an ended context passed")
		}
	}
	if !rdb.Available() {
		t.Error("callers that left made Redis count as away")
	}
}

func TestSubscribe(t *testing.T) {
	server := servicestest.StartRedis(t)
	rdb := redistest.New(t, server.Addr)
	got := make(chan string, 1000)
	rdb.Subscribe("hints", func(m string) { got <- m })
	arrives := func() bool {
		_ = rdb.Publish(t.Context(), "hints", "hello")
		select {
		case m := <-got:
			return m == "hello"
		default:
			return false
		}
	}
	servicestest.Within(t, 3*time.Second, arrives, "no message arrived")
	server.Restart()
	for len(got) > 0 {
		<-got
	}
	servicestest.Within(t, 3*time.Second, arrives, "no message arrived after a restart")
}

// Two clients with other prefixes share a server and a registry, and nothing else.
func TestTwoClientsInOneProgram(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	registry := prometheus.NewRegistry()
	start := func(app string) (*redis.Client, chan string) {
		rdb := redistest.Start(t, redis.Options{
			Client: rueidis.ClientOption{InitAddress: []string{server.Addr}}, KeyPrefix: app + ":", Timeout: 5 * time.Second,
			Metrics: prometheus.WrapRegistererWith(prometheus.Labels{"app": app}, registry),
		})
		redistest.WaitReady(t, rdb)
		got := make(chan string, 1000)
		rdb.Subscribe("hints", func(m string) { got <- m })
		return rdb, got
	}
	shop, toShop := start("shop")
	_, toBlog := start("blog")
	servicestest.Eventually(t, func() bool {
		n, err := shop.Subscribers(t.Context(), "hints")
		return err == nil && n == 1 && strings.Contains(server.Do("PUBSUB", "CHANNELS"), "blog:hints")
	}, "not subscribed")
	if err := shop.Publish(t.Context(), "hints", "hello"); err != nil {
		t.Fatal(err)
	}
	if m := <-toShop; m != "hello" || len(toBlog) > 0 {
		t.Errorf("the shop got %q, the blog %d messages", m, len(toBlog))
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "gatehouse_redis_up" && len(family.GetMetric()) != 2 {
			t.Errorf("%d clients are measured", len(family.GetMetric()))
		}
	}
}
