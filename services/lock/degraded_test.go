package lock_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gatehouse/models"
	"gatehouse/services/lock"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// openLocker is one instance whose locks work without Redis.
func openLocker(t *testing.T, server *servicestest.RedisServer) (*lock.Locker, *redis.Client) {
	t.Helper()
	rdb := redistest.At(t, server.Addr, redis.Options{Timeout: 300 * time.Millisecond})
	return lock.New(rdb, lock.Options{OnRedisDown: models.OnRedisDownOpen, Logger: redistest.Quiet()}), rdb
}

func gone(t *testing.T, rdb *redis.Client) {
	t.Helper()
	servicestest.Eventually(t, func() bool { return !rdb.Available() }, "Redis still counts as available")
}

func back(t *testing.T, rdb *redis.Client) {
	t.Helper()
	servicestest.Eventually(t, rdb.Available, "not back after recovery")
}

func TestLockClosedWithoutRedis(t *testing.T) {
	rdb := redistest.Start(t, redis.Options{Disabled: true})
	l := lock.New(rdb, lock.Options{})
	if _, err := l.TryAcquire(t.Context(), request("process:1", alice)); !errors.Is(err, models.ErrUnavailable) {
		t.Errorf("acquire: %v", err)
	}
	if _, err := l.Acquire(t.Context(), request("process:1", alice)); !errors.Is(err, models.ErrUnavailable) {
		t.Errorf("waiting acquire: %v", err)
	}
	if _, err := l.Status(t.Context(), "process:1"); !errors.Is(err, models.ErrUnavailable) {
		t.Errorf("status: %v", err)
	}
	if _, _, err := l.List(t.Context(), models.Page{Limit: 1}); !errors.Is(err, models.ErrUnavailable) {
		t.Errorf("list: %v", err)
	}
}

