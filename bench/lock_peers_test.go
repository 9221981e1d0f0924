package bench

import (
	"context"
	"testing"
	"time"

	"github.com/bsm/redislock"
	"github.com/go-redsync/redsync/v4"
	redsyncgoredis "github.com/go-redsync/redsync/v4/redis/goredis/v9"
	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
	"github.com/redis/rueidis/rueidislock"

	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/services/servicestest"
)

const (
	beliefTTL      = 2 * time.Second
	beliefPatience = 6 * time.Second // a holder who is not told by then never is
)

// believer takes the lock and returns its context, which ends when the holder is
// told that it is over.
type believer func(ctx context.Context, addr string) (held context.Context, err error)

func believers(t *testing.T) map[string]believer {
	return map[string]believer{
		"gatehouse": func(ctx context.Context, addr string) (context.Context, error) {
			holding := make(chan context.Context, 1)
			failed := make(chan error, 1)
			locker := newBenchLocker(t, addr)
			go func() {
				failed <- locker.WithLock(ctx, services.LockRequest{Resource: "belief", TTL: beliefTTL, Holder: models.Holder{UserID: "1"}},
					func(ctx context.Context, _ services.Lock) error {
						holding <- ctx
						<-ctx.Done()
						return nil
					})
			}()
			select {
			case held := <-holding:
				return held, nil
			case err := <-failed:
				return nil, err
			}
		},
		"rueidislock": func(ctx context.Context, addr string) (context.Context, error) {
			locker, err := rueidislock.NewLocker(rueidislock.LockerOption{
				ClientOption: rueidis.ClientOption{InitAddress: []string{addr}}, KeyMajority: 1, NoLoopTracking: true,
				KeyValidity: beliefTTL, ExtendInterval: beliefTTL / 2, TryNextAfter: 20 * time.Millisecond,
			})
			if err != nil {
				return nil, err
			}
			t.Cleanup(locker.Close)
			held, _, err := locker.WithContext(ctx, "belief")
			return held, err
		},
		"redsync": func(ctx context.Context, addr string) (context.Context, error) {
			m := redsync.New(redsyncgoredis.NewPool(goredis.NewClient(&goredis.Options{Addr: addr}))).
				NewMutex("belief", redsync.WithExpiry(beliefTTL), redsync.WithTries(1000), redsync.WithRetryDelay(20*time.Millisecond))
			return ctx, m.LockContext(ctx)
		},
		"bsm/redislock": func(ctx context.Context, addr string) (context.Context, error) {
			_, err := redislock.New(goredis.NewClient(&goredis.Options{Addr: addr})).
				Obtain(ctx, "belief", beliefTTL, &redislock.Options{RetryStrategy: redislock.LinearBackoff(20 * time.Millisecond)})
			return ctx, err
		},
	}
}

// TestLockBeliefs prints for how long each contender lets two holders believe.
func TestLockBeliefs(t *testing.T) {
	for _, fault := range []struct {
		name   string
		strike func(*servicestest.RedisServer, *servicestest.Proxy)
	}{
		{"holder cut off", func(_ *servicestest.RedisServer, p *servicestest.Proxy) { p.Cut() }},
		{"holder cut off, half open", func(_ *servicestest.RedisServer, p *servicestest.Proxy) { p.Stall() }},
		{"Redis frozen, holder alone cut off at its return", func(s *servicestest.RedisServer, p *servicestest.Proxy) {
			s.Freeze()
			time.Sleep(beliefTTL / 2)
			p.Stall()
			s.Thaw()
		}},
	} {
		for name, take := range believers(t) {
			server := servicestest.StartRedis(t)
			proxy := servicestest.NewProxy(t, server.Addr)
			ctx, cancel := context.WithCancel(t.Context())
			first, err := take(ctx, proxy.Addr)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			time.Sleep(beliefTTL * 45 / 100) // just before the first renewal, where there is one
			fault.strike(server, proxy)
			if _, err := take(ctx, server.Addr); err != nil {
				t.Fatalf("%s, the second holder: %v", name, err)
			}
			granted := time.Now()
			both := "0s: the first was told before"
			if first.Err() == nil {
				select {
				case <-first.Done():
					both = time.Since(granted).Round(time.Millisecond).String()
				case <-time.After(beliefPatience):
					both = "never told"
				}
			}
			goal := ""
			if name == "gatehouse" {
				goal = "0s"
			}
			tell("two believe, "+fault.name+", "+name, both, goal, both[:2] == "0s")
			cancel()
			proxy.Resume()
			server.Kill()
		}
	}
}
