package services_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/services/servicestest"
)

// A sign-in brings a hash up to date whose parameters are not today's: once, without
// ending a session, and never over a password that was changed meanwhile.
func TestSignInRenewsAnOutdatedHash(t *testing.T) {
	t.Parallel()
	a := newAccounts(t, 1000)
	old := a.outdated(t, "alice@example.com")
	first, _ := a.signIn(t)
	now := a.credentials(t, "alice@example.com")
	if now.PasswordHash == old.PasswordHash || !strings.Contains(now.PasswordHash, "$m=19456,t=2,p=1$") || now.Epoch != old.Epoch {
		t.Fatalf("after a sign-in: %q, epoch %d, was %d", now.PasswordHash, now.Epoch, old.Epoch)
	}
	if _, _, err := a.SignIn(t.Context(), "alice@example.com", "a wrong password", from("192.0.2.1")); !errors.Is(err, models.ErrInvalidCredentials) {
		t.Errorf("a wrong password: %v", err)
	}
	a.signIn(t)
	if again := a.credentials(t, "alice@example.com"); again.PasswordHash != now.PasswordHash {
		t.Error("renewed again")
	}
	if !a.live(t, first) {
		t.Error("the first session has ended")
	}
}

// Sign-ins, changes of the password and ends of sessions at the same time, with a hash
// to renew: what was changed last is the password, and a right one is never refused
// because another sign-in renewed its hash.
func TestRenewedHashRaces(t *testing.T) {
	t.Parallel()
	a := newAccounts(t, 100_000)
	const next = "the next password"
	for round := range 6 {
		address := fmt.Sprintf("user%d@example.com", round)
		signIn := func(password string) error {
			_, _, err := a.SignIn(t.Context(), address, password, from("192.0.2.1"))
			return err
		}
		check(t, a.EnsureUser(t.Context(), address, password, models.RoleViewer))
		who := a.outdated(t, address)
		changes := round%2 == 1
		var changed atomic.Bool
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				began := changed.Load()
				if err := signIn(password); err != nil && (!changes || !errors.Is(err, models.ErrInvalidCredentials)) || err == nil && began {
					t.Errorf("round %d: sign-in: %v", round, err)
				}
			})
		}
		wg.Go(func() {
			if !changes {
				if err := a.sessions.DeleteUser(t.Context(), who.ID); err != nil {
					t.Error(err)
				}
				return
			}
			if _, err := a.ChangeUser(t.Context(), administrator, who.ID, services.UserChange{Password: new(next)}, from("")); err != nil {
				t.Error(err)
			}
			changed.Store(true)
		})
		wg.Wait()
		right, wrong := password, next
		if changes {
			right, wrong = next, password
		}
		if err := signIn(right); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		if err := signIn(wrong); !errors.Is(err, models.ErrInvalidCredentials) {
			t.Errorf("round %d, the other password: %v", round, err)
		}
	}
}

// While the password is checked, another sign-in renews the hash and the sessions are
// ended: the password is right all the same.
func TestPasswordCheckedWhileItsHashIsRenewed(t *testing.T) {
	t.Parallel()
	a := newAccounts(t, 1000)
	for name, step := range map[string]func(at *services.Accounts, s models.Session) error{
		"sign-in": func(at *services.Accounts, s models.Session) error {
			_, _, err := at.SignIn(t.Context(), s.User.Email, password, from("192.0.2.1"))
			return err
		},
		"change": func(at *services.Accounts, s models.Session) error {
			_, _, err := at.ChangePassword(t.Context(), s, password, "the next password", from(""))
			return err
		},
	} {
		address := name + "@example.com"
		check(t, a.EnsureUser(t.Context(), address, password, models.RoleViewer))
		_, s, err := a.SignIn(t.Context(), address, password, from("192.0.2.1"))
		check(t, err)
		who := a.credentials(t, address)
		slow := &meanwhileStore{Store: a.db, happens: []func(){func() {
			if err := errors.Join(a.db.RenewPasswordHash(t.Context(), who.ID, who.PasswordHash, services.HashFor(password)), a.sessions.End(t.Context(), models.Ending{UserID: s.User.ID, Keep: s.Hash})); err != nil {
				t.Error(err)
			}
		}}}
		if err := step(a.on(slow, loginLimits(1)), s); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A user whose stored hash cannot be used gets the answer of a wrong password;
// the log says so, and nothing of the hash.
func TestSignInWithAnUnusableHash(t *testing.T) {
	t.Parallel()
	a := newAccounts(t, 1000)
	who := a.credentials(t, "alice@example.com")
	unusable := strings.Replace(who.PasswordHash, "v=19", "v=16", 1)
	must(a.db.UpdateUser(t.Context(), who.ID, models.UserPatch{PasswordHash: &unusable}))
	var log servicestest.LogLines
	opt := loginLimits(1000)
	opt.Logger = slog.New(slog.NewTextHandler(&log, nil))
	accounts := a.on(a.db, opt)
	if _, _, err := accounts.SignIn(t.Context(), "alice@example.com", password, from("192.0.2.1")); !errors.Is(err, models.ErrInvalidCredentials) {
		t.Errorf("%v, want invalid credentials", err)
	}
	lines := log.With("cannot sign in")
	if len(lines) != 1 || !strings.Contains(lines[0], "user="+who.ID) || strings.Contains(lines[0], unusable[30:]) {
		t.Errorf("the log says %q", lines)
	}
}

// outdated gives a user a hash with other parameters, of the same password.
func (a accountsDesk) outdated(t *testing.T, address string) models.Credentials {
	t.Helper()
	hash := services.OutdatedHash(password)
	must(a.db.UpdateUser(t.Context(), a.credentials(t, address).ID, models.UserPatch{PasswordHash: &hash}))
	return a.credentials(t, address)
}
