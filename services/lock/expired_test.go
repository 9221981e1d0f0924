package lock_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/lock"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// The end of a lease is published even if another takes the lock before a heartbeat looks.
func TestLockExpiredIsPublishedOnceForEachGrant(t *testing.T) {
	l := lockers(t, servicestest.StartRedis(t), 1, lock.Options{})[0]
	events := l.Events(t.Context())
	req := request("process:1", alice)
	req.TTL = 50 * time.Millisecond
	lost := map[int64]int{}
	for i := range 11 {
		if i == 10 {
			req.TTL = time.Minute // there when the beats look
		}
		var taken lock.Lock
		servicestest.Within(t, time.Second, func() bool {
			var err error
			if taken, err = l.TryAcquire(t.Context(), req); err != nil && !errors.Is(err, models.ErrNotAcquired) {
				t.Fatal(err)
			}
			return err == nil
		}, "an expired lock is not free")
		if i < 10 {
			lost[*taken.Fence] = 0
		}
	}
	told := 0
	deadline := time.After(5 * time.Second)
	for told < len(lost) {
		select {
		case e := <-events:
			if e.Name == models.LockExpired {
				lost[*e.Fence]++
				told++
			}
		case <-deadline:
			t.Fatalf("%d of %d told", told, len(lost))
		}
	}
	for fence, times := range lost {
		if times != 1 {
			t.Errorf("grant %d was told %d times", fence, times)
		}
	}
}

// Redis has let the lease go by itself meanwhile, in the same epoch.
func TestLockExtendedThroughAnOutageLongerThanItsLease(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"once", "again and again"} {
		t.Run(how, func(t *testing.T) {
			server := servicestest.StartRedis(t)
			proxy := servicestest.NewProxy(t, server.Addr)
			redis := redistest.New(t, proxy.Addr)
			l := lock.New(redis, lock.Options{OnRedisDown: models.OnRedisDownOpen, Logger: redistest.Quiet()})
			req := request("process:1", alice)
			req.TTL = 3 * time.Second
			taken := mustAcquireInRedis(t, l, req)
			proxy.Cut()
			gone(t, redis)
			extend := func() bool {
				_, err := l.Extend(t.Context(), taken.Claim, 10*time.Second)
				return err == nil
			}
			if !extend() {
				t.Fatal("not extended without Redis")
			}
			servicestest.Eventually(t, func() bool {
				return (how == "once" || extend()) && strings.TrimSpace(server.Do("KEYS", "*lock:process:1")) == ""
			}, "the lease did not end in Redis")
			proxy.Restore()
			back(t, redis)
			servicestest.Eventually(t, func() bool {
				degraded, err := l.Check(t.Context(), taken.Claim)
				if err != nil {
					t.Fatalf("lost, and no other holder took it: %v", err)
				}
				return !degraded
			}, "Redis does not answer")
			if _, err := lockers(t, server, 1, lock.Options{})[0].TryAcquire(t.Context(), request("process:1", bob)); !errors.Is(err, models.ErrNotAcquired) {
				t.Errorf("another instance does not see the claim: %v", err)
			}
		})
	}
}

// Ended by a call, and not by itself: the instance that extended it without Redis does not
// bring it back, although no holder has it and the old lease is long over.
func TestLockEndedElsewhereInAnOutageLongerThanItsLease(t *testing.T) {
	t.Parallel()
	for how, end := range map[string]func(*lock.Locker, lock.Lock) error{
		"forced": func(l *lock.Locker, _ lock.Lock) error {
			_, err := l.ForceRelease(t.Context(), "process:1", nil)
			return err
		},
		"released": func(l *lock.Locker, taken lock.Lock) error {
			_, err := l.Release(t.Context(), taken.Claim)
			return err
		},
		"disabled": func(l *lock.Locker, _ lock.Lock) error { return l.ReleaseUser(t.Context(), alice.UserID) },
		"released too late": func(l *lock.Locker, taken lock.Lock) error {
			servicestest.Eventually(t, func() bool {
				s, err := l.Status(t.Context(), taken.Resource)
				return err == nil && !s.Held
			}, "the lease did not end")
			if _, err := l.Release(t.Context(), taken.Claim); !errors.Is(err, models.ErrNotHeld) {
				return fmt.Errorf("released a lock that Redis had let go: %w", err)
			}
			return nil
		},
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			server := servicestest.StartRedis(t)
			proxy := servicestest.NewProxy(t, server.Addr)
			redis := redistest.New(t, proxy.Addr)
			l := lock.New(redis, lock.Options{OnRedisDown: models.OnRedisDownOpen, Logger: redistest.Quiet()})
			other := lockers(t, server, 1, lock.Options{})[0]
			req := request("process:1", alice)
			req.TTL = 5 * time.Second // on a busy machine an outage takes long to be noticed
			taken := mustAcquireInRedis(t, l, req)
			proxy.Cut()
			gone(t, redis)
			if _, err := l.Extend(t.Context(), taken.Claim, time.Minute); err != nil {
				t.Fatal(err)
			}
			if err := end(other, taken); err != nil {
				t.Fatal(err)
			}
			// Only time shows that the lease would be over: the lock is not there any more.
			servicestest.Eventually(t, func() bool { return time.Now().After(taken.ExpiresAt) }, "the lease did not end")
			proxy.Restore()
			back(t, redis)
			if s, err := other.Status(t.Context(), "process:1"); err != nil || s.Held {
				t.Errorf("held without a holder: %+v, %v", s, err)
			}
		})
	}
}
