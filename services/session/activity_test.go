package session_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
	"gatehouse/services/session"
)

// When a session was used is written to its row: seldom, but not lost.
func TestActivity(t *testing.T) {
	t.Parallel()
	t.Run("is written once a minute", func(t *testing.T) {
		inFakeTime(t, 1, session.Options{}, func(t *testing.T, all []instance) {
			i := all[0]
			token, s := signIn(t, i, ann)
			for range 12 * 60 { // an hour
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
	})
	t.Run("is written by Close", func(t *testing.T) {
		inFakeTime(t, 2, session.Options{}, func(t *testing.T, all []instance) {
			a, b := all[0], all[1]
			token, s := signIn(t, a, ann)
			pass(2 * time.Minute)
			a.Touch(mustGet(t, a, token))
			if err := a.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := mustGet(t, b, token); !got.LastSeen.Equal(s.CreatedAt.Add(2 * time.Minute)) {
				t.Errorf("last seen %v after the start", got.LastSeen.Sub(s.CreatedAt))
			}
		})
	})
	// The copy in Redis does not say that a session was used since. It is not written again each
	// time that copy is read, whether or not the copy in memory was evicted.
	w := newWorldOn(t, newDatabase(t))
	for name, evict := range map[string]bool{"is not written again for an old copy in Redis": false, "is not written again after an eviction": true} {
		t.Run(name, func(t *testing.T) {
			i := w.instance(t, redistest.Of(t, "embedded"), session.Options{})
			unlessLate(t, func() error {
				token, _ := signIn(t, i, w.signUp(t))
				w.exec(t, "UPDATE sessions SET last_seen = last_seen - 120000000, idle_at = idle_at - 120000000")
				if err := w.store.NoteChange(t.Context(), ""); err != nil {
					t.Fatal(err)
				}
				i.Sync(t.Context())
				touches, reads := i.db.touches.Load(), i.db.reads.Load()
				began := time.Now()
				servicestest.Eventually(t, func() bool { // until the copy in memory was too old once
					i.Touch(mustGet(t, i, token))
					if evict {
						i.Evict(token)
					}
					return time.Since(began) > promised+100*time.Millisecond && i.db.touches.Load() > touches
				}, "it is not written at all")
				if touches, read := i.db.touches.Load()-touches, i.db.reads.Load()-reads; touches != 1 || read != 1 {
					return fmt.Errorf("%d writes, %d reads of the row; want one of each", touches, read)
				}
				return nil
			})
		})
	}
}

// A use that could not be written counts, for each method that needs the row.
func TestActivityOutlivesAnOutage(t *testing.T) {
	t.Parallel()
	for name, use := range map[string]func(ctx context.Context, i instance, s models.Session) (models.Session, error){
		"save": func(ctx context.Context, i instance, s models.Session) (models.Session, error) {
			return i.SaveData(ctx, s, []byte("x"))
		},
		"refresh": func(ctx context.Context, i instance, s models.Session) (models.Session, error) {
			return i.Refresh(ctx, s)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const idle = 4 * time.Minute
			inFakeTimeOnAStore(t, session.Options{IdleTimeout: idle}, func(t *testing.T, w *world, i instance) {
				token, s := signIn(t, i, w.signUp(t))
				pass(2 * time.Minute)
				current := mustGet(t, i, token)
				i.db.gone.Store(true)
				i.Touch(current)
				pass(idle - 20*time.Second)
				i.db.gone.Store(false) // the row has been idle for 5 min 40 s, the user for 3 min 40 s
				// As KeepClean does:
				if _, _, err := w.store.CleanUpSessions(t.Context(), time.Now().Add(-2*time.Minute), "", 100); err != nil {
					t.Fatal(err)
				}
				if got := mustGet(t, i, token); got.ID != s.ID {
					t.Errorf("got %+v", got)
				}
				if _, err := use(t.Context(), i, s); err != nil {
					t.Error(err)
				}
				pass(2 * time.Second)
				fresh, err := w.store.Session(t.Context(), s.Hash, time.Now())
				if err != nil || fresh.LastSeen.Before(s.CreatedAt.Add(2*time.Minute)) {
					t.Errorf("the row was not brought up to date: %+v, %v", fresh, err)
				}
			})
		})
	}
}

// While the database refuses writes for longer than the idle timeout, the rows of sessions that
// are used look idle. None of these sessions ends by it, then or later.
func TestActivityOutlivesARefusal(t *testing.T) {
	t.Parallel()
	for name, use := range map[string]func(t *testing.T, i instance, token string) error{
		"get": func(t *testing.T, i instance, token string) error { return nil },
		"save": func(t *testing.T, i instance, token string) error {
			_, err := i.SaveData(t.Context(), mustGet(t, i, token), []byte("x"))
			return err
		},
		"refresh": func(t *testing.T, i instance, token string) error {
			_, err := i.Refresh(t.Context(), mustGet(t, i, token))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, 1, session.Options{IdleTimeout: 4 * time.Minute}, func(t *testing.T, all []instance) {
				i := all[0]
				token, s := signIn(t, i, ann)
				i.db.full.Store(true)
				for range 20 { // 10 min
					pass(30 * time.Second)
					i.Touch(mustGet(t, i, token))
				}
				i.db.full.Store(false)
				if err := use(t, i, token); err != nil {
					t.Error(err)
				}
				pass(2 * time.Second)
				if row, err := i.db.Session(t.Context(), s.Hash, time.Now()); err != nil || row.LastSeen.Before(s.CreatedAt.Add(10*time.Minute)) {
					t.Errorf("the row was not brought up to date: %+v, %v", row, err)
				}
				pass(5 * time.Minute) // unused
				refused(t, i, token)
			})
		})
	}
}
