package lock

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// TestProofTakenFromItsHolder: where the server forgets a lock, and an instance that
// does not know of it grants it again, or an administrator forces it, a second holder cannot
// be kept out. The first one's work ends within 1 s, although its lease would last, and its guarded
// write is refused. The many locks beside it stay with their holders.
func TestProofTakenFromItsHolder(t *testing.T) {
	t.Parallel()
	for name, take := range map[string]func(f *field, t *testing.T){
		"FLUSHALL":         func(f *field, _ *testing.T) { f.server.Do("FLUSHALL") },
		"killed and empty": func(f *field, _ *testing.T) { f.server.Kill(); f.server.Start() },
		"forced":           func(f *field, t *testing.T) { force(t, f.lockers[1], "r") },
		"forced, all messages lost": func(f *field, t *testing.T) {
			f.server.Do("CLIENT", "KILL", "TYPE", "pubsub")
			servicestest.Eventually(t, func() bool { // a call on a connection that was cut just now fails
				_, err := f.lockers[1].ForceRelease(t.Context(), "r", nil)
				if err != nil && !errors.Is(err, models.ErrUnavailable) {
					t.Fatal(err)
				}
				return err == nil
			}, "the lock cannot be forced")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			proveTold(t, take)
		})
	}
}

func proveTold(t *testing.T, take func(*field, *testing.T)) {
	f := &field{t: t, server: servicestest.StartRedis(t)}
	for range 2 {
		f.lockers = append(f.lockers, at(t, f.server.Addr, patient, Options{}))
	}
	many := holdMany(t, f.lockers, "many", 160)
	g := openGuarded(t)
	holding, written, first := make(chan string, 1), make(chan struct{}), make(chan belief, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		err := f.lockers[0].WithLock(t.Context(), request("r", alice), func(ctx context.Context, taken Lock) error {
			if err := g.write("r", taken.Fence); err != nil {
				t.Error(err)
			}
			holding <- taken.Grant
			first <- believe(ctx, taken, 2*servicestest.Patience) // until it is told, however long it claims it again
			<-written
			if err := g.write("r", taken.Fence); !errors.Is(err, models.ErrNotHeld) {
				t.Errorf("the first holder's write after the second's: %v", err)
			}
			return nil
		})
		if !errors.Is(err, models.ErrNotHeld) {
			t.Errorf("the first holder was told %v", err)
		}
	})
	grant := <-holding
	var asks *Locker // Redis itself, as an instance that knows of nothing before
	lose := func() {
		take(f, t)
		asks = at(t, f.server.Addr, patient, Options{})
	}
	lose()
	var second Lock
	servicestest.Eventually(t, func() bool {
		taken, err := asks.TryAcquire(t.Context(), request("r", bob))
		if taken := (*models.NotAcquiredError)(nil); errors.As(err, &taken) && taken.Status.Grant == grant {
			lose() // the first holder claimed it again before
		}
		second = taken
		return err == nil
	}, "the second holder was not granted the lock")
	granted := time.Now()
	if err := g.write("r", second.Fence); err != nil {
		t.Error(err)
	}
	close(written)
	b := <-first
	wg.Wait()
	t.Logf("both believed for %v (%s)", max(0, b.Until.Sub(granted)).Round(time.Millisecond), b.Cause)
	if late := b.Until.Sub(granted); late > time.Second+servicestest.Slack(granted) {
		t.Errorf("the first holder was told after %v", late)
	}
	if *second.Fence <= b.Fence {
		t.Errorf("fence %d after %d", *second.Fence, b.Fence)
	}
	servicestest.Eventually(t, func() bool { return stillHeld(t, f.lockers[1], many) == len(many) }, "a lock beside it is lost")
}

// TestProofAbandonedLeavesNoOrphan: an acquire whose reply never came may have
// been executed, or may be executed later. Nobody keeps the lock.
func TestProofAbandonedLeavesNoOrphan(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		strike func(*servicestest.Proxy)
		within time.Duration
	}{
		{"reply lost", func(p *servicestest.Proxy) { p.LoseReplies(1) }, 2 * time.Second},
		// The release travels on a new connection and overtakes the acquire.
		{"request late", (*servicestest.Proxy).StallOpen, 8 * time.Second},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			server := servicestest.StartRedis(t)
			proxy := servicestest.NewProxy(t, server.Addr)
			redis := redistest.Impatient(t, proxy.Addr)
			l := New(redis, Options{Logger: redistest.Quiet()})
			other := instances(t, server, 1)[0]
			for range 8 { // the scripts are known on every connection
				servicestest.Eventually(t, func() bool {
					taken, err := l.TryAcquire(t.Context(), request("warm", alice))
					if err == nil {
						_, err = l.Release(t.Context(), taken.Claim)
					}
					return err == nil
				}, "no lock")
			}
			var resources []string
			for i := range 160 { // the fault may hit a beat or a message instead
				if len(resources) > 0 && i%8 == 0 {
					break
				}
				if i%8 == 0 {
					row.strike(proxy)
				}
				resource := fmt.Sprintf("r:%d", i) // whichever connection is hit
				taken, err := l.TryAcquire(t.Context(), request(resource, alice))
				if err == nil {
					_, err = l.Release(t.Context(), taken.Claim)
				}
				if err != nil {
					resources = append(resources, resource)
				}
			}
			if len(resources) == 0 {
				t.Fatal("the fault hit no call")
			}
			servicestest.Eventually(t, redis.Available, "not back on new connections")
			proxy.Resume()
			for _, resource := range resources {
				servicestest.Within(t, row.within, func() bool {
					taken, err := other.TryAcquire(t.Context(), request(resource, bob))
					if err == nil {
						_, err = other.Release(t.Context(), taken.Claim)
					}
					return err == nil
				}, resource+" is held without a holder")
			}
		})
	}
}
