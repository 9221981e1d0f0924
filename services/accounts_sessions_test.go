package services_test

import (
	"errors"
	"testing"

	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/services/lock"
)

// signInAndLock is alice, who has process:1 locked.
func (a accountsDesk) signInAndLock(t *testing.T) (token string, current models.Session) {
	t.Helper()
	token, current = a.signIn(t)
	must(a.locks.TryAcquire(t.Context(), lock.Request{Resource: "process:1", Holder: models.Holder{UserID: current.User.ID, Email: current.User.Email}}))
	return token, current
}

func (a accountsDesk) isLocked(t *testing.T) bool {
	t.Helper()
	return must(a.locks.Status(t.Context(), "process:1")).Held
}

func TestDisablingAUserEndsSessionsAndLocks(t *testing.T) {
	t.Parallel()
	a := newAccounts(t, 1000)
	token, current := a.signInAndLock(t)
	must(a.ChangeUser(t.Context(), administrator, current.User.ID, services.UserChange{Disabled: new(true)}, from("")))
	if a.live(t, token) || a.isLocked(t) {
		t.Errorf("a disabled user has a session: %t, a lock: %t", a.live(t, token), a.isLocked(t))
	}
}

// Signing out leaves the user's locks: they go by lock token, and end with their lease.
func TestSignOutLeavesLocks(t *testing.T) {
	t.Parallel()
	a := newAccounts(t, 1000)
	token, current := a.signInAndLock(t)
	check(t, a.SignOut(t.Context(), current, from("192.0.2.1")))
	if a.live(t, token) || !a.isLocked(t) {
		t.Errorf("after signing out: session %t, lock %t", a.live(t, token), a.isLocked(t))
	}
	check(t, a.SignOut(t.Context(), current, from("192.0.2.1"))) // has nothing to end, and its entry all the same
	if entries := a.audit(t, models.AuditSignOut); len(entries) != 2 {
		t.Errorf("two sign-outs are %d entries of the audit", len(entries))
	}
}

// A sign-in replaces the session that the client had.
func TestSupersede(t *testing.T) {
	t.Parallel()
	a := newAccounts(t, 1000)
	oldToken, old := a.signIn(t)
	freshToken, fresh := a.signIn(t)
	t.Run("ends the old session", func(t *testing.T) {
		check(t, a.Supersede(t.Context(), old, fresh, from("")))
		if a.live(t, oldToken) || !a.live(t, freshToken) {
			t.Errorf("the old one lives: %t, the fresh one: %t", a.live(t, oldToken), a.live(t, freshToken))
		}
		if entries := a.audit(t, models.AuditSignOut); len(entries) != 1 || entries[0].Target != "user:"+old.User.ID {
			t.Errorf("the audit has %+v", entries)
		}
	})
	t.Run("or neither remains", func(t *testing.T) {
		nextToken, next := a.signIn(t)
		a.refuseAudit(t)
		if err := a.Supersede(t.Context(), fresh, next, from("")); !errors.Is(err, models.ErrUnavailable) {
			t.Errorf("without its audit entry: %v", err)
		}
		if a.live(t, nextToken) {
			t.Error("the client has no token of a session that goes on")
		}
	})
}

func TestChangePasswordEndsTheOtherSessions(t *testing.T) {
	t.Parallel()
	a := newAccounts(t, 1000)
	one, current := a.signIn(t)
	two, _ := a.signIn(t)
	var invalid *models.ValidationError
	if _, _, err := a.ChangePassword(t.Context(), current, "wrong", "another password", from("")); !errors.As(err, &invalid) || invalid.Errors[0].Field != "currentPassword" {
		t.Errorf("wrong current password: %v", err)
	}
	fresh, _, err := a.ChangePassword(t.Context(), current, password, "another password", from(""))
	check(t, err)
	if a.live(t, one) || a.live(t, two) || !a.live(t, fresh) {
		t.Errorf("this session's old token: %t, the other session: %t, the new token: %t", a.live(t, one), a.live(t, two), a.live(t, fresh))
	}
	if _, _, err := a.SignIn(t.Context(), "alice@example.com", password, from("")); !errors.Is(err, models.ErrInvalidCredentials) {
		t.Errorf("the old password: %v", err)
	}
}
