package store_test

import (
	"errors"
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/store"
)

// start is on the store's precision, so that times compare after a round trip.
var start = time.Now().UTC().Truncate(time.Microsecond)

// session is a live one of the user, at the user's first epoch.
func session(user models.User, name string) models.Session {
	return models.Session{
		Hash: "hash-" + name, ID: "id-" + name, User: models.UserRef{ID: user.ID, Email: user.Email}, Roles: user.Roles, Epoch: 1,
		Data: []byte("data of " + name), CreatedAt: start, LastSeen: start,
		IdleAt: start.Add(30 * time.Minute), ExpiresAt: start.Add(12 * time.Hour), UserAgent: "agent", IP: "192.0.2.1",
	}
}

// A session of a user of another database is refused, and the error says why.
func TestInsertSessionWithoutItsUser(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		for id, want := range map[string]string{"42": "no user 42 in the store", "bob\n": `no user "bob\n" in the store`} {
			_, err := s.InsertSession(t.Context(), session(models.User{ID: id}, "a"), 0)
			if !errors.Is(err, models.ErrStale) || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v, want ErrStale with %q", id, err, want)
			}
		}
	})
}

func insert(t *testing.T, s *store.Store, sessions ...models.Session) {
	t.Helper()
	for _, x := range sessions {
		must(s.InsertSession(t.Context(), x, 0))
	}
}

// live names the sessions of these that are still good.
func live(t *testing.T, s *store.Store, sessions ...models.Session) string {
	t.Helper()
	var names []string
	for _, x := range sessions {
		if _, err := s.Session(t.Context(), x.Hash, start); err == nil {
			names = append(names, x.Hash[len("hash-"):])
		} else {
			wantError(t, err, models.ErrNotFound)
		}
	}
	return strings.Join(names, " ")
}

func TestSessionRoundTrip(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		user := newUser(t, s, "ann@example.com", models.RoleViewer, models.RoleEditor)
		x := session(user, "x")
		insert(t, s, x)
		if got := must(s.Session(t.Context(), x.Hash, start)); !reflect.DeepEqual(got, x) {
			t.Fatalf("read %+v, want %+v", got, x)
		}
		must(s.UpdateUser(t.Context(), user.ID, models.UserPatch{Roles: []string{models.RoleAdmin}}))
		if got := must(s.Session(t.Context(), x.Hash, start)); !reflect.DeepEqual(got.Roles, []string{models.RoleAdmin}) {
			t.Fatalf("roles are %v after they changed", got.Roles)
		}

		anonymous := models.Session{Hash: "hash-anon", ID: "anon", Roles: []string{}, CreatedAt: start, LastSeen: start,
			IdleAt: start.Add(time.Hour), ExpiresAt: start.Add(time.Hour)}
		insert(t, s, anonymous)
		if got := must(s.Session(t.Context(), anonymous.Hash, start)); !reflect.DeepEqual(got, anonymous) {
			t.Fatalf("read %+v, want %+v", got, anonymous)
		}

		odd := session(user, "odd")
		odd.UserAgent = "caf\xe9\x00"
		insert(t, s, odd)
		if got := must(s.Session(t.Context(), odd.Hash, start)); got.UserAgent != "caf\uFFFD" {
			t.Fatalf("user agent is %q", got.UserAgent)
		}
		for _, hash := range []string{"", "nobody's", "\x00", "\xff", "hash-%"} {
			_, err := s.Session(t.Context(), hash, start)
			wantError(t, err, models.ErrNotFound)
		}
	})
}

func TestSessionsAreCountedForManyUsers(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		ann, bob, carl := newUser(t, s, "ann@example.com"), newUser(t, s, "bob@example.com"), newUser(t, s, "carl@example.com")
		insert(t, s, session(ann, "a1"))
		insert(t, s, session(ann, "a2"))
		insert(t, s, session(bob, "b"))
		for _, row := range []struct {
			ids  []string
			want map[string]int
		}{
			{[]string{ann.ID, bob.ID, carl.ID, "99", "0" + bob.ID, ""}, map[string]int{ann.ID: 2, bob.ID: 1}},
			{[]string{bob.ID}, map[string]int{bob.ID: 1}},
			{[]string{"x"}, map[string]int{}},
			{nil, map[string]int{}},
		} {
			if got := must(s.CountSessions(t.Context(), row.ids, start)); !maps.Equal(got, row.want) {
				t.Errorf("counts of %q are %v, want %v", row.ids, got, row.want)
			}
		}
	})
}

