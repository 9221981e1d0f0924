package lock

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// TestProofServerEmptiedOverAndOver: however often the server loses all it has, no
// lock is lost, every waiter keeps its place, and no newcomer gets between. The locks
// are many in each shard: what is put back must not look like what was there before.
func TestProofServerEmptiedOverAndOver(t *testing.T) {
	for _, instances := range []int{1, 3} {
		t.Run(fmt.Sprint(instances, " instances"), func(t *testing.T) {
			f := emptiedField(t, instances)
			f.queueAll(3)
			restart := func() { f.server.Kill(); f.server.Start() }
			flush := func() { f.server.Do("FLUSHALL") }
			for round, empty := range []func(){restart, flush, restart} {
				ctx, stop := context.WithCancel(t.Context())
				var newcomers sync.WaitGroup
				empty()
				returned := time.Now()
				if round == 1 { // without Redis another instance may grant a newcomer what it does not know of
					for _, l := range f.lockers {
						newcomers.Go(func() { f.tryAll(ctx, l) })
					}
				}
				f.wantHeld(fmt.Sprintf("round %d", round))
				t.Logf("round %d: %d locks are back after %v", round, len(f.held), time.Since(returned).Round(time.Millisecond))
				stop()
				newcomers.Wait()
				f.wantQueued(fmt.Sprintf("round %d", round))
				f.wantHeld(fmt.Sprintf("round %d, the waiters are back", round))
			}
			f.wantServedInTurn()
			if lost := f.lost.With("did not survive"); len(lost) > 0 {
				t.Errorf("%d locks did not survive: %q", len(lost), lost[0])
			}
		})
	}
}

type emptied struct {
	*field
	lost   *servicestest.LogLines
	held   []Lock
	queues map[string]chan int // by resource: who is served, in turn
	places int
	end    context.CancelFunc
	wg     sync.WaitGroup
}

func emptiedField(t *testing.T, instances int) *emptied {
	f := &emptied{field: &field{t: t, server: servicestest.StartRedis(t)}, lost: &servicestest.LogLines{}, queues: map[string]chan int{}}
	opt := Options{OnRedisDown: models.OnRedisDownOpen, Logger: slog.New(slog.NewTextHandler(f.lost, nil))}
	locks := 1000
	if !servicestest.LongProof() { // beside other tests holders may need longer than 2 s
		locks, opt.grace = 400, time.Minute
	}
	for range instances {
		f.lockers = append(f.lockers, at(t, f.server.Addr, patient, opt))
	}
	if instances > 1 {
		acquainted(t, f.lockers...)
	}
	f.held = holdMany(t, f.lockers, "many", locks)
	return f
}

// wantHeld wants every lock to be its holder's again.
func (f *emptied) wantHeld(when string) {
	f.t.Helper()
	servicestest.Eventually(f.t, func() bool { return stillHeld(f.t, f.lockers[0], f.held) == len(f.held) }, when+": a lock is lost")
}

// wantQueued wants every waiter in its queue again.
func (f *emptied) wantQueued(when string) {
	f.t.Helper()
	for resource := range f.queues {
		servicestest.Eventually(f.t, func() bool {
			s, err := f.lockers[0].Status(f.t.Context(), resource)
			return err == nil && !s.Degraded && s.Waiting == f.places
		}, when+": a waiter of "+resource+" is lost")
	}
}

// queueAll lets so many waiters queue for some of the locks, each on the next instance.
func (f *emptied) queueAll(places int) {
	f.t.Helper()
	ctx, end := context.WithCancel(f.t.Context())
	f.end, f.places = end, places
	f.t.Cleanup(func() { end(); f.wg.Wait() })
	for i := 0; i < len(f.held); i += len(f.held) / 20 {
		resource := f.held[i].Resource
		served := make(chan int, places)
		f.queues[resource] = served
		for place := range places {
			l := f.lockers[(i+1+place)%len(f.lockers)]
			f.wg.Go(func() {
				taken, err := l.Acquire(ctx, request(resource, bob))
				if ctx.Err() != nil {
					return
				}
				if err != nil {
					f.t.Errorf("waiter %d of %s: %v", place, resource, err)
					return
				}
				served <- place
				if _, err := l.Release(ctx, taken.Claim); err != nil {
					f.t.Errorf("waiter %d of %s gives back: %v", place, resource, err)
				}
			})
			waiting(f.t, l, resource, place+1)
		}
	}
}

// wantServedInTurn lets the holders give their locks back.
func (f *emptied) wantServedInTurn() {
	f.t.Helper()
	began := time.Now()
	for i, taken := range f.held {
		if _, err := f.lockers[(i+1)%len(f.lockers)].Release(f.t.Context(), taken.Claim); err != nil {
			f.t.Errorf("%s is not its holder's: %v", taken.Resource, err)
		}
	}
	f.wg.Wait()
	for resource, served := range f.queues {
		for want := range f.places {
			select {
			case got := <-served:
				if got != want && servicestest.Slack(began) < 10*waiterAlive { // else an instance may have been silent
					f.t.Errorf("%s: waiter %d was served in place of %d", resource, got, want)
				}
			default:
				f.t.Errorf("%s: waiter %d was not served", resource, want)
			}
		}
	}
}

// tryAll tries to take what others hold until ctx ends.
func (f *emptied) tryAll(ctx context.Context, l *Locker) {
	for ctx.Err() == nil {
		for i := 0; i < len(f.held) && ctx.Err() == nil; i += 10 {
			taken, err := l.TryAcquire(f.t.Context(), request(f.held[i].Resource, bob))
			if err == nil {
				f.t.Errorf("a newcomer was granted %s (degraded: %t)", taken.Resource, taken.Degraded)
			}
		}
	}
}
