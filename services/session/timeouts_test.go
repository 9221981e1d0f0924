package session_test

import (
	"testing"
	"time"

	"gatehouse/services/session"
)

// activityInterval is how late a session that is not used any more ends, at most.
func activityInterval(idle time.Duration) time.Duration { return min(time.Minute, idle/10) }

// A session never ends early, and at most one interval late.
func TestIdleTimeout(t *testing.T) {
	t.Parallel()
	for _, idle := range []time.Duration{2 * time.Second, time.Minute, 10 * time.Minute} {
		t.Run(idle.String(), func(t *testing.T) {
			inFakeTime(t, 2, session.Options{IdleTimeout: idle}, func(t *testing.T, all []instance) {
				a, b := all[0], all[1]
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

// An instance that ends at once, with what it did not write, ends no session early: the row allows
// for it.
func TestCrashEndsNoSessionEarly(t *testing.T) {
	t.Parallel()
	const idle = 30 * time.Minute
	for _, used := range []time.Duration{10 * time.Second, 59 * time.Second, time.Minute, 61 * time.Second, 29 * time.Minute} {
		inFakeTime(t, 2, session.Options{IdleTimeout: idle}, func(t *testing.T, all []instance) {
			a, b := all[0], all[1]
			token, s := signIn(t, a, ann)
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

func TestAbsoluteTimeout(t *testing.T) {
	t.Parallel()
	inFakeTime(t, 1, session.Options{AbsoluteTimeout: time.Hour}, func(t *testing.T, all []instance) {
		token, _ := signIn(t, all[0], ann)
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
