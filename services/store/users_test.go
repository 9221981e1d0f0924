package store_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/store"
)

func TestUserRoundTrip(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		user, err := s.CreateUser(t.Context(), "Ann@Example.com", "hash", []string{models.RoleViewer, models.RoleAdmin})
		check(t, err)
		if user.Email != "ann@example.com" || user.Disabled || time.Since(user.CreatedAt).Abs() > time.Minute {
			t.Fatalf("created %+v", user)
		}
		if got := must(s.User(t.Context(), user.ID)); !reflect.DeepEqual(got, user) {
			t.Fatalf("read %+v, want %+v", got, user)
		}
		want := models.Credentials{User: user, PasswordHash: "hash", Epoch: 1}
		if got := must(s.Credentials(t.Context(), "ANN@example.com")); !reflect.DeepEqual(got, want) {
			t.Fatalf("credentials %+v, want %+v", got, want)
		}
		if got := must(s.CredentialsByID(t.Context(), user.ID)); !reflect.DeepEqual(got, want) {
			t.Fatalf("credentials by id %+v, want %+v", got, want)
		}
		_, err = s.CreateUser(t.Context(), "ANN@EXAMPLE.COM", "other", nil)
		wantError(t, err, models.ErrEmailTaken)
		for _, email := range []string{"", "nobody@example.com", " ann@example.com", "ann@example.com ", "a\x00", "\xff", strings.Repeat("x", 10_000)} {
			_, err := s.Credentials(t.Context(), email)
			wantError(t, err, models.ErrNotFound)
		}
		for _, id := range badIDs {
			_, err := s.User(t.Context(), id)
			wantError(t, err, models.ErrNotFound)
			_, err = s.UpdateUser(t.Context(), id, models.UserPatch{Disabled: ptr(true)})
			wantError(t, err, models.ErrNotFound)
			wantError(t, s.DeleteUser(t.Context(), id), models.ErrNotFound)
		}
	})
}

func TestUserIDsAreNotUsedAgain(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		first := newUser(t, s, "ann@example.com")
		check(t, s.DeleteUser(t.Context(), first.ID))
		if second := newUser(t, s, "ann@example.com"); second.ID == first.ID {
			t.Fatalf("id %s was used again", second.ID)
		}
	})
}

func TestUserPages(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		for i := range 5 {
			newUser(t, s, fmt.Sprintf("u%d@example.com", i))
		}
		var got []string
		page := models.Page{Limit: 2}
		for {
			list := must(s.Users(t.Context(), page))
			for _, u := range list.Items {
				got = append(got, u.Email[:2])
			}
			if list.NextCursor == nil {
				break
			}
			got = append(got, "|")
			page.Cursor = *list.NextCursor
		}
		if text := strings.Join(got, " "); text != "u0 u1 | u2 u3 | u4" {
			t.Fatalf("pages are %q", text)
		}
	})
}

// What each change does to the epoch and to the revocation log.
func TestUpdateUser(t *testing.T) {
	rows := []struct {
		name    string
		patch   models.UserPatch
		epochs  int64
		entries int
	}{
		{"nothing", models.UserPatch{}, 0, 0},
		{"the same", models.UserPatch{Roles: []string{models.RoleEditor}, Disabled: ptr(false)}, 0, 0},
		{"roles", models.UserPatch{Roles: []string{models.RoleViewer}}, 0, 1},
		{"password", models.UserPatch{PasswordHash: ptr("new")}, 1, 1},
		{"disable", models.UserPatch{Disabled: ptr(true)}, 1, 1},
		{"all at once", models.UserPatch{Roles: []string{models.RoleViewer}, Disabled: ptr(true), PasswordHash: ptr("new")}, 1, 1},
	}
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		for i, row := range rows {
			t.Run(row.name, func(t *testing.T) {
				user := newUser(t, s, fmt.Sprintf("u%d@example.com", i))
				head := must(s.Revocations(t.Context(), 0, time.Time{})).Head
				got := must(s.UpdateUser(t.Context(), user.ID, row.patch))
				c := must(s.CredentialsByID(t.Context(), user.ID))
				if !reflect.DeepEqual(got, c.User) {
					t.Fatalf("returned %+v, stored %+v", got, c.User)
				}
				if c.Epoch != 1+row.epochs {
					t.Errorf("epoch is %d, want %d", c.Epoch, 1+row.epochs)
				}
				if row.patch.PasswordHash != nil && c.PasswordHash != "new" {
					t.Errorf("password hash is %q", c.PasswordHash)
				}
				wantLog(t, s, head, repeat(models.Revocation{UserID: user.ID}, row.entries)...)
			})
		}
		user := newUser(t, s, "back@example.com")
		must(s.UpdateUser(t.Context(), user.ID, models.UserPatch{Disabled: ptr(true)}))
		if got := must(s.UpdateUser(t.Context(), user.ID, models.UserPatch{Disabled: ptr(false)})); got.Disabled {
			t.Fatal("still disabled")
		}
		if c := must(s.Credentials(t.Context(), user.Email)); c.Epoch != 2 {
			t.Fatalf("enabling changed the epoch to %d, want 2", c.Epoch)
		}
	})
}

