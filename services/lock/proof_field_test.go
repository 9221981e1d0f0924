package lock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// proofTTL is the lease under proof: faults last longer than it.
const proofTTL = 500 * time.Millisecond

// belief is how long a holder went on by its own context.
type belief struct {
	Resource string
	Who      string
	Fence    int64
	From     time.Time // its function was called
	Until    time.Time // the last instant at which its context had not ended
	Cause    string    // why the context ended, if it did
}

// field is what a proof is about: some instances on one Redis, each behind a
// proxy of its own.
type field struct {
	t        *testing.T
	server   *servicestest.RedisServer
	proxies  []*servicestest.Proxy
	lockers  []*Locker
	random   *rand.Rand
	timeout  time.Duration
	patience time.Duration // of those who wait; 0: 4 s
	long     int           // one hold in so many lasts up to 3/2 TTL; 0: 25

	mu      sync.Mutex
	beliefs []belief
	failed  int // WithLock calls that ended without the lock, but for those that a late machine lost
}

const proofInstances = 3

func newField(t *testing.T, timeout time.Duration) *field {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	f := &field{t: t, timeout: timeout, random: rand.New(rand.NewPCG(seed, 0))}
	// What is written before the reply survives the kill of a process; there is no need to wait
	// for a busy disk.
	f.server = servicestest.StartRedis(t, "--appendonly", "yes", "--appendfsync", "no", "--dir", t.TempDir())
	for range proofInstances {
		proxy := servicestest.NewProxy(t, f.server.Addr)
		f.proxies = append(f.proxies, proxy)
		f.lockers = append(f.lockers, at(t, proxy.Addr, timeout, Options{}))
	}
	return f
}

// believe holds a lock for so long, or until its context ends, and returns how
// long it believed to hold it. An instant counts only if the context was asked
// after it.
func believe(ctx context.Context, taken Lock, hold time.Duration) belief {
	b := belief{Resource: taken.Resource, From: time.Now(), Fence: -1}
	b.Until = b.From.Add(-1) // no belief at all, if the context has ended already
	if taken.Fence != nil {
		b.Fence = *taken.Fence
	}
	for at := time.Now(); ; at = time.Now() {
		if ctx.Err() != nil {
			b.Cause = fmt.Sprint(context.Cause(ctx))
			return b
		}
		b.Until = at
		if at.Sub(b.From) >= hold {
			return b
		}
		time.Sleep(min(time.Millisecond, hold))
	}
}

// work takes locks with WithLock, one after the other, until ctx ends: most for a moment, some
// for longer than their TTL.
func (f *field) work(ctx context.Context, l *Locker, name, resource string, random *rand.Rand) {
	for ctx.Err() == nil {
		hold := time.Duration(random.IntN(4000)) * time.Microsecond
		if random.IntN(cmp.Or(f.long, 25)) == 0 {
			hold = time.Duration(random.Int64N(int64(3 * proofTTL / 2)))
		}
		patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), cmp.Or(f.patience, 4*time.Second))
		began := time.Now()
		err := l.WithLock(patience, Request{
			Resource: resource, TTL: proofTTL, Holder: models.Holder{UserID: name},
		}, func(ctx context.Context, taken Lock) error {
			b := believe(ctx, taken, hold)
			b.Who = name
			f.mu.Lock()
			defer f.mu.Unlock()
			f.beliefs = append(f.beliefs, b)
			return nil
		})
		cancel()
		if err != nil {
			if !isOneOfErrors(err, models.ErrUnavailable, models.ErrNotAcquired, models.ErrNotHeld) {
				f.t.Errorf("WithLock: %v", err)
			}
			var lost *LostError
			late := servicestest.Slack(began) > proofTTL/2 // then the lease may be extended too late
			if !late || !errors.As(err, &lost) || lost.Reason != LostBackend {
				f.mu.Lock()
				f.failed++
				f.mu.Unlock()
			}
			pause(ctx, 10*time.Millisecond) // a closed lock answers at once
		}
	}
}

func isOneOfErrors(err error, targets ...error) bool {
	return slices.ContainsFunc(targets, func(target error) bool { return errors.Is(err, target) })
}

// pause paces a workload.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// checkBeliefs wants no two holders of a resource at a time, and fences that grow
// from holder to holder.
func checkBeliefs(t *testing.T, all []belief) (longest time.Duration) {
	t.Helper()
	byResource := map[string][]belief{}
	for _, b := range all {
		if !b.Until.Before(b.From) {
			byResource[b.Resource] = append(byResource[b.Resource], b)
		}
	}
	for resource, held := range byResource {
		slices.SortFunc(held, func(a, b belief) int { return a.From.Compare(b.From) })
		for i := 1; i < len(held); i++ {
			before, b := held[i-1], held[i]
			if overlap := before.Until.Sub(b.From); overlap >= 0 {
				longest = max(longest, overlap)
				t.Errorf("%s: %s (fence %d, believed until %v: %s) and %s (fence %d) both believed for %v",
					resource, before.Who, before.Fence, before.Until.Format("05.000000"), before.Cause, b.Who, b.Fence, overlap)
			}
			if b.Fence <= before.Fence {
				t.Errorf("%s: fence %d of %s after fence %d of %s", resource, b.Fence, b.Who, before.Fence, before.Who)
			}
		}
	}
	return longest
}

// checkClean wants nothing left on the server but the shards' small strings, which instances
// are alive, and how a grant ended that an instance could still reassert. What a waiter of an
// instance that is gone could not take back, because Redis did not answer in time, ends by
// itself within a minute.
func checkClean(t *testing.T, server *servicestest.RedisServer) {
	t.Helper()
	var left []string
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		left = nil
		for key := range strings.SplitSeq(server.Do("KEYS", "*"), "\n") {
			_, kind, _ := strings.Cut(key, "}")
			if strings.HasPrefix(key, "test:") && key != "test:probe" && !slices.Contains([]string{"probe", "fence", "forced", "instances"}, kind) && !remembersAnEnd(server, key) {
				left = append(left, key)
			}
		}
		if len(left) == 0 {
			return
		}
		if took := time.Since(start); took > 70*time.Second+servicestest.Slack(start) {
			t.Errorf("left on the server after %v: %v", took, left)
			return
		}
	}
}

// remembersAnEnd reports whether a key is about a grant that is over, and is itself
// over when no instance can ask about that any more.
func remembersAnEnd(server *servicestest.RedisServer, key string) bool {
	_, name, _ := strings.Cut(key, "}")
	kind, _, _ := strings.Cut(name, ":")
	if kind != "expired" && kind != "tombstone" && kind != "shared" {
		return false
	}
	left, err := strconv.Atoi(strings.TrimSpace(server.Do("PTTL", key)))
	// -2: it ended since it was listed; -1 would be for ever.
	return err == nil && (left == -2 || left >= 0 && time.Duration(left)*time.Millisecond <= max(DefaultMaxHold, models.KeepLockEnds))
}

// noGoroutineLeft runs a test and wants as many goroutines after it as before.
func noGoroutineLeft(t *testing.T, name string, test func(t *testing.T)) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Run(name, test)
	for start := time.Now(); runtime.NumGoroutine() > before; time.Sleep(5 * time.Millisecond) {
		if time.Since(start) > 5*time.Second+servicestest.Slack(start) {
			stacks := make([]byte, 1<<20)
			t.Errorf("%s: %d goroutines before, %d after\n%s", name, before, runtime.NumGoroutine(), stacks[:runtime.Stack(stacks, true)])
			return
		}
	}
}
