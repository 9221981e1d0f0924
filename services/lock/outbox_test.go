package lock

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// An attempt whose reply was lost waits in the outbox. If its client has repeated it meanwhile and
// has the grant, here or at another instance, that is not given back under it.
func TestLockAttemptThatWasRepeatedStays(t *testing.T) {
	server := servicestest.StartRedis(t)
	l, other := openLockerAt(t, server.Addr), openLockerAt(t, server.Addr)
	for name, second := range map[string]*Locker{"here": l, "elsewhere": other} {
		req := Request{Resource: name, Token: newToken()}
		lost := l.newAttempt(req)
		if _, err := lost.once(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		if name == "here" {
			l.abandonLater(lost)
		}
		lock, err := second.TryAcquire(t.Context(), req)
		if err != nil || !lock.Repeated {
			t.Fatalf("%+v, %v", lock, err)
		}
		if name == "elsewhere" {
			l.giveUp(t.Context(), lost)
		}
		l.flush(t.Context())
		if _, err := second.Check(t.Context(), lock.Claim); err != nil {
			t.Errorf("%s: given back under its holder: %v", name, err)
		}
		if _, err := second.Release(t.Context(), lock.Claim); err != nil {
			t.Error(err)
		}
	}
}

// What was never sent is not in the outbox: in a long outage that would be a release for
// each request, all to be sent before Redis counts as available again.
func TestAttemptsThatWereNotSentAreNotInTheOutbox(t *testing.T) {
	for _, onDown := range []models.OnRedisDown{models.OnRedisDownClosed, models.OnRedisDownOpen} {
		rdb := redis.New(redis.Options{Disabled: true})
		t.Cleanup(func() { _ = rdb.Close(t.Context()) })
		l := New(rdb, Options{OnRedisDown: onDown})
		for range 10 {
			if _, err := l.TryAcquire(t.Context(), Request{Resource: "process:1"}); err != nil &&
				!errors.Is(err, models.ErrUnavailable) && !errors.Is(err, models.ErrNotAcquired) {
				t.Fatal(err)
			}
		}
		if owed := l.table.pending(time.Now()); len(owed) != 0 {
			t.Errorf("%s: %d in the outbox", onDown, len(owed))
		}
	}
}

// What was given back in an outage is sent before what was granted then is reasserted: else
// the second holder would be refused, as the first seems to have the lock.
func TestLockTakenAfterAReleaseInTheSameOutage(t *testing.T) {
	for name, end := range map[string]func(*Locker, Lock) error{
		"released": func(l *Locker, lock Lock) error { _, err := l.Release(t.Context(), lock.Claim); return err },
		"forced": func(l *Locker, lock Lock) error {
			_, err := l.ForceRelease(t.Context(), lock.Resource, nil)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := servicestest.StartRedis(t)
			rdb := redistest.At(t, server.Addr, redis.Options{Timeout: time.Second})
			l := New(rdb, Options{OnRedisDown: models.OnRedisDownOpen, Logger: slog.New(slog.DiscardHandler)})
			first, err := l.TryAcquire(t.Context(), Request{Resource: "r"})
			if err != nil || first.Degraded {
				t.Fatalf("%+v, %v", first, err)
			}
			server.Freeze()
			servicestest.Eventually(t, func() bool { return !rdb.Available() }, "Redis still counts as available")
			if err := end(l, first); err != nil {
				t.Fatal(err)
			}
			second, err := l.TryAcquire(t.Context(), Request{Resource: "r"})
			if err != nil || !second.Degraded {
				t.Fatalf("%+v, %v", second, err)
			}
			server.Thaw()
			servicestest.Within(t, 3*time.Second, rdb.Available, "not back")
			servicestest.Within(t, 3*time.Second, func() bool {
				degraded, err := l.Check(t.Context(), second.Claim)
				if err != nil {
					t.Fatalf("the second lost its lock: %v", err)
				}
				return !degraded
			}, "the second is not claimed")
		})
	}
}