func repeat(entry models.Revocation, n int) []models.Revocation {
	list := make([]models.Revocation, n)
	for i := range list {
		list[i] = entry
	}
	return list
}

// wantLog checks the entries after head, their numbers and times apart.
func wantLog(t *testing.T, s *store.Store, head int64, want ...models.Revocation) {
	t.Helper()
	read := must(s.Revocations(t.Context(), head, time.Time{}))
	if read.Head != head+int64(len(want)) || len(read.Entries) != len(want) {
		t.Fatalf("log after %d is %+v, want %d entries", head, read, len(want))
	}
	for i, entry := range read.Entries {
		if entry.Seq != head+int64(i)+1 || time.Since(entry.At).Abs() > 10*time.Minute { // of a slow machine
			t.Errorf("entry %d is %+v", i, entry)
		}
		entry.Seq, entry.Nonce, entry.At = 0, 0, time.Time{}
		if entry != want[i] {
			t.Errorf("entry %d is %+v, want %+v", i, entry, want[i])
		}
	}
}

func TestLastAdministratorStays(t *testing.T) {
	demote := models.UserPatch{Roles: []string{models.RoleEditor}}
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		a := newUser(t, s, "a@example.com", models.RoleAdmin)
		newUser(t, s, "editor@example.com")
		head := must(s.Revocations(t.Context(), 0, time.Time{})).Head
		_, err := s.UpdateUser(t.Context(), a.ID, demote)
		wantError(t, err, models.ErrLastAdmin)
		_, err = s.UpdateUser(t.Context(), a.ID, models.UserPatch{Disabled: ptr(true)})
		wantError(t, err, models.ErrLastAdmin)
		wantError(t, s.DeleteUser(t.Context(), a.ID), models.ErrLastAdmin)
		wantLog(t, s, head) // refused, so nothing was done
		must(s.UpdateUser(t.Context(), a.ID, models.UserPatch{PasswordHash: ptr("new")}))
		must(s.UpdateUser(t.Context(), a.ID, models.UserPatch{Roles: []string{models.RoleAdmin, models.RoleViewer}}))

		b := newUser(t, s, "b@example.com", models.RoleAdmin)
		must(s.UpdateUser(t.Context(), b.ID, models.UserPatch{Disabled: ptr(true)}))
		_, err = s.UpdateUser(t.Context(), a.ID, demote) // b is disabled
		wantError(t, err, models.ErrLastAdmin)
		must(s.UpdateUser(t.Context(), b.ID, models.UserPatch{Disabled: ptr(false)}))
		must(s.UpdateUser(t.Context(), a.ID, demote))
		wantError(t, s.DeleteUser(t.Context(), b.ID), models.ErrLastAdmin)
	})
}

// Two administrators remove each other, and themselves, at the same time.
func TestLastAdministratorRace(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		instances := []*store.Store{w.s, w.other}
		s := instances[0]
		ways := []func(s *store.Store, id string) error{
			func(s *store.Store, id string) error {
				_, err := s.UpdateUser(t.Context(), id, models.UserPatch{Roles: []string{models.RoleViewer}})
				return err
			},
			func(s *store.Store, id string) error {
				_, err := s.UpdateUser(t.Context(), id, models.UserPatch{Disabled: ptr(true)})
				return err
			},
			func(s *store.Store, id string) error { return s.DeleteUser(t.Context(), id) },
		}
		survivor := newUser(t, s, "first@example.com", models.RoleAdmin)
		for round := range 9 { // each way against each
			admins := []models.User{survivor, newUser(t, s, fmt.Sprintf("u%d@example.com", round), models.RoleAdmin)}
			errs := make([]error, 2)
			var wg sync.WaitGroup
			for i, admin := range admins {
				wg.Go(func() { errs[i] = ways[(round+i*(round/3))%3](instances[i], admin.ID) })
			}
			wg.Wait()
			switch {
			case errs[0] == nil && errors.Is(errs[1], models.ErrLastAdmin):
				survivor = admins[1]
			case errs[1] == nil && errors.Is(errs[0], models.ErrLastAdmin):
				survivor = admins[0]
			default:
				t.Fatalf("round %d: %v, want exactly one refused", round, errs)
			}
		}
	})
}

// A hash is replaced only if it is the one that was read; no session ends by it.
func TestRenewPasswordHash(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		id := newUser(t, s, "ann@example.com").ID
		first := must(s.CredentialsByID(t.Context(), id)).PasswordHash
		head := must(s.Revocations(t.Context(), 0, time.Time{})).Head
		for _, row := range []struct{ id, read, renewed, want string }{{id, "other", "new", first}, {id, first, "new", "new"}, {id, first, "newer", "new"}, {"x", "new", "newer", "new"}} {
			check(t, s.RenewPasswordHash(t.Context(), row.id, row.read, row.renewed))
			if now := must(s.CredentialsByID(t.Context(), id)); now.PasswordHash != row.want || now.Epoch != 1 {
				t.Errorf("%+v: %q, epoch %d", row, now.PasswordHash, now.Epoch)
			}
		}
		if now := must(s.Revocations(t.Context(), 0, time.Time{})).Head; now != head {
			t.Errorf("%d entries in the log", now-head)
		}
	})
}
