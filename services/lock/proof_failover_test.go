package lock

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// TestProofFailoverLosesTheLease: a lease that the replica never got is
// gone when the replica becomes the master, and a second holder cannot be kept
// out. The first one reasserts under its own token, or finds out at the latest by
// its next extend. How long both believed is printed; the loser's guarded write is
// refused.
func TestProofFailoverLosesTheLease(t *testing.T) {
	t.Parallel()
	rounds := 1
	if servicestest.LongProof() {
		rounds = 10
	}
	for _, row := range []struct {
		name string
		lostLease
		long bool
	}{
		{"the second comes first", lostLease{knew: true, eager: true}, false},
		{"the first is cut off meanwhile", lostLease{eager: true, apart: true}, false},
		{"claimed again", lostLease{}, false},
		{"both at once", lostLease{eager: true}, true},
	} {
		if row.long && !servicestest.LongProof() {
			continue
		}
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			for range rounds {
				row.prove(t)
			}
		})
	}
}

type lostLease struct {
	// knew: the replica has seen locks of the shard, and its epoch, so nothing but
	// the lease is missing, and a holder may not take a lock that was there and is not.
	knew  bool
	eager bool // the second tries all the time; else only when the first has claimed again
	apart bool // the first reaches no server until the second has written
}

type held struct {
	belief
	wrote error // under the first fence, in the end
	told  error // by WithLock
}

// prove also wants the many locks that the replica knew of to stay with their holders.
func (row lostLease) prove(t *testing.T) {
	sentinel := servicestest.StartSentinel(t)
	proxies := map[string]*servicestest.Proxy{} // of the first instance, by server
	for _, addr := range []string{sentinel.Addr, sentinel.Master.Addr, sentinel.Replica.Addr} {
		proxies[addr] = servicestest.NewProxy(t, addr)
	}
	instances := 0
	f := topologyField(t, func() rueidis.ClientOption {
		option := sentinelOption(sentinel)
		if instances++; instances == 1 {
			option.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
				return d.DialContext(ctx, "tcp", proxies[addr].Addr)
			}
		}
		return option
	}, 2)
	if row.knew {
		taken := take(t, f.lockers[0], request("r", alice))
		giveBack(t, f.lockers[0], taken)
		servicestest.Eventually(t, func() bool {
			return sentinel.Replica.Do("KEYS", "*}fence") != "" && sentinel.Replica.Do("KEYS", "*lock:r") == ""
		}, "the replica does not follow")
	}
	many := holdMany(t, f.lockers, "many", 160, "r") // of which the replica does know
	servicestest.Eventually(t, func() bool { return strings.Count(sentinel.Replica.Do("KEYS", "*lock:many:*"), "lock:") == len(many) }, "the replica does not follow")
	sentinel.Replica.LoseMaster()

	g := openGuarded(t)
	const ttl = 20 * time.Second // longer than the failover
	work, stop := context.WithCancel(t.Context())
	defer stop()
	holding, end, ended := make(chan Lock, 1), make(chan struct{}), make(chan held, 1)
	go func() {
		var first held
		first.told = f.lockers[0].WithLock(work, Request{Resource: "r", Holder: alice, TTL: ttl}, func(ctx context.Context, taken Lock) error {
			holding <- taken
			first.belief = believe(ctx, taken, time.Minute)
			<-end
			first.wrote = g.write("r", taken.Fence)
			return nil
		})
		ended <- first
	}()
	taken := <-holding
	if err := g.write("r", taken.Fence); err != nil {
		t.Fatal(err)
	}
	if there, missed := sentinel.Master.Do("KEYS", "*lock:r"), sentinel.Replica.Do("KEYS", "*lock:r"); there == "" || missed != "" {
		t.Fatalf("the master has %q, the replica %q", there, missed)
	}
	if row.apart {
		for _, proxy := range proxies {
			proxy.Stall()
		}
	}
	sentinel.Master.Kill()
	sentinel.WaitFailedOver(t)
	over := time.Now()
	defer servicestest.Eventually(t, func() bool { return stillHeld(t, f.lockers[1], many) == len(many) }, "a lock beside it is lost")

	second, got := row.second(t, f, taken)
	granted := time.Now()
	if !got { // the first has claimed again
		stop()
		close(end)
		if first := <-ended; first.wrote != nil || first.Until.Before(over) {
			t.Errorf("it claimed again, and wrote: %v; believed until %v after the failover: %s", first.wrote, first.Until.Sub(over), first.Cause)
		}
		t.Logf("claimed again %v after the failover", granted.Sub(over).Round(time.Millisecond))
		return
	}
	if err := g.write("r", second.Fence); err != nil {
		t.Errorf("the second holder's write: %v", err)
	}
	wrote := time.Now()
	for _, proxy := range proxies {
		proxy.Resume()
	}
	close(end)
	first := <-ended
	t.Logf("the second was granted the lock %v after the failover; both believed for %v (%s)",
		granted.Sub(over).Round(time.Millisecond), max(0, first.Until.Sub(granted)).Round(time.Millisecond), first.Cause)
	if late := first.Until.Sub(wrote); late > ttl/3+servicestest.Slack(wrote) {
		t.Errorf("the first believed for %v, longer than to its next extend", late)
	}
	if row.apart && first.Until.Before(wrote) {
		t.Error("the first was told before it could be: nothing is proven")
	}
	if !errors.Is(first.told, models.ErrNotHeld) {
		t.Errorf("the first was told %v", first.told)
	}
	if !errors.Is(first.wrote, models.ErrNotHeld) || g.writtenBy(t) != *second.Fence {
		t.Errorf("the first wrote after the second: %v", first.wrote)
	}
}

// second tries to take the lock that was lost; !got means that the first
// holder has it again.
func (row lostLease) second(t *testing.T, f *field, first Lock) (taken Lock, got bool) {
	t.Helper()
	l := f.lockers[1]
	if !row.eager {
		servicestest.Eventually(t, func() bool {
			s, err := l.Status(t.Context(), "r")
			return err == nil && s.Grant == first.Grant
		}, "the first holder does not claim again")
	}
	servicestest.Eventually(t, func() bool {
		var err error
		taken, err = l.TryAcquire(t.Context(), request("r", bob))
		got = err == nil
		return got || errors.Is(err, models.ErrNotAcquired) && !row.knew && !row.apart
	}, "the lock is free, and is not granted")
	return taken, got
}
