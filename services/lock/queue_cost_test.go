package lock

import (
	"context"
	"errors"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// A hand-over costs the same whether 1 or 300 wait, over several instances: joining the queue, the
// release that grants, and the call that confirms.
func TestQueueCostsTheSameForManyWaiters(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	all := instances(t, server, 4)
	const waiters = 300
	few, _ := handOverCost(t, server, all, 1)
	many, asked := handOverCost(t, server, all, waiters)
	most := 1.3*few + 3
	if asked > 0 { // a slow machine: those that heard nothing for long ask again
		most += waiters / 4
	}
	if many > most || (asked == 0 && many < 1) {
		t.Errorf("a hand-over costs %.1f commands with 1 waiter, %.1f with 300", few, many)
	}
}

// handOverCosts are the commands of a hand-over that no heartbeat executes.
var handOverCosts = regexp.MustCompile(`cmdstat_(?:hset|hget|hdel|set):calls=(\d+)`)

// handOverCost is how many commands a hand-over takes, but for those of waiters that ask again because
// they have waited for long: asked are as many at most.
func handOverCost(t *testing.T, server *servicestest.RedisServer, all []*Locker, waiters int) (commands float64, asked int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	type grant struct {
		*Locker
		Lock
	}
	grants := make(chan grant)
	wait := func(i int) {
		l := all[i%len(all)]
		wg.Go(func() {
			taken, err := l.Acquire(ctx, request("r", bob))
			for errors.Is(err, models.ErrUnavailable) && ctx.Err() == nil { // a busy machine
				taken, err = l.Acquire(ctx, request("r", bob))
			}
			if err != nil {
				return
			}
			select {
			case grants <- grant{l, taken}:
			case <-ctx.Done():
				_, _ = l.Release(t.Context(), taken.Claim)
			}
		})
	}
	count := func() (n int) {
		for _, found := range handOverCosts.FindAllStringSubmatch(server.Do("INFO", "commandstats"), -1) {
			calls, err := strconv.Atoi(found[1])
			if err != nil {
				t.Fatal(err)
			}
			n += calls
		}
		return n
	}
	start := time.Now()
	held := grant{all[0], take(t, all[0], request("r", alice))}
	for i := range waiters {
		wait(i)
	}
	waiting(t, all[0], "r", waiters)
	const rounds = 40
	before := count()
	for i := range rounds {
		giveBack(t, held.Locker, held.Lock)
		held = <-grants
		wait(i)
		waiting(t, all[0], "r", waiters)
	}
	used := count() - before
	asked = int(time.Since(start)/(waiterAsk*3/4)) * waiters
	cancel()
	wg.Wait()
	giveBack(t, held.Locker, held.Lock)
	return float64(used-min(used, asked)) / rounds, asked
}
