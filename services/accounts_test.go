package services_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/services/lock"
	"gatehouse/services/ratelimit"
	"gatehouse/services/ratelimit/policyfile"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
	"gatehouse/services/session"
	"gatehouse/services/store"
)

const password = "correct horse battery"

type accountsDesk struct {
	*services.Accounts
	db       *store.Store
	sessions *session.Cache
	locks    *lock.Locker
	limiter  *ratelimit.Limiter
}

func newAccounts(t *testing.T, loginLimit int64) accountsDesk {
	t.Helper()
	return newAccountsOn(t, servicestest.StartRedis(t), loginLimit)
}

func newAccountsOn(t *testing.T, server *servicestest.RedisServer, loginLimit int64) accountsDesk {
	t.Helper()
	redis := redistest.Patient(t, server.Addr)
	db := openStore(t, filepath.Join(t.TempDir(), "test.db"))
	sessions, err := session.NewCache(redis, db, session.Options{Logger: redistest.Quiet()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sessions.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	locks := lock.New(redis, lock.Options{})
	limiter := ratelimit.New(redis, ratelimit.Options{})
	accounts := services.NewAccounts(db, sessions, locks, limiter, loginLimits(loginLimit))
	for email, role := range map[string]string{"alice@example.com": models.RoleEditor, "admin@example.com": models.RoleAdmin} {
		if err := accounts.EnsureUser(t.Context(), email, password, role); err != nil {
			t.Fatal(err)
		}
	}
	return accountsDesk{accounts, db, sessions, locks, limiter}
}

func loginLimits(limit int64) services.AccountsOptions {
	policy := func(name string) models.Policy { return models.Policy{Name: name, Limit: limit, Window: time.Minute} }
	return services.AccountsOptions{LoginByIP: policy("login-ip"), LoginByAccount: policy("login-account"), Logger: redistest.Quiet()}
}

// allowed reports whether the limits let one more attempt pass.
func (a accountsDesk) allowed(t *testing.T, email, network string) bool {
	t.Helper()
	decisions, err := a.AllowSignIn(t.Context(), email, from(network))
	if err != nil {
		t.Fatal(err)
	}
	return !slices.ContainsFunc(decisions, func(d models.Decision) bool { return !d.Allowed })
}

func from(network string) services.Client { return services.Client{IP: network, Network: network} }

func TestSignInAnswersTheSameForEveryWrongPair(t *testing.T) {
	t.Parallel()
	a := newAccounts(t, 1000)
	who, err := a.db.Credentials(t.Context(), "alice@example.com")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.SignIn(t.Context(), " ALICE@example.com ", password, from("192.0.2.1")); err != nil {
		t.Errorf("the right pair, typed carelessly: %v", err)
	}
	yes := true
	if _, err := a.ChangeUser(t.Context(), "admin@example.com", who.ID, services.UserChange{Disabled: &yes}, from("")); err != nil {
		t.Fatal(err)
	}
	for name, pair := range map[string][2]string{
		"unknown": {"nobody@example.com", password}, "wrong": {"admin@example.com", "wrong"}, "disabled": {"alice@example.com", password},
		"not an address": {"\x00\xff" + strings.Repeat("ä", 500), password}, "empty": {"", ""}, "decoy": {"nobody@example.com", ""},
	} {
		_, _, err := a.SignIn(t.Context(), pair[0], pair[1], from("192.0.2.1"))
		if !errors.Is(err, models.ErrInvalidCredentials) || err.Error() != "sign in: invalid credentials" {
			t.Errorf("%s: %v", name, err)
		}
	}
	failed, err := a.AuditPage(t.Context(), models.AuditSignInFailed, models.Page{Limit: 50})
	if err != nil || len(failed.Items) != 6 {
		t.Errorf("%d failed sign-ins in the audit, want 6: %v", len(failed.Items), err)
	}
}

func TestOtherClientsCannotLockTheOwnerOut(t *testing.T) {
	a := newAccounts(t, 3)
	if !a.allowed(t, "alice@example.com", "192.0.2.1") {
		t.Fatal("the first sign-in is refused")
	}
	if _, _, err := a.SignIn(t.Context(), "alice@example.com", password, from("192.0.2.1")); err != nil {
		t.Fatal(err)
	}
	// An attacker tries her password from many addresses.
	for i := range 10 {
		if got, want := a.allowed(t, "alice@example.com", "203.0.113."+string(rune('0'+i))), i < 2; got != want {
			t.Errorf("attempt %d from elsewhere: allowed %v", i, got)
		}
	}
	if !a.allowed(t, "alice@example.com", "192.0.2.1") {
		t.Error("the owner, at an address she signed in from, is kept out")
	}
	// One address tries many accounts.
	for i := range 5 {
		if got, want := a.allowed(t, "user"+string(rune('0'+i))+"@example.com", "198.51.100.1"), i < 3; got != want {
			t.Errorf("account %d from one address: allowed %v", i, got)
		}
	}
}

// signInAndLock is alice, who has process:1 locked.
func (a accountsDesk) signInAndLock(t *testing.T) (token string, current models.Session) {
	t.Helper()
	token, current, err := a.SignIn(t.Context(), "alice@example.com", password, from("192.0.2.1"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.locks.TryAcquire(t.Context(), lock.Request{Resource: "process:1", Holder: models.Holder{UserID: current.User.ID}}); err != nil {
		t.Fatal(err)
	}
	return token, current
}

func TestDisablingAUserEndsSessionsAndLocks(t *testing.T) {
	a := newAccounts(t, 1000)
	token, current := a.signInAndLock(t)
	yes := true
	if _, err := a.ChangeUser(t.Context(), "admin@example.com", current.User.ID, services.UserChange{Disabled: &yes}, from("")); err != nil {
		t.Fatal(err)
	}
	if _, err := a.sessions.Get(t.Context(), token); !errors.Is(err, models.ErrNotFound) {
		t.Errorf("the session of a disabled user: %v", err)
	}
	if s, err := a.locks.Status(t.Context(), "process:1"); err != nil || s.Held {
		t.Errorf("the lock of a disabled user: %+v, %v", s, err)
	}
}

func TestChangePasswordEndsTheOtherSessions(t *testing.T) {
	t.Parallel()
	a := newAccounts(t, 1000)
	one, current, err := a.SignIn(t.Context(), "alice@example.com", password, from("192.0.2.1"))
	if err != nil {
		t.Fatal(err)
	}
	two, _, err := a.SignIn(t.Context(), "alice@example.com", password, from("192.0.2.2"))
	if err != nil {
		t.Fatal(err)
	}
	var invalid *models.ValidationError
	if _, _, err := a.ChangePassword(t.Context(), current, "wrong", "another password", from("")); !errors.As(err, &invalid) || invalid.Errors[0].Field != "currentPassword" {
		t.Errorf("wrong current password: %v", err)
	}
	fresh, _, err := a.ChangePassword(t.Context(), current, password, "another password", from(""))
	if err != nil {
		t.Fatal(err)
	}
	for name, token := range map[string]string{"this session's old token": one, "the other session": two} {
		if _, err := a.sessions.Get(t.Context(), token); !errors.Is(err, models.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := a.sessions.Get(t.Context(), fresh); err != nil {
		t.Errorf("the new token: %v", err)
	}
	if _, _, err := a.SignIn(t.Context(), "alice@example.com", password, from("")); !errors.Is(err, models.ErrInvalidCredentials) {
		t.Errorf("the old password: %v", err)
	}
}

func TestPasswords(t *testing.T) {
	p := services.NewPasswords()
	hash, err := p.Hash(t.Context(), password)
	if err != nil || !strings.HasPrefix(hash, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Fatalf("hash %q, %v", hash, err)
	}
	var wg sync.WaitGroup
	for try, want := range map[string]bool{password: true, "": false, password + " ": false} {
		wg.Go(func() {
			if got, err := p.Matches(t.Context(), try, hash); err != nil || got != want {
				t.Errorf("%q: %v, %v", try, got, err)
			}
		})
	}
	wg.Wait()
	if got, err := p.Matches(t.Context(), "", ""); got || err != nil {
		t.Errorf("no hash matched: %v", err)
	}
	for _, broken := range []string{"plain", "$argon2i$v=19$m=1,t=1,p=1$AA$AA", "$argon2id$v=19$m=x$AA$AA", "$argon2id$v=19$m=8,t=1,p=1$!$AA"} {
		if _, err := p.Matches(t.Context(), "x", broken); err == nil {
			t.Errorf("stored hash %q was accepted", broken)
		}
	}
}

// However an address is typed: if it finds the account, it is under the account's limit.
func TestSignInLimitIsOfTheAccountHoweverItIsTyped(t *testing.T) {
	t.Parallel()
	a := newAccounts(t, 3)
	const alice = "alice@example.com"
	for i := range 4 {
		a.allowed(t, alice, fmt.Sprint("203.0.113.", i))
	}
	long := strings.Repeat(" ", 300)
	for i, typed := range []string{
		alice, " ALICE@example.com\n", "\x00 " + alice, alice + " \x00", "\xff" + alice, "\xff \u00a0" + alice, "\x00\t\x00 Alice@EXAMPLE.com \xff\x00",
		"al\x00ice@example.com", alice + long + "x", long + alice, "\u2003" + alice, "al\u0130ce@example.com",
	} {
		network := fmt.Sprint("198.51.100.", i)
		_, _, err := a.SignIn(t.Context(), typed, password, from(network)) // the network is known then: ask from another
		if finds := err == nil; finds != (typed != alice+long+"x") || finds && a.allowed(t, typed, "x"+network) {
			t.Errorf("%q: finds the account: %v, and is not limited with it if so", typed, finds)
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
		if _, _, err := a.SignIn(t.Context(), "alice@example.com", password, from(step.network)); err != nil {
			t.Fatal(err)
		}
		entries, err := a.AuditPage(t.Context(), models.AuditSignInNewPlace, models.Page{Limit: 50})
		if err != nil || len(entries.Items) != step.audited || entries.Items[0].Target != "user:"+who(t, a, "alice@example.com") {
			t.Errorf("sign-in %d from %s: %+v, %v", i, step.network, entries.Items, err)
		}
	}
	if _, _, err := a.SignIn(t.Context(), "alice@example.com", "wrong", from("198.51.100.7")); !errors.Is(err, models.ErrInvalidCredentials) {
		t.Fatal(err)
	}
	if entries, _ := a.AuditPage(t.Context(), models.AuditSignInNewPlace, models.Page{Limit: 50}); len(entries.Items) != 2 {
		t.Error("a failed sign-in is audited as one from a new place")
	}
}

func who(t *testing.T, a accountsDesk, email string) string {
	t.Helper()
	c, err := a.db.Credentials(t.Context(), email)
	if err != nil {
		t.Fatal(err)
	}
	return c.ID
}

// A refusal by a limit is in the audit, once however many follow.
func TestLimitedSignInsAreTold(t *testing.T) {
	a := newAccounts(t, 3)
	for i := range 9 {
		decisions, err := a.AllowSignIn(t.Context(), "alice@example.com", from("192.0.2.1"))
		if err != nil || decisions[0].Allowed != (i < 3) {
			t.Fatalf("attempt %d: %+v, %v", i, decisions, err)
		}
	}
	if _, err := a.AllowSignIn(t.Context(), "alice@example.com", from("198.51.100.1")); err != nil { // by the account's limit only
		t.Fatal(err)
	}
	if _, err := a.AllowSignIn(t.Context(), "nobody@example.com", from("192.0.2.1")); err != nil { // again by that of the address
		t.Fatal(err)
	}
	a.wantLimited(t, "alice@example.com from 192.0.2.1 refused by login-account", "alice@example.com from 192.0.2.1 refused by login-ip")
}

// A policy that a file adds is audited by its own name, with the key of the policy it is added to.
func TestSignInsLimitedByAnAddedPolicyAreTold(t *testing.T) {
	a := newAccounts(t, 100)
	file := "policies: [{name: burst, with: login-account, limit: 1, window: 1h}]"
	set, err := policyfile.Parse("p.yaml", []byte(file), map[string][]string{"login-ip": nil, "login-account": nil})
	if err != nil {
		t.Fatal(err)
	}
	a.limiter.Configure(set)
	for _, network := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"} {
		for _, email := range []string{"alice@example.com", "nobody@example.com"} {
			if _, err := a.AllowSignIn(t.Context(), email, from(network)); err != nil {
				t.Fatal(err)
			}
		}
	}
	a.wantLimited(t, "alice@example.com from 192.0.2.2 refused by burst", "nobody@example.com from 192.0.2.2 refused by burst")
}

// wantLimited checks which refusals by a limit are in the audit.
func (a accountsDesk) wantLimited(t *testing.T, want ...string) {
	t.Helper()
	entries, err := a.AuditPage(t.Context(), models.AuditSignInLimited, models.Page{Limit: 50})
	if err != nil {
		t.Fatal(err)
	}
	var details []string
	for _, entry := range entries.Items {
		details = append(details, entry.Actor+" from "+entry.IP+" "+entry.Detail)
	}
	slices.Sort(details)
	if !slices.Equal(details, want) {
		t.Errorf("%q, want %q", details, want)
	}
}

// However an address is written, it is one account: who signs in by it, and what its
// limit counts.
func TestSignInByEveryFormOfAnAddress(t *testing.T) {
	t.Parallel()
	a := newAccounts(t, 4)
	forms := []string{"alice@example.com", "ALICE@example.com", " ａｌｉｃｅ@example.com", "𝐚lice＠example.com"}
	for i, form := range forms {
		if !a.allowed(t, form, fmt.Sprintf("192.0.2.%d", i)) {
			t.Errorf("%+q: limited after %d attempts", form, i)
		}
		if i > 0 { // the first network is not to be known
			continue
		}
		if _, _, err := a.SignIn(t.Context(), "\u0430lice@example.com", password, from("192.0.2.200")); !errors.Is(err, models.ErrInvalidCredentials) {
			t.Errorf("a look-alike: %v", err)
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

func TestSessionLimitIsInTheAudit(t *testing.T) {
	t.Parallel()
	a := newAccounts(t, 1000)
	for range 21 { // one more than the default limit
		if _, _, err := a.SignIn(t.Context(), "alice@example.com", password, from("192.0.2.1")); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := a.AuditPage(t.Context(), models.AuditSessionRevoked, models.Page{Limit: 50})
	if err != nil || len(entries.Items) != 1 || entries.Items[0].Actor != "alice@example.com" {
		t.Errorf("%+v, %v", entries.Items, err)
	}
}

// Signing out leaves the user's locks: they go by lock token, and end with their lease.
func TestSignOutLeavesLocks(t *testing.T) {
	a := newAccounts(t, 1000)
	_, current := a.signInAndLock(t)
	if err := a.SignOut(t.Context(), current, from("192.0.2.1")); err != nil {
		t.Fatal(err)
	}
	if status, err := a.locks.Status(t.Context(), "process:1"); err != nil || !status.Held {
		t.Errorf("after signing out: %+v, %v", status, err)
	}
}