func TestSessionTimeouts(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		user := newUser(t, s, "ann@example.com")
		x := session(user, "x")
		insert(t, s, x)
		for _, row := range []struct {
			after time.Duration
			want  int
		}{{0, 1}, {30*time.Minute - time.Microsecond, 1}, {30 * time.Minute, 0}, {13 * time.Hour, 0}} {
			now := start.Add(row.after)
			if n := must(s.CountSessions(t.Context(), []string{user.ID}, now))[user.ID]; n != row.want {
				t.Errorf("count after %v is %d, want %d", row.after, n, row.want)
			}
			if n := len(must(s.SessionsOf(t.Context(), user.ID, now))); n != row.want {
				t.Errorf("list after %v has %d, want %d", row.after, n, row.want)
			}
			_, err := s.Session(t.Context(), x.Hash, now)
			if (err == nil) != (row.want == 1) {
				t.Errorf("session after %v: %v", row.after, err)
			}
		}

		// Used again and again, until the absolute timeout.
		for after := 20 * time.Minute; after < 12*time.Hour; after += 20 * time.Minute {
			at := start.Add(after)
			check(t, touch(t, s, x.Hash, at, at.Add(30*time.Minute)))
		}
		_, err := s.Session(t.Context(), x.Hash, start.Add(12*time.Hour-time.Second))
		check(t, err)
		_, err = s.Session(t.Context(), x.Hash, start.Add(12*time.Hour))
		wantError(t, err, models.ErrNotFound)
		wantError(t, touch(t, s, x.Hash, start.Add(12*time.Hour), start.Add(13*time.Hour)), models.ErrNotFound)
	})
}

func TestTouchNeverGoesBackAndRevivesNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		user := newUser(t, s, "ann@example.com")
		x := session(user, "x")
		insert(t, s, x)
		late := start.Add(10 * time.Minute)
		check(t, touch(t, s, x.Hash, late, late.Add(30*time.Minute)))
		check(t, touch(t, s, x.Hash, start, start.Add(time.Minute)))
		got := must(s.Session(t.Context(), x.Hash, start))
		if got.LastSeen != late || got.IdleAt != late.Add(30*time.Minute) {
			t.Fatalf("went back to %v, %v", got.LastSeen, got.IdleAt)
		}
		tooLate := start.Add(2 * time.Hour)
		wantError(t, touch(t, s, x.Hash, tooLate, tooLate.Add(time.Hour)), models.ErrNotFound)
		wantError(t, touch(t, s, "unknown", start, start), models.ErrNotFound)
		check(t, s.EndSessions(t.Context(), models.Ending{UserID: user.ID}))
		wantError(t, touch(t, s, x.Hash, late, tooLate), models.ErrNotFound)
		if live(t, s, x) != "" {
			t.Fatal("an ended session came back")
		}
	})
}

func TestSaveSessionData(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		user := newUser(t, s, "ann@example.com")
		x := session(user, "x")
		insert(t, s, x)
		if v := must(s.SaveSessionData(t.Context(), x.Hash, 0, []byte("one"))); v != 1 {
			t.Fatalf("version is %d, want 1", v)
		}
		_, err := s.SaveSessionData(t.Context(), x.Hash, 0, []byte("two"))
		wantError(t, err, models.ErrStale)
		got := must(s.Session(t.Context(), x.Hash, start))
		if string(got.Data) != "one" || got.Version != 1 {
			t.Fatalf("stored %q at version %d", got.Data, got.Version)
		}
		if v := must(s.SaveSessionData(t.Context(), x.Hash, 1, nil)); v != 2 {
			t.Fatalf("version is %d, want 2", v)
		}
		_, err = s.SaveSessionData(t.Context(), "unknown", 0, nil)
		wantError(t, err, models.ErrNotFound)
		check(t, s.EndSessions(t.Context(), models.Ending{Hash: x.Hash}))
		_, err = s.SaveSessionData(t.Context(), x.Hash, 2, []byte("back to life"))
		wantError(t, err, models.ErrNotFound)

		expired := session(user, "expired")
		expired.IdleAt = start.Add(-time.Hour)
		insert(t, s, expired)
		_, err = s.SaveSessionData(t.Context(), expired.Hash, 0, nil)
		wantError(t, err, models.ErrNotFound)
	})
}

func TestInsertNeedsTheCurrentEpoch(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		user := newUser(t, s, "ann@example.com")
		x := session(user, "x")
		check(t, s.EndSessions(t.Context(), models.Ending{UserID: user.ID})) // between password check and insert
		wantError(t, errorOf(s.InsertSession(t.Context(), x, 0)), models.ErrStale)
		x.Epoch = 2
		insert(t, s, x)
		must(s.UpdateUser(t.Context(), user.ID, models.UserPatch{Disabled: ptr(true)}))
		y := session(user, "y")
		y.Epoch = 3
		wantError(t, errorOf(s.InsertSession(t.Context(), y, 0)), models.ErrStale)
		check(t, s.DeleteUser(t.Context(), user.ID))
		wantError(t, errorOf(s.InsertSession(t.Context(), y, 0)), models.ErrStale)
		for _, id := range badIDs[1:] {
			y.User.ID = id
			wantError(t, errorOf(s.InsertSession(t.Context(), y, 0)), models.ErrStale)
		}
	})
}

// touch is TouchSessions for one session, whose caller must know whether it is live.
func touch(t *testing.T, s *store.Store, hash string, lastSeen, idleAt time.Time) error {
	t.Helper()
	written, err := s.TouchSessions(t.Context(), []models.Activity{{Hash: hash, Since: lastSeen, LastSeen: lastSeen, IdleAt: idleAt}})
	if err == nil && len(written) == 0 {
		err = models.ErrNotFound
	}
	return err
}
