package session_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
	"gatehouse/services/session"
	"gatehouse/services/store"
)

// inFakeTime runs test with n instances on one database and without Redis, in
// time that passes by itself.
func inFakeTime(t *testing.T, n int, opt session.Options, test func(t *testing.T, all []instance)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sessions.db")
	opt.Logger = redistest.Quiet()
	synctest.Test(t, func(t *testing.T) {
		var all []instance
		var stops []func(context.Context) error
		for range n {
			db, err := store.Open(t.Context(), store.Options{URL: path})
			if err != nil {
				t.Fatal(err)
			}
			rdb := redis.New(redis.Options{Disabled: true, Logger: redistest.Quiet()})
			db2 := &testDB{Store: db}
			cache, err := session.NewCache(rdb, db2, opt)
			if err != nil {
				t.Fatal(err)
			}
			all, stops = append(all, instance{cache, db2, rdb}), append(stops, db.KeepClean())
		}
		synctest.Wait()
		test(t, all)
		for n, i := range all {
			ctx := context.Background()
			if err := errors.Join(stops[n](ctx), i.Close(ctx), i.redis.Close(ctx), i.db.Close()); err != nil {
				t.Error(err)
			}
		}
	})
}

// pass lets time pass and the instances do what they do then.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// activityInterval is how late a session that is not used any more ends, at most.
func activityInterval(idle time.Duration) time.Duration { return min(time.Minute, idle/10) }

// A session never ends early, and at most one interval late.
func TestSessionIdleTimeout(t *testing.T) {
	t.Parallel()
	for _, idle := range []time.Duration{2 * time.Second, time.Minute, 10 * time.Minute} {
		t.Run(idle.String(), func(t *testing.T) {
			opt := session.Options{IdleTimeout: idle}
			inFakeTime(t, 2, opt, func(t *testing.T, all []instance) {
				a, b := all[0], all[1]
				ann := signUp(t, a.db, "ann@example.com")
				used, _ := signIn(t, a, ann)
				unused, _ := signIn(t, a, ann)
				for range 5 { // used at half the time allowed
					pass(idle / 2)
					a.Touch(mustGet(t, a, used))
				}
				for _, i := range all {
					refused(t, i, unused)
				}
				pass(idle - time.Millisecond)
				for _, i := range all {
					mustGet(t, i, used)
				}
				pass(activityInterval(idle) + time.Millisecond)
				for _, i := range all {
					refused(t, i, used)
				}
				if n, err := b.Count(t.Context(), ann.ID); n != 0 || err != nil {
					t.Errorf("%d sessions left, %v", n, err)
				}
			})
		})
	}
}

// An instance that ends at once, with what it did not write, ends no session early: the
// row allows for it.
func TestSessionActivityReachesOtherInstancesInTime(t *testing.T) {
	t.Parallel()
	idle := 30 * time.Minute
	for _, used := range []time.Duration{10 * time.Second, 59 * time.Second, time.Minute, 61 * time.Second, 29 * time.Minute} {
		inFakeTime(t, 2, session.Options{IdleTimeout: idle}, func(t *testing.T, all []instance) {
			a, b := all[0], all[1]
			token, s := signIn(t, a, signUp(t, a.db, "ann@example.com"))
			pass(used)
			a.Touch(mustGet(t, a, token))
			pass(time.Second)
			a.db.gone.Store(true)
			pass(idle - time.Second - time.Millisecond)
			if got := mustGet(t, b, token); got.LastSeen.Before(s.CreatedAt.Add(used - activityInterval(idle))) {
				t.Errorf("last seen %v after the start, used %v after it", got.LastSeen.Sub(s.CreatedAt), used)
			}
			pass(activityInterval(idle) + time.Millisecond)
			refused(t, b, token)
			a.db.gone.Store(false)
		})
	}
}

