package store_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/store"
)

// Each way to end sessions: what stays live, and its one entry in the log.
func TestEndSessions(t *testing.T) {
	type users struct {
		s              *store.Store
		ann, bob       models.User
		a1, a2, b, nob models.Session
	}
	rows := []struct {
		name  string
		end   func(t *testing.T, u users) error
		want  error
		live  string
		entry func(u users) models.Revocation
	}{
		{"one", func(t *testing.T, u users) error { return u.s.EndSessions(t.Context(), models.Ending{Hash: u.a1.Hash}) }, nil, "a2 b nob",
			func(u users) models.Revocation { return models.Revocation{SessionHash: u.a1.Hash} }},
		{"an anonymous one", func(t *testing.T, u users) error {
			return u.s.EndSessions(t.Context(), models.Ending{Hash: u.nob.Hash})
		}, nil, "a1 a2 b",
			func(u users) models.Revocation { return models.Revocation{SessionHash: u.nob.Hash} }},
		{"unknown", func(t *testing.T, u users) error { return u.s.EndSessions(t.Context(), models.Ending{Hash: "unknown"}) }, models.ErrNotFound, "a1 a2 b nob", nil},
		{"by id", func(t *testing.T, u users) error {
			return u.s.EndSessions(t.Context(), models.Ending{UserID: u.ann.ID, ID: u.a2.ID})
		}, nil, "a1 b nob",
			func(u users) models.Revocation { return models.Revocation{SessionHash: u.a2.Hash} }},
		{"another user's id", func(t *testing.T, u users) error {
			return u.s.EndSessions(t.Context(), models.Ending{UserID: u.ann.ID, ID: u.b.ID})
		},
			models.ErrNotFound, "a1 a2 b nob", nil},
		{"all of a user", func(t *testing.T, u users) error {
			return u.s.EndSessions(t.Context(), models.Ending{UserID: u.ann.ID})
		}, nil, "b nob",
			func(u users) models.Revocation { return models.Revocation{UserID: u.ann.ID} }},
		{"all of no user", func(t *testing.T, u users) error { return u.s.EndSessions(t.Context(), models.Ending{UserID: "99"}) },
			models.ErrNotFound, "a1 a2 b nob", nil},
		{"others", func(t *testing.T, u users) error {
			return u.s.EndSessions(t.Context(), models.Ending{UserID: u.ann.ID, Keep: u.a2.Hash})
		}, nil, "a2 b nob",
			func(u users) models.Revocation { return models.Revocation{UserID: u.ann.ID} }},
		{"others, keeping another user's", func(t *testing.T, u users) error {
			return u.s.EndSessions(t.Context(), models.Ending{UserID: u.ann.ID, Keep: u.b.Hash})
		},
			models.ErrNotFound, "a1 a2 b nob", nil},
		{"everybody", func(t *testing.T, u users) error { return u.s.EndSessions(t.Context(), models.Ending{Everybody: true}) }, nil, "",
			func(users) models.Revocation { return models.Revocation{Everybody: true} }},
		{"everybody else", func(t *testing.T, u users) error {
			return u.s.EndSessions(t.Context(), models.Ending{Everybody: true, Keep: u.b.Hash})
		}, nil, "b",
			func(users) models.Revocation { return models.Revocation{Everybody: true} }},
		{"everybody else, keeping an unknown one", func(t *testing.T, u users) error {
			return u.s.EndSessions(t.Context(), models.Ending{Everybody: true, Keep: "unknown"})
		},
			models.ErrNotFound, "a1 a2 b nob", nil},
		{"delete the user", func(t *testing.T, u users) error { return u.s.DeleteUser(t.Context(), u.ann.ID) }, nil, "b nob",
			func(u users) models.Revocation { return models.Revocation{UserID: u.ann.ID} }},
		{"disable the user", func(t *testing.T, u users) error {
			_, err := u.s.UpdateUser(t.Context(), u.ann.ID, models.UserPatch{Disabled: ptr(true)})
			return err
		}, nil, "b nob", func(u users) models.Revocation { return models.Revocation{UserID: u.ann.ID} }},
	}
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		for i, row := range rows {
			t.Run(row.name, func(t *testing.T) {
				check(t, s.EndSessions(t.Context(), models.Ending{Everybody: true}))
				cleanUpSessions(t, s, 100)
				u := users{s: s, ann: newUser(t, s, fmt.Sprintf("ann%d@example.com", i)), bob: newUser(t, s, fmt.Sprintf("bob%d@example.com", i))}
				u.a1, u.a2, u.b, u.nob = session(u.ann, "a1"), session(u.ann, "a2"), session(u.bob, "b"), session(models.User{}, "nob")
				insert(t, s, u.a1, u.a2, u.b, u.nob)
				head := must(s.Revocations(t.Context(), 0, time.Time{})).Head

				err := row.end(t, u)
				if row.want != nil {
					wantError(t, err, row.want)
					wantLog(t, s, head)
				} else {
					check(t, err)
					wantLog(t, s, head, row.entry(u))
				}
				if got := live(t, s, u.a1, u.a2, u.b, u.nob); got != row.live {
					t.Errorf("live are %q, want %q", got, row.live)
				}
				if n := must(s.CountSessions(t.Context(), []string{u.ann.ID}, start))[u.ann.ID]; n != strings.Count(row.live, "a") {
					t.Errorf("count of ann's is %d, live are %q", n, row.live)
				}
			})
		}
	})
}

