package app

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"gatehouse/models"
)

// documentedPolicies is the policy file that RATE_LIMITS.md shows.
func documentedPolicies(t *testing.T) string {
	t.Helper()
	doc, err := os.ReadFile("../../RATE_LIMITS.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(doc), "```yaml\n")
	example, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatal("RATE_LIMITS.md shows no policy file")
	}
	return example
}

// Each role has the limit that the documented file gives it, from the request
// after it is read again on.
func TestTiersOfThePolicyFile(t *testing.T) {
	t.Parallel()
	a := startWatched(t, documentedPolicies(t))
	tokens := map[string]string{
		"viewer": a.signIn(t, "viewer@example.com"), "editor": a.signIn(t, "alice@example.com"), "admin": a.signIn(t, "admin@example.com"),
	}
	session := func(role string) *httptest.ResponseRecorder {
		return a.api(tokens[role], http.MethodGet, "/auth/session", "")
	}
	for role, want := range map[string][2]string{
		"viewer": {`"api";q=600;w=60, "api-burst";q=20;w=1`, "20"},
		"editor": {`"api";q=900;w=60, "api-burst";q=20;w=1`, "20"},
		"admin":  {`"api";q=3000;w=60, "api-burst";q=100;w=1`, "100"},
	} {
		got := session(role).Header()
		if got.Get("RateLimit-Policy") != want[0] || got.Get("X-RateLimit-Limit") != want[1] {
			t.Errorf("%s: %v, want %q", role, got, want)
		}
	}

	a.reads("policies: [{name: api, limit: 2, window: 1h, tiers: {admin: 3}}]")
	for role, limit := range map[string]int{"viewer": 2, "editor": 2, "admin": 3} {
		for i := range limit {
			w := session(role)
			if want := fmt.Sprint(limit - 1 - i); w.Code != http.StatusOK || w.Header().Get("X-RateLimit-Remaining") != want {
				t.Errorf("%s, request %d: %d with %s remaining, want %s", role, i, w.Code, w.Header().Get("X-RateLimit-Remaining"), want)
			}
		}
		w := session(role)
		if said := fmt.Sprintf(`\"api\" allows %d in 3600 seconds`, limit); w.Code != http.StatusTooManyRequests || !strings.Contains(w.Body.String(), said) {
			t.Errorf("%s is over the limit: %d %s, want %s", role, w.Code, w.Body, said)
		}
	}
}

// Who is on a deny list of the file is refused with 403: an address before its
// token is looked up, a user whatever the address.
func TestDenyListsOfThePolicyFile(t *testing.T) {
	t.Parallel()
	a := startWatched(t, "policies: []")
	alice := a.signIn(t, "alice@example.com")
	session := func(token string) *httptest.ResponseRecorder {
		return a.api(token, http.MethodGet, "/auth/session", "")
	}
	mine := decoded[struct{ User models.UserRef }](t, session(alice), http.StatusOK).User
	denied := func(name string, w *httptest.ResponseRecorder) {
		t.Helper()
		if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "/problems/forbidden") || w.Header().Get("Retry-After") != "" {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	a.reads("policies: [{name: anonymous, limit: 9, window: 1m, deny: [192.0.2.1]}]") // where requests come from
	denied("no token", a.do(http.MethodGet, "/api/v1/auth/session", ""))
	denied("an unknown token", session("nobody's"))
	denied("a sign-in", a.login("alice@example.com", demoPassword))
	if w := session(alice); w.Code != http.StatusOK {
		t.Errorf("who is signed in: %d %s", w.Code, w.Body)
	}
	a.reads(`policies: [{name: api, limit: 9, window: 1m, deny: ["user:` + mine.ID + `"]}]`)
	denied("the user", session(alice))
}

// Sign-ins are denied by address too, IPv6 by its /56.
func TestDenyListOfSignIns(t *testing.T) {
	t.Parallel()
	a := startWatched(t, `policies: [{name: login-ip, limit: 9, window: 1m, deny: ["2001:db8:7::/48", 198.51.100.7]},
		{name: login-account, limit: 9, window: 1m, deny: ["::/0", "0.0.0.0/0"]}]`, "TRUSTED_PROXIES", "192.0.2.1")
	for client, want := range map[string]int{"2001:db8:7:2f00::1": 403, "2001:db8:8:2f00::1": 200, "198.51.100.7": 403, "198.51.100.8": 200} {
		for range 2 { // the second time from where she has signed in before
			if w := a.login("alice@example.com", demoPassword, "X-Forwarded-For", client); w.Code != want {
				t.Errorf("from %s: %d %s, want %d", client, w.Code, w.Body, want)
			}
		}
	}
}
