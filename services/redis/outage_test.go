package redis_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// back is how long after a server's return it is used at the latest.
const back = time.Second

// outage is a server that a test breaks, and a client of it.
type outage struct {
	t      *testing.T
	server *servicestest.RedisServer
	rdb    *redis.Client
	log    servicestest.LogLines
}

func newOutage(t *testing.T) *outage {
	t.Helper()
	t.Parallel()
	o := &outage{t: t, server: servicestest.StartRedis(t)}
	o.rdb = redistest.At(t, o.server.Addr, redis.Options{Timeout: 100 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(&o.log, nil))})
	return o
}

func (o *outage) waitAway() {
	o.t.Helper()
	servicestest.Eventually(o.t, func() bool { return !o.rdb.Available() }, "Redis still counts as available")
}

func (o *outage) waitBack() {
	o.t.Helper()
	servicestest.Within(o.t, back, o.rdb.Available, "Redis does not count as available")
}

// sendsNothing fails the test if a call reaches the connection.
func (o *outage) sendsNothing(calls int) {
	o.t.Helper()
	for range calls {
		_, err := o.rdb.Do(o.t.Context(), func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
			o.t.Error("a call is sent")
			return c.Do(ctx, c.B().Ping().Build())
		})
		if !errors.Is(err, redis.ErrNotSent) {
			o.t.Error(err)
		}
	}
}

func TestOutage(t *testing.T) {
	t.Parallel()
	t.Run("a frozen server costs one Timeout, then nothing", func(t *testing.T) {
		o := newOutage(t)
		o.server.Freeze()
		start := time.Now()
		if err := ping(t.Context(), o.rdb); !errors.Is(err, models.ErrUnavailable) {
			t.Fatalf("frozen: %v", err)
		}
		if took := time.Since(start); took > o.rdb.Timeout()+servicestest.Slack(start) {
			t.Errorf("the first call took %v", took)
		}
		o.waitAway()
		o.sendsNothing(1000)
		o.server.Thaw()
		o.waitBack()
		if err := ping(t.Context(), o.rdb); err != nil {
			t.Errorf("after recovery: %v", err)
		}
	})
	t.Run("a server that is killed is used again, and each change is one line in the log", func(t *testing.T) {
		o := newOutage(t)
		for range 2 {
			o.log.Reset()
			o.server.Kill()
			o.waitAway()
			for range 100 {
				_ = ping(t.Context(), o.rdb)
			}
			o.server.Start()
			o.waitBack()
			servicestest.Eventually(t, func() bool { return len(o.log.With("is available")) == 1 }, "its return is not logged")
			if lines := o.log.With(""); len(lines) != 2 {
				t.Errorf("%d lines, want 2 (down, up):\n%s", len(lines), o.log.String())
			}
		}
	})
	t.Run("a server that is full counts as away", func(t *testing.T) {
		o := newOutage(t)
		o.server.Do("CONFIG", "SET", "maxmemory", "1")
		_, err := o.rdb.Do(t.Context(), func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
			return c.Do(ctx, c.B().Set().Key("test:x").Value("1").Build())
		})
		if !errors.Is(err, models.ErrUnavailable) {
			t.Errorf("OOM: %v", err)
		}
		o.waitAway()
		o.server.Do("CONFIG", "SET", "maxmemory", "0")
		o.waitBack()
	})
	t.Run("callers that leave do not make it count as away", func(t *testing.T) {
		o := newOutage(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for range 10 {
			if err := ping(ctx, o.rdb); err == nil {
				t.Fatal("a call with an ended context passed")
			}
		}
		if !o.rdb.Available() {
			t.Error("callers that left made Redis count as away")
		}
	})
}

// What was done without Redis is there before others use it: a server counts as away until the
// hooks are done, whatever the calls of the hooks, or those under way, are answered meanwhile.
func TestRecoveryHooks(t *testing.T) {
	o := newOutage(t)
	answers, leave := make(chan error, 100), make(chan struct{})
	o.rdb.OnRecover(func(ctx context.Context) {
		answers <- ping(ctx, o.rdb)
		<-leave
	})
	o.server.Kill()
	servicestest.Eventually(t, func() bool {
		return ping(t.Context(), o.rdb) != nil && !o.rdb.Available() // a call that fails makes one that is answered count
	}, "Redis still counts as available")
	o.server.Start()
	if err := <-answers; err != nil {
		t.Errorf("a call of the hook: %v", err)
	}
	if o.rdb.Available() || o.rdb.Status() != "down" {
		t.Errorf("it counts as available before the hook is done: %s", o.rdb.Status())
	}
	o.sendsNothing(10)
	close(leave)
	o.waitBack()
}
