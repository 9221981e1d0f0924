package lock_test

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"gatehouse/models"
	"gatehouse/services/lock"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// TestProofLockServerEmptiedOverAndOver: however often the server loses all it has, no
// lock is lost, every waiter keeps its place, and no newcomer gets between. The locks
// are many in each shard: what is put back must not look like what was there before.
func TestProofLockServerEmptiedOverAndOver(t *testing.T) {
	for _, instances := range []int{1, 3} {
		t.Run(fmt.Sprint(instances, " instances"), func(t *testing.T) {
			f := emptiedField(t, instances)
			f.queueUp(3)
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
			if lost := f.lost.count(); lost > 0 {
				t.Errorf("the log tells of %d locks that did not survive", lost)
			}
		})
	}
}

type emptied struct {
	*field
	lost   *lostLines
	held   []lock.Lock
	queues map[string]chan int // by resource: who is served, in turn
	places int
	end    context.CancelFunc
	wg     sync.WaitGroup
}

func emptiedField(t *testing.T, instances int) *emptied {
	f := &emptied{field: &field{t: t, server: servicestest.StartRedis(t)}, lost: &lostLines{}, queues: map[string]chan int{}}
	for range instances {
		rdb := redistest.At(t, f.server.Addr, redis.Options{Timeout: time.Second})
		f.redis = append(f.redis, rdb)
		f.lockers = append(f.lockers, lock.New(rdb, lock.Options{OnRedisDown: models.OnRedisDownOpen, Logger: slog.New(f.lost)}))
	}
	for _, l := range f.lockers {
		servicestest.Eventually(t, func() bool { return l.Alone() == (instances == 1) }, "the instances do not know of each other")
	}
	f.held = holdMany(t, f.lockers, "many", 1000)
	return f
}

// holdMany lets the instances hold so many locks of that name, over all shards but the one of
// except.
func holdMany(t *testing.T, all []*lock.Locker, name string, locks int, except ...string) []lock.Lock {
	t.Helper()
	var held []lock.Lock
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(8)
	deadline := time.Now().Add(time.Minute)
	for i := range locks {
		req := lock.Request{Resource: fmt.Sprint(name, ":", i), Holder: alice, TTL: 10 * time.Minute, Token: lock.NewToken()}
		if slices.ContainsFunc(except, func(resource string) bool { return shard(resource) == shard(req.Resource) }) {
			continue
		}
		group.Go(func() error {
			for {
				taken, err := all[i%len(all)].TryAcquire(t.Context(), req)
				if errors.Is(err, models.ErrUnavailable) && time.Now().Before(deadline) { // a busy machine
					pause(t.Context(), 10*time.Millisecond)
					continue
				}
				mu.Lock()
				defer mu.Unlock()
				held = append(held, taken)
				if err == nil && taken.Degraded {
					return errors.New("not granted by Redis")
				}
				return err
			}
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	return held
}

// shard is the shard of a resource, as Locker spreads them.
func shard(resource string) uint32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(resource))
	return h.Sum32() % 16
}

// stillHeld are how many of the locks have their holder, as Redis answers any instance.
func stillHeld(t *testing.T, l *lock.Locker, held []lock.Lock) (found int) {
	t.Helper()
	grants := map[string]string{}
	for page := (models.Page{Limit: 200}); ; {
		locks, degraded, err := l.List(t.Context(), page)
		if err != nil || degraded {
			return 0
		}
		for _, taken := range locks.Items {
			grants[taken.Resource] = taken.Grant
		}
		if locks.NextCursor == nil {
			break
		}
		page.Cursor = *locks.NextCursor
	}
	for _, taken := range held {
		if grants[taken.Resource] == taken.Grant {
			found++
		}
	}
	return found
}

// giveBackMany wants every one of the locks to be its holder's, and ends it.
func giveBackMany(t *testing.T, all []*lock.Locker, held []lock.Lock) {
	t.Helper()
	for i, taken := range held {
		l := all[i%len(all)]
		servicestest.Eventually(t, func() bool {
			_, err := l.Check(t.Context(), taken.Claim)
			if errors.Is(err, models.ErrNotHeld) {
				t.Fatalf("%s is not its holder's: %v", taken.Resource, err)
			}
			return err == nil
		}, taken.Resource+" cannot be asked about")
		servicestest.Eventually(t, func() bool {
			_, err := l.Release(t.Context(), taken.Claim)
			return err == nil || errors.Is(err, models.ErrNotHeld) // done, and only the reply was lost
		}, taken.Resource+" cannot be given back")
	}
}

// wantHeld wants every lock to be its holder's again.
func (f *emptied) wantHeld(when string) {
	f.t.Helper()
	found := 0
	deadline := time.Now().Add(10 * time.Second)
	for found != len(f.held) && time.Now().Before(deadline) {
		found = stillHeld(f.t, f.lockers[0], f.held)
	}
	if found != len(f.held) {
		f.t.Fatalf("%s: %d of %d locks are lost", when, len(f.held)-found, len(f.held))
	}
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

// queueUp lets so many waiters queue for some of the locks, each on the next instance.
func (f *emptied) queueUp(places int) {
	f.t.Helper()
	ctx, end := context.WithTimeout(f.t.Context(), time.Minute)
	f.end, f.places = end, places
	f.t.Cleanup(func() { end(); f.wg.Wait() })
	for i := 0; i < len(f.held); i += 50 {
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
			servicestest.Eventually(f.t, func() bool {
				s, err := l.Status(ctx, resource)
				return err == nil && s.Waiting == place+1
			}, "a waiter does not queue")
		}
	}
}

// wantServedInTurn lets the holders give their locks back.
func (f *emptied) wantServedInTurn() {
	f.t.Helper()
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
				if got != want {
					f.t.Errorf("%s: waiter %d was served in place of %d", resource, got, want)
				}
			default:
				f.t.Errorf("%s: waiter %d was not served", resource, want)
			}
		}
	}
}

// tryAll tries to take what others hold until ctx ends.
func (f *emptied) tryAll(ctx context.Context, l *lock.Locker) {
	for ctx.Err() == nil {
		for i := 0; i < len(f.held) && ctx.Err() == nil; i += 10 {
			taken, err := l.TryAcquire(f.t.Context(), request(f.held[i].Resource, bob))
			if err == nil {
				f.t.Errorf("a newcomer was granted %s (degraded: %t)", taken.Resource, taken.Degraded)
			}
		}
	}
}

// lostLines counts the lines about locks that did not survive.
type lostLines struct {
	mu    sync.Mutex
	lines int
}

func (*lostLines) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

func (l *lostLines) Handle(context.Context, slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines++
	return nil
}

func (l *lostLines) WithAttrs([]slog.Attr) slog.Handler { return l }
func (l *lostLines) WithGroup(string) slog.Handler      { return l }

func (l *lostLines) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines
}