func TestSessionAbsoluteTimeout(t *testing.T) {
	t.Parallel()
	inFakeTime(t, 1, session.Options{AbsoluteTimeout: time.Hour}, func(t *testing.T, all []instance) {
		token, _ := signIn(t, all[0], signUp(t, all[0].db, "ann@example.com"))
		for range 59 {
			pass(time.Minute)
			s := mustGet(t, all[0], token)
			all[0].Touch(s)
			if _, err := all[0].Refresh(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}
		pass(time.Minute - time.Millisecond)
		mustGet(t, all[0], token)
		pass(time.Millisecond)
		refused(t, all[0], token)
	})
}

func TestSessionActivityIsWrittenSeldom(t *testing.T) {
	t.Parallel()
	inFakeTime(t, 1, session.Options{}, func(t *testing.T, all []instance) {
		i := all[0]
		token, s := signIn(t, i, signUp(t, i.db, "ann@example.com"))
		for range 12 * 60 { // an hour; one write per minute
			pass(5 * time.Second)
			i.Touch(mustGet(t, i, token))
		}
		if n := i.db.touches.Load(); n < 54 || n > 60 {
			t.Errorf("%d writes in an hour", n)
		}
		lastMinute := s.CreatedAt.Add(time.Hour - time.Minute)
		if got := mustGet(t, i, token); got.LastSeen.Before(lastMinute) {
			t.Errorf("last seen %v after the start", got.LastSeen.Sub(s.CreatedAt))
		}
		list, err := i.List(t.Context(), s.User.ID)
		if err != nil || len(list) != 1 || list[0].LastSeen.Before(lastMinute) {
			t.Errorf("list = %+v, %v", list, err)
		}
	})
}

// The copy in Redis does not say that a session was used since. It is not written again
// each time that copy is read, whether or not the copy in memory was evicted.
func TestSessionActivityIsKnownWhenRedisHasAnOldCopy(t *testing.T) {
	t.Parallel()
	for name, evict := range map[string]bool{"in memory": false, "evicted": true} {
		t.Run(name, func(t *testing.T) {
			i := startInstance(t, filepath.Join(t.TempDir(), "sessions.db"), redistest.Of(t, "embedded"), session.Options{})
			token, _ := signIn(t, i, signUp(t, i.db, "ann@example.com"))
			i.db.exec(t, "UPDATE sessions SET last_seen = last_seen - 120000000, idle_at = idle_at - 120000000")
			if err := i.db.NoteChange(t.Context(), ""); err != nil {
				t.Fatal(err)
			}
			i.Sync(t.Context())
			reads := i.db.reads.Load()
			began := time.Now()
			servicestest.Eventually(t, func() bool {
				i.Touch(mustGet(t, i, token))
				if evict {
					i.Evict(token)
				}
				return time.Since(began) > 2500*time.Millisecond
			}, "")
			if touches, read := i.db.touches.Load(), i.db.reads.Load()-reads; touches != 1 || read != 1 {
				t.Errorf("%d writes, %d reads of the row; want one of each", touches, read)
			}
		})
	}
}

// A use that could not be written counts, for each method that needs the row.
func TestSessionActivityOutlivesAnOutage(t *testing.T) {
	for name, use := range map[string]sessionUse{
		"save": func(ctx context.Context, i instance, s models.Session) (models.Session, error) {
			return i.SaveData(ctx, s, []byte("x"))
		},
		"refresh": func(ctx context.Context, i instance, s models.Session) (models.Session, error) {
			return i.Refresh(ctx, s)
		},
	} {
		t.Run(name, func(t *testing.T) { outliveAnOutage(t, use) })
	}
}

type sessionUse func(ctx context.Context, i instance, s models.Session) (models.Session, error)

func outliveAnOutage(t *testing.T, use sessionUse) {
	idle := 4 * time.Minute
	inFakeTime(t, 1, session.Options{IdleTimeout: idle}, func(t *testing.T, all []instance) {
		i := all[0]
		token, s := signIn(t, i, signUp(t, i.db, "ann@example.com"))
		pass(2 * time.Minute)
		current := mustGet(t, i, token)
		i.db.gone.Store(true)
		i.Touch(current)
		pass(idle - 20*time.Second)
		i.db.gone.Store(false)                                                                                   // the row has been idle for 5 min 40 s, the user for 3 min 40 s
		if _, _, err := i.db.CleanUpSessions(t.Context(), time.Now().Add(-2*time.Minute), "", 100); err != nil { // as KeepClean does
			t.Fatal(err)
		}
		if got := mustGet(t, i, token); got.ID != s.ID {
			t.Errorf("got %+v", got)
		}
		if _, err := use(t.Context(), i, s); err != nil {
			t.Error(err)
		}
		pass(2 * time.Second)
		fresh, err := i.db.Store.Session(t.Context(), s.Hash, time.Now())
		if err != nil || fresh.LastSeen.Before(s.CreatedAt.Add(2*time.Minute)) {
			t.Errorf("the row was not brought up to date: %+v, %v", fresh, err)
		}
	})
}

func TestSessionCloseWritesTheLastActivity(t *testing.T) {
	inFakeTime(t, 2, session.Options{}, func(t *testing.T, all []instance) {
		a, b := all[0], all[1]
		token, s := signIn(t, a, signUp(t, a.db, "ann@example.com"))
		pass(2 * time.Minute)
		a.Touch(mustGet(t, a, token))
		if err := a.Cache.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := mustGet(t, b, token); !got.LastSeen.Equal(s.CreatedAt.Add(2 * time.Minute)) {
			t.Errorf("last seen %v after the start", got.LastSeen.Sub(s.CreatedAt))
		}
	})
}

// Without the database copies are trusted for 2 s. Then the answer is models.ErrUnavailable.
func TestSessionDatabaseGone(t *testing.T) {
	inFakeTime(t, 1, session.Options{}, func(t *testing.T, all []instance) {
		i := all[0]
		ann := signUp(t, i.db, "ann@example.com")
		token, s := signIn(t, i, ann)
		ended, _ := signIn(t, i, ann)
		if err := i.Delete(t.Context(), ended); err != nil {
			t.Fatal(err)
		}
		pass(5 * time.Second)
		mustGet(t, i, token)
		i.db.gone.Store(true)
		mustGet(t, i, token)
		first := "A"
		if token[:1] == first {
			first = "B"
		}
		for _, tried := range []string{ended, first + token[1:]} {
			if _, err := i.Get(t.Context(), tried); !errors.Is(err, models.ErrUnavailable) || errors.Is(err, models.ErrNotFound) {
				t.Errorf("get what is not known: %v", err)
			}
		}
		pass(2 * time.Second)
		if got, err := i.Get(t.Context(), token); !errors.Is(err, models.ErrUnavailable) || errors.Is(err, models.ErrNotFound) {
			t.Errorf("after 2 s: %+v, %v", got, err)
		}
		if i.Warm(token) {
			t.Error("warm without trust")
		}
		if _, err := i.Refresh(t.Context(), s); !errors.Is(err, models.ErrUnavailable) {
			t.Errorf("refresh: %v", err)
		}
		i.db.gone.Store(false)
		mustGet(t, i, token)
	})
}
