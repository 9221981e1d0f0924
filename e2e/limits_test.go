package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// limited checks the headers of an answer that a policy of 5 per hour counted.
func limited(t *testing.T, got *answer, policy string, remaining int) {
	t.Helper()
	got.header(t, "RateLimit-Policy", fmt.Sprintf(`"%s";q=5;w=3600`, policy)).
		header(t, "X-RateLimit-Limit", "5").header(t, "X-RateLimit-Remaining", strconv.Itoa(remaining))
	var reset int64
	if _, err := fmt.Sscanf(got.Header.Get("RateLimit"), `"`+policy+`";r=`+strconv.Itoa(remaining)+`;t=%d`, &reset); err != nil || reset < 1 || reset > 3600 {
		t.Errorf("RateLimit is %q with %d remaining", got.Header.Get("RateLimit"), remaining)
	}
	at, err := strconv.ParseInt(got.Header.Get("X-RateLimit-Reset"), 10, 64)
	if left := at - time.Now().Unix(); err != nil || left < 0 || left > 3601 {
		t.Errorf("X-RateLimit-Reset is %q", got.Header.Get("X-RateLimit-Reset"))
	}
}

// overQuota checks a 429 and returns its Retry-After in seconds.
func overQuota(t *testing.T, got *answer, policies ...string) int64 {
	t.Helper()
	got.problem(t, 429, "quota-exceeded").with(t, "violated-policies", policies)
	retry, err := strconv.ParseInt(got.Header.Get("Retry-After"), 10, 64)
	if err != nil || retry < 1 || retry > 3600 {
		t.Errorf("Retry-After is %q", got.Header.Get("Retry-After"))
	}
	return retry
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	for name, env := range map[string]string{"with Redis": "REDIS_ENABLED=true", "without Redis": "REDIS_ENABLED=false"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := start(t, env, "RATE_LIMIT_MAX=5", "RATE_LIMIT_WINDOW=1h")
			nobody, alice := a.anonymous(), a.signIn(t, "alice@example.com") // the first of the address's 5
			for i := range 5 {
				limited(t, alice.call(t, "GET /auth/session", nil).is(t, 200), "api", 4-i)
			}
			for range 3 {
				got := alice.call(t, "GET /auth/session", nil)
				overQuota(t, got, "api")
				limited(t, got, "api", 0)
			}
			// Another session of hers is no way around it, another user is not hit.
			again := a.signIn(t, "alice@example.com")
			overQuota(t, again.call(t, "POST /processes", "{"), "api")
			bob := a.signIn(t, "bob@example.com")
			limited(t, bob.call(t, "GET /processes", nil).is(t, 200), "api", 4)

			// Nobody's requests count for their address: three sign-ins, and these.
			limited(t, nobody.call(t, "GET /auth/session", nil).is(t, 401), "anonymous", 1)
			bad := &client{app: a, token: "guess"}
			limited(t, bad.call(t, "GET /processes", nil).is(t, 401), "anonymous", 0)
			for _, got := range []*answer{
				nobody.call(t, "GET /auth/session", nil), bad.call(t, "GET /auth/session", nil),
				nobody.call(t, "POST /auth/login", credentials("bob@example.com", demoPassword)),
			} {
				overQuota(t, got, "anonymous")
			}
			// Who is known here is not turned away with the strangers of the address.
			limited(t, bob.call(t, "GET /processes", nil).is(t, 200), "api", 3)
			for _, path := range []string{"/healthz", "/readyz", "/metrics", "/swagger/index.html", "/static/app.css"} {
				for range 6 {
					if got := nobody.send(t, "GET "+path, nil).is(t, 200); got.Header.Get("RateLimit") != "" {
						t.Errorf("%s is limited", path)
					}
				}
			}
		})
	}
}

func TestSignInLimits(t *testing.T) {
	t.Parallel()
	a := start(t, "LOGIN_RATE_LIMIT_MAX=3", "LOGIN_RATE_LIMIT_WINDOW=1h", "TRUSTED_PROXIES=127.0.0.1")
	try := func(from, email, password string) *answer {
		return a.anonymous().call(t, "POST /auth/login", credentials(email, password), "X-Forwarded-For: "+from)
	}
	session := try("198.51.100.7", "alice@example.com", demoPassword).is(t, 200) // her own place
	for _, policy := range []string{`"anonymous";q=1000;w=60`, `"login-ip";q=3;w=3600`, `"login-account";q=3;w=3600`} {
		if !strings.Contains(session.Header.Get("RateLimit-Policy"), policy) {
			t.Errorf("RateLimit-Policy is %q", session.Header.Get("RateLimit-Policy"))
		}
	}

	// One address, many accounts: successes count, too.
	try("203.0.113.1", "bob@example.com", demoPassword).is(t, 200)
	try("203.0.113.1", "nobody@example.com", "x").is(t, 401)
	try("203.0.113.1", "viewer@example.com", "x").is(t, 401)
	overQuota(t, try("203.0.113.1", "admin@example.com", demoPassword), "login-ip")
	try("203.0.113.2", "admin@example.com", demoPassword).is(t, 200)

	// One account, many addresses, whether it exists or not. Alice's own first
	// sign-in was one of her 3: her place was not known before it.
	for email, left := range map[string]int{"alice@example.com": 2, "ghost@example.com": 3} {
		for i := range left {
			try(fmt.Sprintf("203.0.113.%d%d", 1+i, left), email, "guess").problem(t, 401, "invalid-credentials")
		}
		overQuota(t, try(fmt.Sprintf("203.0.113.20%d", left), email, "guess"), "login-account")
	}
	// The owner still gets in from where she always is.
	try("198.51.100.7", "Alice@Example.com", demoPassword).is(t, 200)
	// All of a /56 are one client.
	for i := range 3 {
		try(fmt.Sprintf("2001:db8:0:%x::1", i), fmt.Sprintf("somebody-%d@example.com", i), "x").is(t, 401)
	}
	overQuota(t, try("2001:db8:0:ff::9", "somebody@example.com", "x"), "login-ip")
	try("2001:db8:0:100::1", "somebody@example.com", "x").is(t, 401)

	// A change of password is limited like a sign-in.
	viewer := &client{app: a, token: try("192.0.2.1", "viewer@example.com", demoPassword).is(t, 200).text(t, "token")}
	change := map[string]any{"currentPassword": "wrong", "newPassword": password1}
	tries := 0
	for ; tries < 10; tries++ {
		if got := viewer.call(t, "POST /auth/password", change, "X-Forwarded-For: 192.0.2.1"); got.Status == 429 {
			break
		}
	}
	if tries == 0 || tries > 3 {
		t.Errorf("%d tries at the current password", tries)
	}
}

// TestForgedAddress: without a trusted proxy X-Forwarded-For is nothing.
func TestForgedAddress(t *testing.T) {
	t.Parallel()
	a := start(t, "LOGIN_RATE_LIMIT_MAX=2", "LOGIN_RATE_LIMIT_WINDOW=1h")
	for i := range 2 {
		a.anonymous().call(t, "POST /auth/login", credentials("a@example.com", "x"), fmt.Sprintf("X-Forwarded-For: 203.0.113.%d", i)).is(t, 401)
	}
	got := a.anonymous().call(t, "POST /auth/login", credentials("b@example.com", "x"), "X-Forwarded-For: 203.0.113.77")
	overQuota(t, got, "login-ip")
}
