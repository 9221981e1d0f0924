package lock_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/services/lock"
	"gatehouse/services/servicestest"
)

// A hand-over costs the same whether 1 or 1000 wait, over several instances: joining
// the queue, the release that grants, and the word that confirms.
func TestLockHandOverCostsTheSameForManyWaiters(t *testing.T) {
	server := servicestest.StartRedis(t)
	all := lockers(t, server, 4, lock.Options{})
	few, many := handOverCost(t, server, all, 1), handOverCost(t, server, all, 1000)
	t.Logf("a hand-over costs %.1f commands with 1 waiter, %.1f with 1000", few, many)
	if many > 1.3*few+3 {
		t.Errorf("a hand-over costs %.1f commands with 1 waiter, %.1f with 1000", few, many)
	}
}

// commandCount is how many commands the server has executed but for those that ask.
type commandCount struct {
	t      *testing.T
	server *servicestest.RedisServer
	own    int
	queue  string // its key
}

func (c *commandCount) now() int {
	c.t.Helper()
	for line := range strings.SplitSeq(c.do("INFO", "stats"), "\n") {
		if n, ok := strings.CutPrefix(strings.TrimSpace(line), "total_commands_processed:"); ok {
			count, err := strconv.Atoi(n)
			if err != nil {
				c.t.Fatal(err)
			}
			return count - c.own
		}
	}
	c.t.Fatal("no count of commands")
	return 0
}

// do is one command that is not counted.
func (c *commandCount) do(args ...string) string {
	c.t.Helper()
	c.own++
	return c.server.Do(args...)
}

// waiting waits until the queue is so long.
func (c *commandCount) waiting(n int) {
	c.t.Helper()
	servicestest.Eventually(c.t, func() bool {
		if c.queue == "" {
			c.queue = c.do("KEYS", "*queue:process:1")
		}
		return c.queue != "" && c.do("ZCARD", c.queue) == strconv.Itoa(n)
	}, fmt.Sprintf("not %d waiting", n))
}

func handOverCost(t *testing.T, server *servicestest.RedisServer, all []*lock.Locker, waiters int) float64 {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	type grant struct {
		l    *lock.Locker
		lock lock.Lock
	}
	grants := make(chan grant)
	wait := func(i int) {
		l := all[i%len(all)]
		wg.Go(func() {
			taken, err := l.Acquire(ctx, request("process:1", bob))
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
	held := grant{all[0], mustAcquire(t, all[0], request("process:1", alice))}
	for i := range waiters {
		wait(i)
	}
	count := &commandCount{t: t, server: server}
	count.waiting(waiters)
	// What the waiting itself costs in that time is not the hand-over's.
	start, before := time.Now(), count.now()
	pause(ctx, 500*time.Millisecond)
	idle := float64(count.now()-before) / time.Since(start).Seconds()
	const rounds = 40
	start, before = time.Now(), count.now()
	for i := range rounds {
		if _, err := held.l.Release(t.Context(), held.lock.Claim); err != nil {
			t.Fatal(err)
		}
		held = <-grants
		wait(i)
		count.waiting(waiters)
	}
	used := float64(count.now()-before) - idle*time.Since(start).Seconds()
	cancel()
	wg.Wait()
	if _, err := held.l.Release(t.Context(), held.lock.Claim); err != nil {
		t.Fatal(err)
	}
	return used / rounds
}