func TestLockDegradedStillExcludesWithinTheInstance(t *testing.T) {
	rdb := redistest.Start(t, redis.Options{Disabled: true})
	l := lock.New(rdb, lock.Options{OnRedisDown: models.OnRedisDownOpen})
	taken := mustAcquire(t, l, request("process:1", alice))
	if !taken.Degraded || taken.Fence != nil {
		t.Errorf("lock = %+v", taken)
	}
	var refused *models.NotAcquiredError
	if _, err := l.TryAcquire(t.Context(), request("process:1", bob)); !errors.As(err, &refused) || !refused.Status.Degraded || refused.Status.Holder.Email != alice.Email {
		t.Errorf("second acquire: %v", err)
	}
	forged := taken.Claim
	forged.Token = lock.NewToken()
	if _, err := l.Check(t.Context(), forged); !errors.Is(err, models.ErrNotHeld) {
		t.Errorf("the table knows better: %v", err)
	}
	if extended, err := l.Extend(t.Context(), taken.Claim, time.Minute); err != nil || !extended.Degraded || extended.TTL < 59*time.Second {
		t.Errorf("extend: %+v, %v", extended, err)
	}
	if locks, degraded, err := l.List(t.Context(), models.Page{Limit: 10}); err != nil || !degraded || len(locks.Items) != 1 {
		t.Errorf("list: %+v, %v, %v", locks, degraded, err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := l.Acquire(t.Context(), request("process:1", bob))
		done <- err
	}()
	servicestest.Within(t, time.Second, func() bool {
		s, err := l.Status(t.Context(), "process:1")
		return err == nil && s.Waiting == 1
	}, "the waiter did not join")
	if degraded, err := l.Release(t.Context(), taken.Claim); err != nil || !degraded {
		t.Errorf("release: %v, %v", degraded, err)
	}
	if err := <-done; err != nil {
		t.Errorf("the waiter: %v", err)
	}
	if _, err := l.Check(t.Context(), taken.Claim); !errors.Is(err, models.ErrNotHeld) {
		t.Errorf("a released grant passes: %v", err)
	}
	// A grant of another instance that this one does not know of passes: the
	// caller has verified its token, and the database rule decides.
	other := lock.Claim{Resource: "process:2", Grant: "0123", Token: lock.NewToken()}
	if degraded, err := l.Check(t.Context(), other); err != nil || !degraded {
		t.Errorf("an unknown grant: %v, %v", degraded, err)
	}
}

func TestLockGrantedWithoutRedisIsClaimedWhenItReturns(t *testing.T) {
	for _, fault := range []string{"killed", "frozen"} {
		t.Run(fault, func(t *testing.T) {
			server := servicestest.StartRedis(t)
			l, rdb := openLocker(t, server)
			other := lockers(t, server, 1, lock.Options{})[0]
			before := mustAcquireInRedis(t, l, request("process:1", alice))
			if fault == "killed" {
				server.Kill()
			} else {
				server.Freeze()
			}
			during := mustAcquire(t, l, request("process:2", alice)) // the first call may cost the deadline
			gone(t, rdb)
			if !during.Degraded {
				t.Errorf("granted in the outage: %+v", during)
			}
			if degraded, err := l.Check(t.Context(), before.Claim); err != nil || !degraded {
				t.Errorf("a grant from before the outage: %v, %v", degraded, err)
			}
			if fault == "killed" {
				server.Start() // empty: it has forgotten the first lock too
			} else {
				server.Thaw()
			}
			back(t, rdb)
			for _, taken := range []lock.Lock{before, during} {
				if degraded, err := l.Check(t.Context(), taken.Claim); err != nil || degraded {
					t.Errorf("%s after the outage: %v, %v", taken.Resource, degraded, err)
				}
				servicestest.Within(t, time.Second, func() bool {
					_, err := other.TryAcquire(t.Context(), request(taken.Resource, bob))
					return errors.Is(err, models.ErrNotAcquired)
				}, "another instance does not see the claim on "+taken.Resource)
			}
		})
	}
}

func TestLockNothingIsLockedByNobodyAfterAnOutage(t *testing.T) {
	server := servicestest.StartRedis(t)
	l, rdb := openLocker(t, server)
	closed := lock.New(rdb, lock.Options{})
	held := mustAcquireInRedis(t, l, request("process:1", alice))
	forced := mustAcquireInRedis(t, l, request("process:2", alice))
	server.Freeze()
	// Sent, never answered, and executed at the thaw.
	if _, err := closed.TryAcquire(t.Context(), request("process:3", bob)); !errors.Is(err, models.ErrUnavailable) {
		t.Errorf("acquire while frozen: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := l.TryAcquire(ctx, request("process:4", bob)); err == nil {
		t.Error("an acquire whose caller left succeeded")
	}
	if _, err := l.Release(t.Context(), held.Claim); err != nil {
		t.Errorf("release while frozen: %v", err)
	}
	if _, err := l.ForceRelease(t.Context(), "process:2", forced.Fence); err != nil {
		t.Errorf("force while frozen: %v", err)
	}
	gone(t, rdb)
	server.Thaw()
	back(t, rdb)
	other := lockers(t, server, 1, lock.Options{})[0]
	for _, resource := range []string{"process:1", "process:2", "process:3", "process:4"} {
		if s, err := other.Status(t.Context(), resource); err != nil || s.Held {
			t.Errorf("%s is locked without a holder: %+v, %v", resource, s, err)
		}
	}
}

// What other instances do to a lock, the one that granted it follows: else it would
// reassert a released lock when the server has forgotten, or refuse its next holder
// in an outage.
func TestLockGivenBackElsewhereStaysGivenBack(t *testing.T) {
	server := servicestest.StartRedis(t)
	granter, rdb := openLocker(t, server)
	other := lockers(t, server, 1, lock.Options{})[0]
	servicestest.Within(t, 3*time.Second, func() bool {
		return strings.HasSuffix(strings.TrimSpace(server.Do("PUBSUB", "NUMSUB", "test:ends")), "2")
	}, "not subscribed")
	events := granter.Events(t.Context())
	until := func(name string) {
		t.Helper()
		for {
			select {
			case e := <-events:
				if e.Name == name {
					return
				}
			case <-time.After(3 * time.Second):
				t.Fatal("no event " + name)
			}
		}
	}
	first := mustAcquireInRedis(t, granter, request("process:1", alice))
	if _, err := other.Release(t.Context(), first.Claim); err != nil {
		t.Fatal(err)
	}
	until(models.LockReleased)
	server.Do("FLUSHALL")
	mustAcquire(t, other, request("process:1", bob)) // no instance reasserted it
	second, err := other.Status(t.Context(), "process:1")
	if err != nil {
		t.Fatal(err)
	}
	server.Freeze()
	defer server.Thaw()
	gone(t, rdb)
	if degraded, err := granter.Check(t.Context(), lock.Claim{Resource: "process:1", Grant: second.Grant, Token: "verified"}); err != nil || !degraded {
		t.Errorf("the next holder is refused in an outage: %v, %v", degraded, err)
	}
}

func TestLockRefusedReleaseHasNoEffect(t *testing.T) {
	server := servicestest.StartRedis(t)
	l, rdb := openLocker(t, server)
	held := mustAcquireInRedis(t, l, request("process:1", alice))
	server.Freeze()
	gone(t, rdb)
	wrong := held.Claim
	wrong.Token = lock.NewToken()
	if _, err := l.Release(t.Context(), wrong); !errors.Is(err, models.ErrNotHeld) {
		t.Errorf("release with another token: %v", err)
	}
	server.Thaw()
	back(t, rdb)
	if _, err := l.Check(t.Context(), held.Claim); err != nil {
		t.Errorf("the holder: %v", err)
	}
}

func TestLockOfADisabledUserEndsWhenRedisReturns(t *testing.T) {
	server := servicestest.StartRedis(t)
	l, rdb := openLocker(t, server)
	other := lockers(t, server, 1, lock.Options{})[0]
	mustAcquire(t, other, request("process:1", alice)) // l has not granted it
	server.Freeze()
	gone(t, rdb)
	if err := l.ReleaseUser(t.Context(), alice.UserID); err != nil {
		t.Fatal(err)
	}
	server.Thaw()
	back(t, rdb)
	servicestest.Within(t, time.Second, func() bool {
		s, err := other.Status(t.Context(), "process:1")
		return err == nil && !s.Held
	}, "the lock stays")
}

func TestLockConflictAfterAnOutageIsToldToTheLoser(t *testing.T) {
	server := servicestest.StartRedis(t)
	proxy := servicestest.NewProxy(t, server.Addr)
	cutOff := redistest.New(t, proxy.Addr)
	registry := prometheus.NewRegistry()
	l := lock.New(cutOff, lock.Options{OnRedisDown: models.OnRedisDownOpen, Logger: redistest.Quiet(), Metrics: registry})
	proxy.Cut()
	gone(t, cutOff)
	loser := mustAcquire(t, l, request("process:1", alice))
	winner := mustAcquire(t, lockers(t, server, 1, lock.Options{})[0], request("process:1", bob))
	proxy.Restore()
	back(t, cutOff)
	var notHeld *models.NotHeldError
	if _, err := l.Check(t.Context(), loser.Claim); !errors.As(err, &notHeld) || notHeld.Status.Holder.Email != bob.Email {
		t.Errorf("the loser: %v", err)
	}
	if _, err := l.Check(t.Context(), winner.Claim); err != nil {
		t.Errorf("the winner: %v", err)
	}
	wantCounters(t, registry, map[string]float64{"conflicts": 1, "operations acquire degraded": 1, "operations check refused": 1})
}

func TestWithLockExtendsAndReleases(t *testing.T) {
	server := servicestest.StartRedis(t)
	all := lockers(t, server, 2, lock.Options{})
	req := request("process:1", alice)
	req.TTL = 150 * time.Millisecond
	err := all[0].WithLock(t.Context(), req, func(ctx context.Context, taken lock.Lock) error {
		outlived := time.After(3 * req.TTL)
		for {
			if _, err := all[1].TryAcquire(ctx, request("process:1", bob)); err == nil {
				t.Fatal("the lease was not extended")
			}
			select {
			case <-outlived:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			default:
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	mustAcquire(t, all[1], request("process:1", bob))
}

func TestWithLockTellsWhenTheLockIsLost(t *testing.T) {
	lose := map[lock.Loss]func(*servicestest.RedisServer, *lock.Locker){
		lock.LostRevoked: func(_ *servicestest.RedisServer, l *lock.Locker) {
			servicestest.Eventually(t, func() bool {
				_, err := l.ForceRelease(t.Context(), "process:1", nil)
				return err == nil || errors.Is(err, models.ErrNotFound)
			}, "the lock could not be forced")
		},
		lock.LostBackend: func(s *servicestest.RedisServer, _ *lock.Locker) { s.Freeze() },
		lock.LostExpired: func(*servicestest.RedisServer, *lock.Locker) {},
	}
	for reason, fault := range lose {
		t.Run(string(reason), func(t *testing.T) {
			server := servicestest.StartRedis(t)
			opt := lock.Options{}
			if reason == lock.LostExpired {
				opt.MaxHold = 400 * time.Millisecond
			}
			l := lock.New(redistest.New(t, server.Addr), opt)
			req := request("process:1", alice)
			req.TTL = 300 * time.Millisecond
			var ended time.Time
			err := l.WithLock(t.Context(), req, func(ctx context.Context, taken lock.Lock) error {
				fault(server, l)
				<-ctx.Done()
				ended = time.Now()
				if ended.After(taken.ExpiresAt.Add(opt.MaxHold + 50*time.Millisecond)) { // a busy machine wakes this late
					t.Errorf("told at %v, the lease ended at %v", ended, taken.ExpiresAt)
				}
				return nil
			})
			var lost *lock.LostError
			if !errors.As(err, &lost) || lost.Reason != reason || !errors.Is(err, models.ErrNotHeld) {
				t.Errorf("WithLock: %v, want %s", err, reason)
			}
		})
	}
}
