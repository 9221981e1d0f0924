package services_test

import (
	"fmt"
	"testing"

	"gatehouse/services/servicestest"
)

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
