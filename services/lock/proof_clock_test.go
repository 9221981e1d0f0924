package lock_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/rueidis"

	"gatehouse/services/lock"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
)

// TestProofLockServerClockDiffers: instances never compare clocks with each other, only
// with the server, and of the server's they use spans. Here the server's is 5 s off;
// those of instances are in the fault matrix.
func TestProofLockServerClockDiffers(t *testing.T) {
	t.Parallel()
	for _, off := range []time.Duration{-5 * time.Second, 5 * time.Second} {
		t.Run(off.String(), func(t *testing.T) {
			server := miniredis.RunT(t)
			server.SetTime(time.Now().Add(off))
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var wg sync.WaitGroup
			wg.Go(func() {
				for last := time.Now(); ctx.Err() == nil; {
					pause(ctx, 2*time.Millisecond)
					now := time.Now()
					server.SetTime(now.Add(off))
					server.FastForward(now.Sub(last))
					last = now
				}
			})
			f := &field{t: t, long: 4}
			for range 2 {
				rdb := redistest.Start(t, redis.Options{
					Client: rueidis.ClientOption{InitAddress: []string{server.Addr()}}, Embedded: true, KeyPrefix: "test:", Timeout: time.Second,
				})
				redistest.WaitReady(t, rdb)
				f.lockers = append(f.lockers, lock.New(rdb, lock.Options{Logger: redistest.Quiet()}))
			}
			working, rest := context.WithCancel(t.Context())
			defer rest()
			var workers sync.WaitGroup
			for i, l := range f.lockers {
				workers.Go(func() { f.work(working, l, []string{"a", "b"}[i], "r:0", rand.New(rand.NewPCG(1, uint64(i)))) })
			}
			pause(t.Context(), 2*time.Second)
			rest()
			allEnd(t, &workers)
			stop()
			wg.Wait()
			checkBeliefs(t, f.beliefs)
			if f.failed > 0 || len(f.beliefs) < 10 {
				t.Errorf("%d holds, %d calls failed", len(f.beliefs), f.failed)
			}
			t.Logf("%d holds, none at a time with another", len(f.beliefs))
		})
	}
}
