package lock

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/servicestest"
)

// seen is how to replace the grant that has the lock now.
func seen(t testing.TB, l *Locker, resource string) Replaced {
	t.Helper()
	return Replaced{Grant: l.mustStatus(t, resource).Grant, How: models.LockTakenOver}
}

func replace(t testing.TB, l *Locker, req Request, old Replaced) Lock {
	t.Helper()
	taken, err := l.Replace(t.Context(), req, old)
	if err != nil {
		t.Fatal(err)
	}
	return taken
}

// wantOver wants a grant to be over: its token does nothing, also to the lock of another one.
func wantOver(t testing.TB, l *Locker, old Lock) {
	t.Helper()
	_, check := l.Check(t.Context(), old.Claim)
	_, extend := l.Extend(t.Context(), old.Claim, time.Minute)
	_, release := l.Release(t.Context(), old.Claim)
	for _, err := range []error{check, extend, release} {
		if !errors.Is(err, models.ErrNotHeld) {
			t.Errorf("the former holder's token: %v", err)
		}
	}
}

func TestReplace(t *testing.T) {
	t.Parallel()
	t.Run("passes the lock on, past its queue", func(t *testing.T) {
		onBoth(t, func(t *testing.T, rdb *redis.Client) {
			l := New(rdb, Options{})
			old := take(t, l, request("r", alice))
			waiter := queueFor(t.Context(), t, l, request("r", models.Holder{UserID: "3"}))
			events := listen(t, l)
			taken := replace(t, l, request("r", bob), seen(t, l, "r"))
			if *taken.Fence <= *old.Fence || taken.Degraded || taken.TTL < 59*time.Second {
				t.Errorf("%+v after %+v", taken, old)
			}
			if e := events.until(models.LockTakenOver, "r"); *e.Fence != *old.Fence || e.Holder.ID != alice.UserID {
				t.Errorf("%+v", e)
			}
			if e := events.until(models.LockAcquired, "r"); *e.Fence != *taken.Fence || e.Holder.ID != bob.UserID {
				t.Errorf("%+v", e)
			}
			wantOver(t, l, old)
			wantHolder(t, l, taken)
			if s := l.mustStatus(t, "r"); s.Waiting != 1 || s.Holder.UserID != bob.UserID {
				t.Errorf("%+v", s)
			}
			giveBack(t, l, taken)
			<-waiter
		})
	})

	server := servicestest.StartRedis(t)
	all := instances(t, server, 2)
	l, other := all[0], all[1]

	t.Run("is known on the instance that made the former grant", func(t *testing.T) {
		lost := make(chan error, 1)
		working := make(chan struct{})
		go func() {
			lost <- l.WithLock(t.Context(), request("known", alice), func(ctx context.Context, _ Lock) error {
				close(working)
				<-ctx.Done()
				return context.Cause(ctx)
			})
		}()
		<-working
		replace(t, other, request("known", bob), seen(t, other, "known"))
		var why *LostError
		if err := <-lost; !errors.As(err, &why) || why.Reason != LostRevoked {
			t.Errorf("work under the former grant ended by %v", err)
		}
	})

	t.Run("ends no other grant than the one that was seen", func(t *testing.T) {
		old := take(t, l, request("other", alice))
		before := seen(t, l, "other")
		giveBack(t, l, old)
		var refused *models.NotAcquiredError
		if _, err := other.Replace(t.Context(), request("other", bob), before); !errors.As(err, &refused) || refused.Status.Held {
			t.Errorf("free: %v", err)
		}
		next := take(t, l, request("other", alice))
		if _, err := other.Replace(t.Context(), request("other", bob), before); !errors.As(err, &refused) || refused.Status.Grant != next.Grant {
			t.Errorf("granted again: %v", err)
		}
		wantHolder(t, l, next)
	})

	t.Run("spares a holder who is active", func(t *testing.T) {
		old := take(t, l, request("idle", alice))
		if s := other.mustStatus(t, "idle"); !s.ActiveAt.Equal(s.Holder.Since) {
			t.Errorf("active %v, granted %v", s.ActiveAt, s.Holder.Since)
		}
		servicestest.Eventually(t, func() bool {
			extend(t, l, old, time.Minute)
			s := other.mustStatus(t, "idle")
			return s.ActiveAt.After(s.Holder.Since)
		}, "an extend is no sign of life")
		idle := seen(t, other, "idle")
		idle.Idle = time.Minute
		var refused *models.NotAcquiredError
		if _, err := other.Replace(t.Context(), request("idle", bob), idle); !errors.As(err, &refused) || !refused.Status.ActiveAt.After(refused.Status.Holder.Since) {
			t.Errorf("%v", err)
		}
		wantHolder(t, l, old)
		idle.Idle = time.Millisecond
		servicestest.Eventually(t, func() bool { _, err := other.Replace(t.Context(), request("idle", bob), idle); return err == nil }, "the holder stays")
	})

	t.Run("leaves nothing behind of the former grant", func(t *testing.T) {
		old := take(t, l, request("clean", alice))
		extend(t, l, old, time.Minute)
		if _, err := l.Metadata(t.Context(), old, "text"); err != nil {
			t.Fatal(err)
		}
		giveBack(t, other, replace(t, other, request("clean", bob), seen(t, other, "clean")))
		again := take(t, l, request("clean", alice))
		extend(t, l, again, time.Minute)
		giveBack(t, l, again)
		for _, kind := range []string{"metadata:", "extended:"} {
			for _, grant := range []string{old.Grant, again.Grant} {
				if keys := server.Do("KEYS", "*"+kind+grant); keys != "" {
					t.Errorf("left behind: %s", keys)
				}
			}
		}
	})

	t.Run("repeats a grant to its token", func(t *testing.T) {
		take(t, l, request("again", alice))
		req, old := request("again", bob), seen(t, l, "again")
		req.Token = newToken()
		first := replace(t, l, req, old)
		if again := replace(t, other, req, old); again.Grant != first.Grant || !again.Repeated {
			t.Errorf("%+v after %+v", again, first)
		}
	})

	t.Run("has one winner", func(t *testing.T) {
		for round := range 10 {
			resource := fmt.Sprint("race:", round)
			old := take(t, l, request(resource, alice))
			target := seen(t, l, resource)
			var won atomic.Int32
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					switch taken, err := all[i%2].Replace(t.Context(), request(resource, bob), target); {
					case err == nil:
						won.Add(1)
						wantHolder(t, all[i%2], taken)
					case !errors.Is(err, models.ErrNotAcquired):
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if won.Load() != 1 {
				t.Fatalf("%d took over from one holder", won.Load())
			}
			wantOver(t, l, old)
		}
	})
}

// Replace while Redis is away, or forgets.
func TestReplaceInAnOutage(t *testing.T) {
	t.Parallel()
	for name, frozen := range faults {
		t.Run("closed, the holder stays: "+name, func(t *testing.T) {
			o := newOutage(t, models.OnRedisDownClosed)
			old := takeInRedis(t, o.Locker, request("r", alice))
			target := seen(t, o.other, "r")
			o.begin(frozen)
			if _, err := o.Replace(t.Context(), request("r", bob), target); !errors.Is(err, models.ErrUnavailable) {
				t.Error(err)
			}
			o.end(frozen)
			if frozen { // else Redis comes back empty
				wantHolder(t, o.other, old)
			}
		})
	}
	t.Run("open, it counts here at once, and everywhere when Redis is back", func(t *testing.T) {
		t.Parallel()
		server := servicestest.StartRedis(t)
		l, other := openApart(t, server), openAt(t, server.Addr)
		old := take(t, l.Locker, request("r", alice))
		l.cut()
		next := queueFor(t.Context(), t, l.Locker, request("r", models.Holder{UserID: "3"}))
		target := seen(t, l.Locker, "r")
		target.Idle = time.Hour
		if _, err := l.Replace(t.Context(), request("r", bob), target); !errors.Is(err, models.ErrNotAcquired) {
			t.Errorf("from an active holder: %v", err)
		}
		events := listen(t, l.Locker)
		taken := replace(t, l.Locker, request("r", bob), seen(t, l.Locker, "r"))
		if !taken.Degraded || taken.Fence != nil {
			t.Errorf("%+v", taken)
		}
		events.until(models.LockTakenOver, "r")
		events.until(models.LockAcquired, "r")
		wantOver(t, l.Locker, old)
		if !l.KnowsEnd(old.Grant) || l.KnowsEnd(taken.Grant) {
			t.Error("what has ended is not known")
		}
		waiting(t, l.Locker, "r", 1)
		l.restore()
		servicestest.Eventually(t, l.inSync, "Redis does not learn of it")
		wantHolder(t, other, taken)
		wantOver(t, other, old)
		giveBack(t, other, taken)
		<-next
	})
	t.Run("a server that forgets gets the new holder back, not the old one", func(t *testing.T) {
		t.Parallel()
		server := servicestest.StartRedis(t)
		all := instances(t, server, 2)
		old := take(t, all[0], request("r", alice))
		extend(t, all[0], old, time.Minute)
		taken := replace(t, all[1], request("r", bob), seen(t, all[1], "r"))
		servicestest.Eventually(t, func() bool { return all[0].KnowsEnd(old.Grant) }, "its instance does not hear of the end")
		server.Do("FLUSHALL")
		servicestest.Eventually(t, func() bool { return all[0].mustStatus(t, "r").Grant == taken.Grant }, "the new holder is not back")
		wantOver(t, all[0], old)
		if s := all[0].mustStatus(t, "r"); !s.ActiveAt.After(s.Holder.Since) {
			t.Errorf("its protection did not begin anew: %+v", s)
		}
	})
}

// ends collects what Options.Ended hears of.
type ends struct {
	mu  sync.Mutex
	all []models.EndedLock
}

func (e *ends) add(ended models.EndedLock) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, ended)
}

