package bench

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/bsm/redislock"
	"github.com/go-redsync/redsync/v4"
	redsyncgoredis "github.com/go-redsync/redsync/v4/redis/goredis/v9"
	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
	"github.com/redis/rueidis/rueidislock"

	"gatehouse/models"
	"gatehouse/services/lock"
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
				failed <- locker.WithLock(ctx, lock.Request{Resource: "belief", TTL: beliefTTL, Holder: models.Holder{UserID: "1"}},
					func(ctx context.Context, _ lock.Lock) error {
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
			// Without a deadline it gives up after a TTL.
			patience, cancel := context.WithTimeout(ctx, beliefPatience)
			defer cancel()
			_, err := redislock.New(goredis.NewClient(&goredis.Options{Addr: addr})).
				Obtain(patience, "belief", beliefTTL, &redislock.Options{RetryStrategy: redislock.LinearBackoff(20 * time.Millisecond)})
			return ctx, err
		},
	}
}

// overlap is how long the first went on believing after the second was granted the
// lock; told false: for ever.
type overlap struct {
	both time.Duration
	told bool
}

const (
	beliefRounds = 3
	beliefGrain  = 2 * time.Millisecond // how often a process says that it believes
)

// tellOverlaps adds a row: how often and for how long two believed.
func tellOverlaps(what, name string, all []overlap) {
	times, never, longest := 0, 0, time.Duration(0)
	for _, o := range all {
		switch {
		case !o.told:
			never++
		case o.both > 0:
			times++
			longest = max(longest, o.both)
		}
	}
	measured := fmt.Sprintf("%d of %d times", times+never, len(all))
	if times > 0 {
		measured += fmt.Sprintf(", at most %v", longest.Round(time.Millisecond))
	}
	if never > 0 {
		measured += fmt.Sprintf(", %d never told", never)
	}
	goal := ""
	if name == "gatehouse" {
		goal = "0 times"
	}
	tell("two believe, "+what+", "+name, measured, goal, times+never == 0)
}

// TestLockBeliefs prints how often and for how long each contender lets two holders
// believe.
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
			var all []overlap
			for range beliefRounds {
				all = append(all, cutOffHolder(t, name, take, fault.strike))
			}
			tellOverlaps(fault.name, name, all)
		}
	}
}

func cutOffHolder(t *testing.T, name string, take believer, strike func(*servicestest.RedisServer, *servicestest.Proxy)) overlap {
	t.Helper()
	server := servicestest.StartRedis(t)
	proxy := servicestest.NewProxy(t, server.Addr)
	ctx, cancel := context.WithCancel(t.Context())
	defer server.Kill()
	defer proxy.Resume()
	defer cancel()
	first, err := take(ctx, proxy.Addr)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	time.Sleep(beliefTTL * 45 / 100) // just before the first renewal, where there is one
	strike(server, proxy)
	if _, err := take(ctx, server.Addr); err != nil {
		t.Fatalf("%s, the second holder: %v", name, err)
	}
	granted := time.Now()
	if first.Err() != nil {
		return overlap{told: true}
	}
	select {
	case <-first.Done():
		return overlap{both: time.Since(granted), told: true}
	case <-time.After(beliefPatience):
		return overlap{}
	}
}

// pausedHolder makes the test binary, run again, a holder: whose lock, and where.
const pausedHolder, pausedAt = "GATEHOUSE_BENCH_HOLDER", "GATEHOUSE_BENCH_REDIS"

// TestLockHolderProcess is a holder for TestLockBeliefsPaused, in a process of its
// own. It prints each instant at which it believes to hold the lock.
func TestLockHolderProcess(t *testing.T) {
	take, ok := believers(t)[os.Getenv(pausedHolder)]
	if !ok {
		t.Skip("only as a process of another test")
	}
	held, err := take(t.Context(), os.Getenv(pausedAt))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("held")
	for tick := time.NewTicker(beliefGrain); ; <-tick.C {
		at := time.Now()
		if held.Err() != nil {
			fmt.Println("told")
			return
		}
		fmt.Printf("at %d\n", at.UnixNano())
	}
}

// TestLockBeliefsPaused stops the holder's process past its lease, while the next one
// is granted the lock, and lets it go on.
func TestLockBeliefsPaused(t *testing.T) {
	for name, take := range believers(t) {
		var all []overlap
		for range beliefRounds {
			all = append(all, pauseHolder(t, name, take))
		}
		tellOverlaps("holder's process stopped past its lease", name, all)
	}
}

func pauseHolder(t *testing.T, name string, take believer) overlap {
	t.Helper()
	server := servicestest.StartRedis(t)
	defer server.Kill()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	process := servicestest.RunAgain(t, "TestLockHolderProcess", pausedHolder+"="+name, pausedAt+"="+server.Addr)
	servicestest.Eventually(t, func() bool { return len(process.Lines("held")) == 1 }, name+": the holder's process has no lock")
	process.Freeze()
	if _, err := take(ctx, server.Addr); err != nil {
		t.Fatalf("%s, the second holder: %v", name, err)
	}
	granted := time.Now().UnixNano()
	process.Thaw()
	thawed := time.Now()
	var o overlap
	for time.Since(thawed) < beliefPatience/3 {
		if o.told = len(process.Lines("told")) > 0; o.told {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	var first, last int64 // beliefs after the second's grant
	for _, line := range process.Lines("at ") {
		if at, err := strconv.ParseInt(line, 10, 64); err == nil && at > granted {
			first, last = cmp.Or(first, at), at
		}
	}
	if first > 0 {
		o.both = time.Duration(last-first) + beliefGrain
	}
	if !o.told && first == 0 {
		t.Fatalf("%s: the process neither believes nor is told", name)
	}
	if !o.told { // else it ends by itself
		process.Terminate()
	}
	<-process.Ended()
	return o
}
