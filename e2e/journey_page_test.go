package e2e

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// cookieOf is the cookie that an answer sets, nil if it sets none.
func cookieOf(t *testing.T, got *answer, name string) *http.Cookie {
	t.Helper()
	for _, cookie := range (&http.Response{Header: got.Header}).Cookies() {
		if cookie.Name == name {
			return cookie
		}
	}
	return nil
}

func form(email, password string) url.Values {
	return url.Values{"email": {email}, "password": {password}}
}

func page(t *testing.T, w *world) {
	nobody := w.anonymous()
	front := nobody.send(t, "GET /", nil).is(t, 200)
	if !strings.Contains(string(front.Body), `name="password"`) {
		t.Errorf("signed out, / is not the sign-in form: %.300s", front.Body)
	}
	checkPage(t, front)

	refused := nobody.send(t, "POST /login", form(w.bob.email, "wrong"))
	if refused.Status >= 500 || refused.Status == 303 || cookieOf(t, refused, "gatehouse") != nil {
		t.Errorf("a wrong password: %d %v", refused.Status, refused.Header)
	}
	cross := nobody.send(t, "POST /login", form(w.bob.email, demoPassword), "Origin: https://evil.example", "Sec-Fetch-Site: cross-site")
	if cross.Status != 403 || cookieOf(t, cross, "gatehouse") != nil {
		t.Errorf("a sign-in from another site: %d", cross.Status)
	}

	in := nobody.send(t, "POST /login", form(w.bob.email, demoPassword), "Sec-Fetch-Site: same-origin").is(t, 303).header(t, "Location", "/")
	cookie := cookieOf(t, in, "gatehouse")
	if cookie == nil || !cookie.HttpOnly || cookie.SameSite != http.SameSiteLaxMode || cookie.Path != "/" || cookie.Secure || cookie.Domain != "" {
		t.Fatalf("the cookie is %v", in.Header["Set-Cookie"])
	}
	w.app.keepSecret(cookie.Value)
	has := "Cookie: gatehouse=" + cookie.Value
	dashboard := nobody.send(t, "GET /", nil, has).is(t, 200)
	checkPage(t, dashboard)
	if !strings.Contains(string(dashboard.Body), w.bob.email) || strings.Contains(string(dashboard.Body), `name="password"`) {
		t.Errorf("signed in, / is: %.500s", dashboard.Body)
	}
	if banner := strings.Contains(string(dashboard.Body), "may not show everybody who is editing"); banner != w.degraded {
		t.Errorf("a banner: %t, degraded: %t", banner, w.degraded)
	}

	// The API takes the cookie, but not from elsewhere, and never instead of a bad token.
	nobody.call(t, "GET /auth/session", nil, has).is(t, 200).with(t, "user.email", w.bob.email)
	nobody.call(t, "GET /auth/session", nil, has, "Authorization: Bearer nonsense").problem(t, 401, "unauthenticated")
	nobody.call(t, "GET /auth/session", nil, has, "Authorization: Bearer "+w.alice.token).is(t, 200).with(t, "user.email", w.alice.email)
	for _, from := range [][]string{{"Sec-Fetch-Site: cross-site"}, {"Sec-Fetch-Site: same-site"}, {"Origin: https://evil.example"}, {"Origin: null"}} {
		nobody.call(t, "POST /processes", map[string]any{"title": "Forged"}, append(from, has)...).problem(t, 403, "cross-origin")
	}
	nobody.call(t, "POST /auth/refresh", nil, has, "Origin: https://evil.example", "Sec-Fetch-Site: cross-site").problem(t, 403, "cross-origin")
	nobody.call(t, "POST /auth/refresh", nil, has, "Origin: "+w.app.URL, "Sec-Fetch-Site: same-origin").is(t, 200)
	w.alice.call(t, "POST /auth/refresh", nil, "Origin: https://evil.example", "Sec-Fetch-Site: cross-site").is(t, 200) // a token is no cookie

	// A new password gives this browser a new cookie; its old one is over.
	_, email := w.newUser(t, "frank", "viewer")
	in = nobody.send(t, "POST /login", form(email, password1)).is(t, 303)
	has = "Cookie: gatehouse=" + cookieOf(t, in, "gatehouse").Value
	changed := nobody.call(t, "POST /auth/password", map[string]any{"currentPassword": password1, "newPassword": password2}, has).is(t, 200)
	nobody.call(t, "GET /auth/session", nil, has).problem(t, 401, "unauthenticated")
	next := cookieOf(t, changed, "gatehouse")
	if next == nil {
		t.Fatal("no new cookie after a change of password")
	}
	w.app.keepSecret(next.Value)
	has = "Cookie: gatehouse=" + next.Value
	nobody.call(t, "GET /auth/session", nil, has).is(t, 200)
	out := nobody.call(t, "POST /auth/logout", nil, has).is(t, 204)
	if gone := cookieOf(t, out, "gatehouse"); gone == nil || gone.MaxAge >= 0 {
		t.Errorf("signing out leaves the cookie: %v", out.Header["Set-Cookie"])
	}
	nobody.call(t, "GET /auth/session", nil, has).problem(t, 401, "unauthenticated")
}

// checkPage holds a page to the headers that protect it.
func checkPage(t *testing.T, got *answer) {
	t.Helper()
	policy := got.Header.Get("Content-Security-Policy")
	if policy == "" || strings.Contains(policy, "unsafe-") || !strings.Contains(policy, "'self'") && !strings.Contains(policy, "'none'") {
		t.Errorf("%s: Content-Security-Policy is %q", got.what, policy)
	}
	got.header(t, "X-Content-Type-Options", "nosniff")
	if got.Header.Get("Referrer-Policy") == "" {
		t.Errorf("%s: no Referrer-Policy", got.what)
	}
	if !strings.HasPrefix(got.Header.Get("Content-Type"), "text/html") {
		t.Errorf("%s: Content-Type is %q", got.what, got.Header.Get("Content-Type"))
	}
}