// of are the ends of a grant.
func (e *ends) of(grant string) (found []models.LockEnd) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, ended := range e.all {
		if ended.Grant == grant {
			found = append(found, ended.End)
		}
	}
	return found
}

func TestEnded(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	var heard ends
	l := at(t, server.Addr, patient, Options{Ended: heard.add})
	other := at(t, server.Addr, patient, Options{Ended: heard.add})

	t.Run("a lease that ended by itself is heard of once, and known by its grant", func(t *testing.T) {
		began := time.Now()
		taken := take(t, l, requestFor("r", alice, 20*time.Millisecond))
		servicestest.Eventually(t, func() bool { return len(heard.of(taken.Grant)) > 0 }, "no instance hears of it")
		at, known := other.LeaseEnded(t.Context(), "r", taken.Grant)
		if end := heard.of(taken.Grant)[0]; end.How != models.LockExpired || !known || !end.At.Equal(at) || end.By != (models.UserRef{}) {
			t.Errorf("%+v, %v %t", end, at, known)
		}
		if since := at.Sub(taken.Holder.Since); since < 20*time.Millisecond || since > time.Since(began) {
			t.Errorf("ended %v after the grant", since)
		}
		for range 2 * sweepHeartbeat { // all of which would hear of it again
			if _, _, err := other.heartbeat(t.Context(), shardOf("r"), nil); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(heard.of(taken.Grant)); n != 1 {
			t.Errorf("heard of %d times", n)
		}
	})
	t.Run("also if its holder is the first to find out", func(t *testing.T) {
		for n := range 5 { // a heartbeat may be the first
			taken := take(t, l, requestFor(fmt.Sprint("late:", n), alice, 5*time.Millisecond))
			servicestest.Eventually(t, func() bool { return !l.mustStatus(t, taken.Resource).Held }, "it does not end")
			if _, err := l.Release(t.Context(), taken.Claim); !errors.Is(err, models.ErrNotHeld) {
				t.Error(err)
			}
			if _, known := l.LeaseEnded(t.Context(), taken.Resource, taken.Grant); !known {
				t.Error("how it ended is not known")
			}
			text := server.Do("PTTL", server.Do("KEYS", "*expired:"+taken.Grant))
			if left, err := time.ParseDuration(text + "ms"); err != nil || left < 24*time.Hour-time.Minute {
				t.Errorf("known for %v, %v", left, err)
			}
		}
	})
	t.Run("one that did not is not said to have", func(t *testing.T) {
		held, given := take(t, l, request("held", alice)), take(t, l, request("given back", alice))
		giveBack(t, l, given)
		for _, lock := range []Lock{held, given} {
			if at, known := l.LeaseEnded(t.Context(), lock.Resource, lock.Grant); known {
				t.Errorf("%s ended by itself at %v", lock.Resource, at)
			}
		}
	})
	t.Run("without Redis it is heard of, too", func(t *testing.T) {
		var heard ends
		l := cutOff(t, Options{OnRedisDown: models.OnRedisDownOpen, Ended: heard.add})
		taken := take(t, l, requestFor("r", alice, 10*time.Millisecond))
		servicestest.Eventually(t, func() bool { return len(heard.of(taken.Grant)) == 1 }, "the instance does not hear of it")
	})
	t.Run("the locks of a disabled user are told, also those that end after an outage", func(t *testing.T) {
		var heard ends
		way := servicestest.NewProxy(t, server.Addr)
		disabler := apart{at(t, way.Addr, patient, Options{OnRedisDown: models.OnRedisDownOpen, Ended: heard.add}), t, way}
		now, later := take(t, l, request("now", bob)), models.Holder{UserID: "9"}
		if ended, err := disabler.ReleaseUser(t.Context(), bob.UserID); err != nil || len(ended) != 1 || ended[0].Grant != now.Grant {
			t.Errorf("%+v, %v", ended, err)
		}
		held := take(t, l, request("later", later))
		disabler.cut()
		if ended, err := disabler.ReleaseUser(t.Context(), later.UserID); err != nil || len(ended) != 0 {
			t.Errorf("%+v, %v", ended, err)
		}
		disabler.restore()
		servicestest.Eventually(t, func() bool {
			ends := heard.of(held.Grant)
			return len(ends) == 1 && ends[0].How == models.LockUserDisabled
		}, "its end is not heard of")
	})
}
