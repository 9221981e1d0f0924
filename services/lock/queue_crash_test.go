package lock_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"gatehouse/services/lock"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// crashRounds: a single round may meet a busy moment of the machine.
const crashRounds = 5

// median prints what was measured and returns the middle.
func median(t *testing.T, what string, all []time.Duration) time.Duration {
	t.Helper()
	slices.Sort(all)
	for i := range all {
		all[i] = all[i].Round(100 * time.Microsecond)
	}
	t.Logf("%s: %v, median %v", what, all, all[len(all)/2])
	return all[len(all)/2]
}

// A waiter whose instance is gone costs the one behind it at most 250 ms, less the
// time since the instance's last word.
func TestLockDeadWaiterIsPassedOver(t *testing.T) {
	server := servicestest.StartRedis(t)
	all := lockers(t, server, 2, lock.Options{})
	var took []time.Duration
	for range crashRounds {
		took = append(took, passOverDeadWaiter(t, server, all))
	}
	most := 280 * time.Millisecond
	if servicestest.LongProof() { // the machine is quiet
		most = 250 * time.Millisecond
	}
	if m := median(t, "from the release past a dead waiter", took); m > most {
		t.Errorf("the next waiter has the lock after %v", m)
	}
}

func passOverDeadWaiter(t *testing.T, server *servicestest.RedisServer, all []*lock.Locker) time.Duration {
	proxy := servicestest.NewProxy(t, server.Addr)
	cutOff := redistest.New(t, proxy.Addr)
	dead := lock.New(cutOff, lock.Options{})
	held := mustAcquire(t, all[0], request("process:1", alice))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { _, _ = dead.Acquire(ctx, request("process:1", alice)) })
	waitFor(t, all[0], 1)
	granted := make(chan lock.Lock, 1)
	wg.Go(func() {
		taken, err := all[1].Acquire(ctx, request("process:1", bob))
		if err != nil {
			t.Error(err)
		}
		granted <- taken
	})
	waitFor(t, all[0], 2)
	proxy.Cut() // the instance that waits first is gone
	start := time.Now()
	if _, err := all[0].Release(t.Context(), held.Claim); err != nil {
		t.Fatal(err)
	}
	taken := <-granted
	took := time.Since(start)
	if _, err := all[1].Release(t.Context(), taken.Claim); err != nil {
		t.Fatal(err)
	}
	return took
}

// Nobody extends or releases a crashed holder's lock: the next waiter has it within
// 100 ms of the end of the lease.
func TestLockCrashedHolderIsFollowedByTheNextWaiter(t *testing.T) {
	for _, backend := range []string{"redis-server", "embedded"} {
		t.Run(backend, func(t *testing.T) {
			l := lock.New(redistest.Of(t, backend), lock.Options{})
			var late []time.Duration
			for range crashRounds {
				req := request("process:1", alice)
				req.TTL = 300 * time.Millisecond
				held := mustAcquire(t, l, req)
				next, err := l.Acquire(t.Context(), request("process:1", bob))
				if err != nil {
					t.Fatal(err)
				}
				late = append(late, time.Since(held.ExpiresAt))
				if _, err := l.Release(t.Context(), next.Claim); err != nil {
					t.Fatal(err)
				}
			}
			if m := median(t, "from the end of the lease to the next grant", late); m > 100*time.Millisecond {
				t.Errorf("granted %v after the lease ended", m)
			}
		})
	}
}