func TestKeptSessionsCanBeEndedAgain(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		user := newUser(t, s, "ann@example.com")
		a, b := session(user, "a"), session(user, "b")
		insert(t, s, a, b)
		check(t, s.EndSessions(t.Context(), models.Ending{UserID: user.ID, Keep: a.Hash}))
		wantError(t, s.EndSessions(t.Context(), models.Ending{UserID: user.ID, Keep: b.Hash}), models.ErrNotFound) // b has been ended
		check(t, s.EndSessions(t.Context(), models.Ending{Everybody: true, Keep: a.Hash}))
		check(t, s.EndSessions(t.Context(), models.Ending{UserID: user.ID, Keep: a.Hash}))
		if got := live(t, s, a, b); got != "a" {
			t.Fatalf("live are %q", got)
		}
		if got := must(s.Session(t.Context(), a.Hash, start)); got.Epoch != 3 {
			t.Fatalf("epoch of the kept session is %d, want 3", got.Epoch)
		}
		check(t, s.EndSessions(t.Context(), models.Ending{UserID: user.ID}))
		if got := live(t, s, a, b); got != "" {
			t.Fatalf("live are %q", got)
		}
	})
}

func TestChangePassword(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		user := newUser(t, s, "ann@example.com")
		old, other, next := session(user, "old"), session(user, "other"), session(user, "next")
		insert(t, s, old, other)
		wantError(t, s.ChangePassword(t.Context(), user.ID, 1, "new hash", next), models.ErrNotFound) // no session of that name
		next.ID = old.ID
		head := must(s.Revocations(t.Context(), 0, time.Time{})).Head
		check(t, s.ChangePassword(t.Context(), user.ID, 1, "new hash", next))
		wantLog(t, s, head, models.Revocation{UserID: user.ID})
		if got := live(t, s, old, other, next); got != "next" {
			t.Fatalf("live are %q", got)
		}
		c := must(s.CredentialsByID(t.Context(), user.ID))
		if c.PasswordHash != "new hash" || c.Epoch != 2 {
			t.Fatalf("credentials are %+v", c)
		}

		again := session(user, "again")
		wantError(t, s.ChangePassword(t.Context(), user.ID, 1, "newer", again), models.ErrStale)
		must(s.UpdateUser(t.Context(), user.ID, models.UserPatch{Disabled: ptr(true)}))
		wantError(t, s.ChangePassword(t.Context(), user.ID, 3, "newer", again), models.ErrStale)
		wantError(t, s.ChangePassword(t.Context(), "99", 1, "newer", again), models.ErrStale)
		if c := must(s.CredentialsByID(t.Context(), user.ID)); c.PasswordHash != "new hash" {
			t.Fatalf("password hash is %q", c.PasswordHash)
		}
	})
}

// Data saved in the session while its password change was under
// way were acknowledged: the session goes on with them.
func TestChangePasswordKeepsValuesSavedMeanwhile(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		user := newUser(t, s, "ann@example.com")
		old, next := session(user, "old"), session(user, "next")
		insert(t, s, old)
		next.ID, next.Data, next.Version = old.ID, old.Data, old.Version // as it was read before
		version := must(s.SaveSessionData(t.Context(), old.Hash, old.Version, []byte("acknowledged")))
		check(t, s.ChangePassword(t.Context(), user.ID, 1, "new hash", next))
		got := must(s.Session(t.Context(), next.Hash, start))
		if string(got.Data) != "acknowledged" || got.Version != version {
			t.Fatalf("data is %q of version %d, want what was saved as version %d", got.Data, got.Version, version)
		}
	})
}

// Of a password change and a sign-in with the old password at the same time,
// the sign-in may come first, but its session does not survive.
func TestSignInAgainstPasswordChange(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		instances := []*store.Store{w.s, w.other}
		s := instances[0]
		for round := range 6 {
			user := newUser(t, s, fmt.Sprintf("u%d@example.com", round))
			old, signIn, next := session(user, fmt.Sprint("old", round)), session(user, fmt.Sprint("in", round)), session(user, fmt.Sprint("next", round))
			insert(t, s, old)
			next.ID = old.ID
			var wg sync.WaitGroup
			wg.Go(func() {
				if _, err := instances[1].InsertSession(t.Context(), signIn, 3); err != nil && !errors.Is(err, models.ErrStale) {
					t.Error(err)
				}
			})
			wg.Go(func() {
				if err := s.ChangePassword(t.Context(), user.ID, 1, "new", next); err != nil {
					t.Error(err)
				}
			})
			wg.Wait()
			if got := live(t, s, signIn, next); got != fmt.Sprint("next", round) {
				t.Fatalf("live are %q", got)
			}
		}
	})
}
