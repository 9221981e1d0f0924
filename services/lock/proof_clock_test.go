package lock

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
	"github.com/redis/rueidis"

	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// TestProofServerClockDiffers: instances never compare clocks with each other, only with the server,
// and of the server's they use spans. Here the server's is 5 s off; those of instances are in the
// fault matrix.
func TestProofServerClockDiffers(t *testing.T) {
	t.Parallel()
	for _, off := range []time.Duration{-5 * time.Second, 5 * time.Second} {
		t.Run(off.String(), func(t *testing.T) {
			t.Parallel()
			mini := miniredis.RunT(t)
			mini.ClockTTL(true)
			var mu sync.Mutex
			mini.Server().SetPreHook(func(_ *server.Peer, cmd string, _ ...string) bool {
				if cmd == "EVAL" || cmd == "EVALSHA" { // not what a script calls
					mu.Lock()
					defer mu.Unlock()
					mini.SetTime(time.Now().Add(off))
				}
				return false
			})
			f := &field{t: t, long: 4, patience: time.Minute}
			for range 2 {
				rdb := redistest.Start(t, redis.Options{
					Client: rueidis.ClientOption{InitAddress: []string{mini.Addr()}}, Embedded: true, KeyPrefix: "test:", Timeout: patient,
				})
				redistest.WaitReady(t, rdb)
				f.lockers = append(f.lockers, New(rdb, Options{Logger: redistest.Quiet()}))
			}
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var workers sync.WaitGroup
			for i, l := range f.lockers {
				workers.Go(func() { f.work(ctx, l, []string{"a", "b"}[i], "r:0", rand.New(rand.NewPCG(1, uint64(i)))) })
			}
			servicestest.Eventually(t, func() bool { return f.holds(time.Time{}) >= 12 }, "too few holds: nothing is proven")
			stop()
			allEnd(t, &workers)
			checkBeliefs(t, f.beliefs)
			if f.failed > 0 {
				t.Errorf("%d calls failed", f.failed)
			}
		})
	}
}
