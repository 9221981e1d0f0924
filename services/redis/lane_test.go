package redis

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/services/servicestest"
)

// redisAt is a client connected to addr, with what else opt says.
func redisAt(t testing.TB, addr string, opt Options) *Client {
	t.Helper()
	opt.Client.InitAddress, opt.KeyPrefix, opt.Logger = []string{addr}, "test:", slog.New(slog.DiscardHandler)
	redis := New(opt)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := redis.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	servicestest.Eventually(t, 5*time.Second, redis.Available, "Redis did not become available")
	return redis
}

// openLane is a client of server whose lane is open.
func openLane(t *testing.T, server *servicestest.RedisServer) *Client {
	t.Helper()
	r := redisAt(t, server.Addr, Options{})
	waitForLane(t, r)
	return r
}

func waitForLane(t *testing.T, r *Client) {
	t.Helper()
	servicestest.Eventually(t, 5*time.Second, func() bool { return r.Available() && r.lane.live.now() }, "the lane is not open")
}

func pingBy(r *Client, which *rueidis.Client) error {
	_, err := r.Do(context.Background(), func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		*which = c
		return c.Do(ctx, c.B().Ping().Build())
	})
	return err
}

// One call has the lane; what comes meanwhile goes on the shared connection.
func TestLaneIsForACallThatIsAlone(t *testing.T) {
	r := openLane(t, servicestest.StartRedis(t))
	// The probe, which has the lane now and then, must not be on it.
	servicestest.Eventually(t, 5*time.Second, func() bool {
		var first, second rueidis.Client
		_, err := r.Do(t.Context(), func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
			first = c
			if err := pingBy(r, &second); err != nil {
				t.Error(err)
			}
			return c.Do(ctx, c.B().Ping().Build())
		})
		if err != nil || second != *r.client.Load() {
			t.Errorf("the second call is not on the shared connection, or failed: %v", err)
		}
		return first == *r.lane.client.Load()
	}, "a call that is alone does not have the lane")
}

// What follows a call whose caller left would overtake it on the lane.
func TestLaneIsClosedWhileAnAbandonedCallMayBeUnderWay(t *testing.T) {
	server := servicestest.StartRedis(t)
	r := openLane(t, server)
	shared := *r.client.Load()
	ctx, cancel := context.WithCancel(t.Context())
	server.Freeze()
	time.AfterFunc(10*time.Millisecond, cancel)
	_, err := onShared(ctx, r, shared, func(ctx context.Context, c rueidis.Client) (int64, error) {
		return c.Do(ctx, c.B().Incr().Key("abandoned").Build()).AsInt64()
	})
	server.Thaw()
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if r.lane.take() != nil {
		t.Fatal("the lane is open although a call before is not answered")
	}
	var on rueidis.Client
	if err := pingBy(r, &on); err != nil || on != shared {
		t.Fatalf("the next call is not behind the abandoned one: %v", err)
	}
	if got := server.Do("GET", "abandoned"); got == "" {
		t.Error("the shared connection was answered, but not in order")
	}
	servicestest.Eventually(t, 5*time.Second, func() bool { return pingBy(r, &on) == nil && on != shared }, "the lane is not open again")
}

// The lane keeps to the deadline, also when Redis hangs, and comes back with it.
func TestLaneOfAFrozenRedis(t *testing.T) {
	server := servicestest.StartRedis(t)
	r := openLane(t, server)
	var on rueidis.Client
	// The probe, which has the lane now and then, must not be on it.
	servicestest.Eventually(t, 20*time.Second, func() bool {
		waitForLane(t, r)
		onLane := *r.lane.client.Load()
		server.Freeze()
		defer server.Thaw()
		start := time.Now()
		err := pingBy(r, &on)
		if took := time.Since(start); err == nil || took > time.Second {
			t.Errorf("a call took %v: %v", took, err)
		}
		return on == onLane
	}, "no call had the lane: nothing is proven")
	waitForLane(t, r)
	if err := pingBy(r, &on); err != nil {
		t.Error(err)
	}
}
