package e2e

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/services/servicestest"
)

// TestAllow: a 405 names the methods that there are.
func TestAllow(t *testing.T) {
	t.Parallel()
	a := start(t)
	for path, want := range map[string]string{
		"/api/v1/processes": "GET, POST", "/api/v1/processes/1": "DELETE, GET, PUT", "/api/v1/auth/login": "POST", "/readyz": "GET, HEAD",
	} {
		got := a.anonymous().send(t, "PATCH "+path, nil).is(t, 405)
		methods := strings.Split(got.Header.Get("Allow"), ",")
		for i := range methods {
			methods[i] = strings.TrimSpace(methods[i])
		}
		slices.Sort(methods)
		if strings.Join(methods, ", ") != want {
			t.Errorf("%s allows %q, want %s", path, got.Header.Get("Allow"), want)
		}
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if got := a.anonymous().send(t, "HEAD "+path, nil).is(t, 200); len(got.Body) > 0 {
			t.Errorf("HEAD %s has a body", path)
		}
	}
	ready := a.anonymous().send(t, "GET /readyz", nil).is(t, 200).with(t, "status", "ok")
	ready.with(t, "components.database.status", "ok").with(t, "components.redis.status", "embedded")
	if metrics := a.anonymous().send(t, "GET /metrics", nil).is(t, 200); !strings.Contains(string(metrics.Body), "gatehouse_redis_up 1") {
		t.Error("no gatehouse_redis_up in /metrics")
	}
	for _, path := range []string{"/swagger/index.html", "/swagger/doc.json", "/problems/validation"} {
		a.anonymous().send(t, "GET "+path, nil).is(t, 200)
	}
}

// TestSignInTakesTheSameTime: a client without an account waits as long as one that mistypes
// a password.
func TestSignInTakesTheSameTime(t *testing.T) {
	t.Parallel()
	a := start(t)
	admin := a.signIn(t, "admin@example.com")
	id := a.signIn(t, "bob@example.com").id
	admin.call(t, "PATCH /users/"+id, map[string]any{"disabled": true}).is(t, 200)
	// The quickest of several, taken in turns: other tests run meanwhile, so more are taken until they
	// agree. Without a hash one takes a tenth, however often it is tried.
	quickest := map[string]time.Duration{}
	servicestest.Eventually(t, func() bool {
		for email, password := range map[string]string{"alice@example.com": "wrong", "nobody@example.com": "wrong", "bob@example.com": demoPassword} {
			began := time.Now()
			a.anonymous().call(t, "POST /auth/login", credentials(email, password)).problem(t, 401, "invalid-credentials")
			took := time.Since(began)
			if best, ok := quickest[email]; !ok || took < best {
				quickest[email] = took
			}
		}
		wrong, unknown, disabled := quickest["alice@example.com"], quickest["nobody@example.com"], quickest["bob@example.com"]
		return max(wrong, unknown, disabled) < 3*min(wrong, unknown, disabled)
	}, "the time tells why a sign-in is refused")
}

// TestSecureCookie: behind https the cookie is Secure and bound to the host.
func TestSecureCookie(t *testing.T) {
	t.Parallel()
	a := start(t, "APP_ENV=production", "PUBLIC_URL=https://gatehouse.example.com", "SECRET_KEY="+strings.Repeat("s3cret-", 6),
		"DATABASE_URL=empty.db", "REDIS_ENABLED=false", "ADMIN_EMAIL=root@example.com", "ADMIN_PASSWORD="+password1)
	a.keepSecret("s3cret-")
	a.keepSecret(password1)
	in := a.anonymous().send(t, "POST /login", form("root@example.com", password1), "Origin: https://gatehouse.example.com").is(t, 303)
	cookie := cookieOf(t, in, "__Host-gatehouse")
	if cookie == nil || !cookie.Secure || !cookie.HttpOnly || cookie.Path != "/" || cookie.Domain != "" || cookie.SameSite != http.SameSiteLaxMode {
		t.Fatalf("the cookie is %v", in.Header["Set-Cookie"])
	}
	has := "Cookie: __Host-gatehouse=" + cookie.Value
	a.anonymous().call(t, "POST /auth/refresh", nil, has, "Origin: https://gatehouse.example.com").is(t, 200)
	a.anonymous().call(t, "POST /auth/refresh", nil, has, "Origin: https://example.com").problem(t, 403, "cross-origin")
	a.anonymous().call(t, "POST /auth/login", credentials("alice@example.com", demoPassword)).problem(t, 401, "invalid-credentials") // no demo
}
