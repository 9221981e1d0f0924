package services_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"gatehouse/models"
	"gatehouse/services/ratelimit/policyfile"
	"gatehouse/services/servicestest"
)

func TestOtherClientsCannotLockTheOwnerOut(t *testing.T) {
	t.Parallel()
	a := newAccounts(t, 3)
	if !a.allowed(t, "alice@example.com", "192.0.2.1") {
		t.Fatal("the first sign-in is refused")
	}
	a.signIn(t)
	// An attacker tries her password from many addresses.
	for i := range 10 {
		if got, want := a.allowed(t, "alice@example.com", fmt.Sprint("203.0.113.", i)), i < 2; got != want {
			t.Errorf("attempt %d from elsewhere: allowed %v", i, got)
		}
	}
	if !a.allowed(t, "alice@example.com", "192.0.2.1") {
		t.Error("the owner, at an address she signed in from, is kept out")
	}
	// One address tries many accounts.
	for i := range 5 {
		if got, want := a.allowed(t, fmt.Sprintf("user%d@example.com", i), "198.51.100.1"), i < 3; got != want {
			t.Errorf("account %d from one address: allowed %v", i, got)
		}
	}
}

// Passwords cannot be guessed on because Redis lost what it had, by address or by account.
func TestSignInLimitsHoldWhenRedisForgets(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	a := newAccountsOn(t, server, 3)
	for name, lose := range map[string]func(){
		"emptied": func() { server.Do("FLUSHALL") }, "restarted": server.Restart,
	} {
		for i := range 3 {
			if !a.allowed(t, fmt.Sprint(name, i, "@example.com"), "192.0.2."+name) {
				t.Fatalf("%s: attempt %d from an address is refused", name, i)
			}
			if !a.allowed(t, name+"@example.com", fmt.Sprint("198.51.100.", name, i)) {
				t.Fatalf("%s: attempt %d for an account is refused", name, i)
			}
		}
		lose()
		if a.allowed(t, name+"9@example.com", "192.0.2."+name) {
			t.Errorf("%s: one more from the address", name)
		}
		if a.allowed(t, name+"@example.com", fmt.Sprint("198.51.100.", name, 9)) {
			t.Errorf("%s: one more for the account", name)
		}
	}
}

// However an address is typed: if it finds the account, it is under the account's limit.
func TestSignInLimitOfAnAddressTypedOddly(t *testing.T) {
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

// A refusal by a limit is in the audit, once however many follow.
func TestLimitedSignInsAreTold(t *testing.T) {
	t.Parallel()
	attempt := func(t *testing.T, a accountsDesk, email, network string) []models.Decision {
		t.Helper()
		return must(a.AllowSignIn(t.Context(), email, from(network)))
	}
	wantTold := func(t *testing.T, a accountsDesk, want ...string) {
		t.Helper()
		var details []string
		for _, entry := range a.audit(t, models.AuditSignInLimited) {
			details = append(details, entry.Actor+" from "+entry.IP+" "+entry.Detail)
		}
		if slices.Sort(details); !slices.Equal(details, want) {
			t.Errorf("%q, want %q", details, want)
		}
	}
	t.Run("by the limit that refuses", func(t *testing.T) {
		a := newAccounts(t, 3)
		for i := range 9 {
			if decisions := attempt(t, a, "alice@example.com", "192.0.2.1"); decisions[0].Allowed != (i < 3) {
				t.Fatalf("attempt %d: %+v", i, decisions)
			}
		}
		attempt(t, a, "alice@example.com", "198.51.100.1") // by the account's limit only
		attempt(t, a, "nobody@example.com", "192.0.2.1")   // again by that of the address
		wantTold(t, a, "alice@example.com from 192.0.2.1 refused by login-account", "alice@example.com from 192.0.2.1 refused by login-ip")
	})
	t.Run("by a policy of a file, with the key of the policy that it is added to", func(t *testing.T) {
		a := newAccounts(t, 100)
		a.limiter.Configure(must(policyfile.Parse("p.yaml", []byte("policies: [{name: burst, with: login-account, limit: 1, window: 1h}]"),
			map[string][]string{"login-ip": nil, "login-account": nil})))
		for _, network := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"} {
			attempt(t, a, "alice@example.com", network)
			attempt(t, a, "nobody@example.com", network)
		}
		wantTold(t, a, "alice@example.com from 192.0.2.2 refused by burst", "nobody@example.com from 192.0.2.2 refused by burst")
	})
}
