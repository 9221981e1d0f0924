package services_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"gatehouse/models"
	"gatehouse/services"
)

func TestSignInAnswersTheSameForEveryWrongPair(t *testing.T) {
	t.Parallel()
	a := newAccounts(t, 1000)
	if _, _, err := a.SignIn(t.Context(), " ALICE@example.com ", password, from("192.0.2.1")); err != nil {
		t.Errorf("the right pair, typed carelessly: %v", err)
	}
	must(a.ChangeUser(t.Context(), administrator, a.credentials(t, "alice@example.com").ID, services.UserChange{Disabled: new(true)}, from("")))
	for name, pair := range map[string][2]string{
		"unknown": {"nobody@example.com", password}, "wrong": {"admin@example.com", "wrong"}, "disabled": {"alice@example.com", password},
		"not an address": {"\x00\xff" + strings.Repeat("ä", 500), password}, "empty": {"", ""}, "decoy": {"nobody@example.com", ""},
	} {
		_, _, err := a.SignIn(t.Context(), pair[0], pair[1], from("192.0.2.1"))
		if !errors.Is(err, models.ErrInvalidCredentials) || err.Error() != "sign in: invalid credentials" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if failed := a.audit(t, models.AuditSignInFailed); len(failed) != 6 {
		t.Errorf("%d failed sign-ins in the audit, want 6", len(failed))
	}
}

// However an address is written, it is one account: who signs in by it, and what its
// limit counts.
func TestSignInByEveryFormOfAnAddress(t *testing.T) {
	t.Parallel()
	a := newAccounts(t, 4)
	forms := []string{"alice@example.com", "ALICE@example.com", " ａｌｉｃｅ@example.com", "𝐚lice＠example.com"}
	if _, _, err := a.SignIn(t.Context(), "\u0430lice@example.com", password, from("192.0.2.200")); !errors.Is(err, models.ErrInvalidCredentials) {
		t.Errorf("a look-alike: %v", err)
	}
	for i, form := range forms {
		if !a.allowed(t, form, fmt.Sprintf("192.0.2.%d", i)) {
			t.Errorf("%+q: limited after %d attempts", form, i)
		}
	}
	for i, form := range forms {
		if a.allowed(t, form, fmt.Sprintf("192.0.2.%d", 100+i)) {
			t.Errorf("%+q: a fifth attempt passes", form)
		}
		if _, s, err := a.SignIn(t.Context(), form, password, from("192.0.2.201")); err != nil || s.User.Email != "alice@example.com" {
			t.Errorf("%+q: %+v, %v", form, s.User, err)
		}
	}
}

// A sign-in from where the account has not been lately stands out in the audit.
func TestSignInFromANewPlaceIsTold(t *testing.T) {
	t.Parallel()
	a := newAccounts(t, 1000)
	for i, step := range []struct {
		network string
		audited int
	}{{"192.0.2.1", 1}, {"192.0.2.1", 1}, {"203.0.113.9", 2}, {"192.0.2.1", 2}} {
		_, current, err := a.SignIn(t.Context(), "alice@example.com", password, from(step.network))
		check(t, err)
		if entries := a.audit(t, models.AuditSignInNewPlace); len(entries) != step.audited || entries[0].Target != "user:"+current.User.ID {
			t.Errorf("sign-in %d from %s: %+v", i, step.network, entries)
		}
	}
	if _, _, err := a.SignIn(t.Context(), "alice@example.com", "wrong", from("198.51.100.7")); !errors.Is(err, models.ErrInvalidCredentials) {
		t.Fatal(err)
	}
	if entries := a.audit(t, models.AuditSignInNewPlace); len(entries) != 2 {
		t.Error("a failed sign-in is audited as one from a new place")
	}
}
