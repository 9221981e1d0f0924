package handlers_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

func TestSignIn(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.browser(t)
	t.Run("asks for address and password", func(t *testing.T) {
		shows(t, b.get("/"), http.StatusOK, `<form method="post" action="/login">`, `autocomplete="username"`, `autocomplete="current-password"`)
		sendsHome(t, b.get("/login"))
	})
	t.Run("shows the form again after a refusal", func(t *testing.T) {
		w := b.post("/login", "email", `ann"><script>@example.com`, "password", "wrong")
		shows(t, w, http.StatusUnauthorized, "Error: Sign in", `role="alert"`, "The e-mail address or the password is wrong.", `value="ann&#34;&gt;&lt;script&gt;@example.com"`)
		shows(t, b.post("/login", "email", "ann@example.com"), http.StatusUnprocessableEntity, "Enter your e-mail address and your password.")
		shows(t, b.post("/login", "email", "ann@example.com", "password", "\xff"), http.StatusUnprocessableEntity, "Not accepted: password must be")
		shows(t, b.post("/login", "email", strings.Repeat("a", 100_000), "password", "x"), http.StatusRequestEntityTooLarge, "The body is larger than 64 KiB.")
		if b.cookie != nil {
			t.Error("a cookie without the password")
		}
	})
	t.Run("gives the browser a cookie", func(t *testing.T) {
		sendsHome(t, b.post("/login", "email", " ANN@example.com", "password", password))
		if b.cookie == nil || !b.cookie.HttpOnly || b.cookie.SameSite != http.SameSiteLaxMode {
			t.Fatalf("the cookie is %v", b.cookie)
		}
	})
	t.Run("shows the way out on every page", func(t *testing.T) {
		shows(t, b.get("/"), http.StatusOK, "ann@example.com", "editor", `action="/logout"`)
		shows(t, b.get("/problems"), http.StatusOK, "ann@example.com", `action="/logout"`)
		servicestest.Eventually(t, func() bool { // it uses what the page before has left in memory
			b.get("/")
			w := b.get("/nowhere")
			return w.Code == http.StatusNotFound && strings.Contains(w.Body.String(), "ann@example.com") && strings.Contains(w.Body.String(), `action="/logout"`)
		}, "the page for no address does not show it")
	})
	t.Run("is over with the sign-out, for the token too", func(t *testing.T) {
		token := b.cookie.Value
		w := b.post("/logout")
		if w.Code != http.StatusSeeOther || w.Header().Get("Clear-Site-Data") != `"cache", "storage"` || b.cookie != nil {
			t.Errorf("sign-out: %d %v, cookie %v", w.Code, w.Header(), b.cookie)
		}
		shows(t, b.get(w.Header().Get("Location")), http.StatusOK, "You are signed out.", "current-password")
		b = s.with(t, token)
		shows(t, b.get("/"), http.StatusOK, "current-password")
		if w := b.post("/logout"); w.Code != http.StatusSeeOther {
			t.Errorf("signing out twice: %d", w.Code)
		}
	})
}

// TestSignInLeadsBack: to the page that was asked for, as from a link in a message, also after a wrong
// password.
func TestSignInLeadsBack(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.browser(t)
	history := "/processes/" + s.process(t, "Order paper", "").ID + "/history"
	page := b.get(history)
	shows(t, page, http.StatusUnauthorized, "Sign in to see this page.", `<input type="hidden" name="next" value="`+history+`">`)
	if strings.Contains(page.Body.String(), "has ended") {
		t.Errorf("who was never signed in is told of a session: %s", page.Body)
	}
	left := b.get(history + "?left-open=true") // its cookie has ended with its session
	shows(t, left, http.StatusUnauthorized, "Your session has ended. Sign in again.", `name="next" value="`+history+`"`)
	w := b.post("/login", "email", "ann@example.com", "password", "wrong", "next", history)
	shows(t, w, http.StatusUnauthorized, `name="next" value="`+history+`"`)
	sendsTo(t, b.post("/login", "email", "ann@example.com", "password", password, "next", history), history)
	check(t, s.Sessions.Delete(t.Context(), b.cookie.Value))
	shows(t, b.get(history), http.StatusUnauthorized, "Your session has ended. Sign in again.", `name="next" value="`+history+`"`)

	t.Run("whichever page it is", func(t *testing.T) {
		stranger := s.browser(t)
		for _, route := range s.router.Routes() {
			path := strings.Replace(route.Path, ":id", "999", 1)
			if route.Method != http.MethodGet || strings.HasPrefix(path, "/api/") || path == "/dashboard/locks" {
				continue
			}
			w := stranger.get(path + "?q=a%20b")
			if asks := w.Code == http.StatusUnauthorized && strings.HasPrefix(w.Header().Get("Content-Type"), "text/html"); asks && !strings.Contains(w.Body.String(), `value="`+path+`?q=a%20b"`) {
				t.Errorf("%s: %s", path, w.Body)
			}
		}
		shows(t, stranger.get("/dashboard/locks"+"?q=a"), http.StatusUnauthorized, `name="next" value="/?q=a"`)
		shows(t, stranger.get("/?q=a"), http.StatusOK, `name="next" value="/?q=a"`)
	})
	t.Run("and only to a page", func(t *testing.T) {
		for _, next := range []string{
			"", "/", "account", "//evil.example", "//evil.example/account", "///account", `/\evil.example`, "https://evil.example/account", "javascript:alert(1)",
			"/\t/evil.example", "/account\r\nX: y", "/logout", "/login", "/sessions/end", "/processes/1/edit/save", "/processes/../logout", "/processes/1/edit/state",
			"/api/v1/locks", "/nowhere", "/processes?q=" + strings.Repeat("x", 500),
		} {
			w := b.post("/login", "email", "", "password", "", "next", next)
			shows(t, w, http.StatusUnprocessableEntity, "Enter your e-mail address")
			if strings.Contains(w.Body.String(), `name="next"`) {
				t.Errorf("%q is kept: %s", next, w.Body)
			}
		}
		sendsHome(t, b.post("/login", "email", "ann@example.com", "password", password, "next", "//evil.example/account"))
	})
	t.Run("but a form is not sent again", func(t *testing.T) {
		w := s.browser(t).post("/sessions/end", "id", "1")
		shows(t, w, http.StatusUnauthorized, "Sign in again.")
		if strings.Contains(w.Body.String(), `name="next"`) {
			t.Errorf("it leads to %s", w.Body)
		}
	})
}

func TestTooManySignIns(t *testing.T) {
	t.Parallel()
	b := newSite(t).browser(t)
	for range 5 {
		shows(t, b.post("/login", "email", "ann@example.com", "password", "wrong"), http.StatusUnauthorized)
	}
	w := b.post("/login", "email", "ann@example.com", "password", password)
	shows(t, w, http.StatusTooManyRequests, "Too many requests in a short time. Try again in ", `value="ann@example.com"`)
	if strings.Contains(w.Body.String(), "login-") {
		t.Errorf("the page names a policy: %s", w.Body)
	}
	if w.Header().Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

// A browser has one session: that of the cookie ends where another user, or the same, signs in.
func TestSignInEndsTheSessionBefore(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b, elsewhere := s.signedIn(t, "ann@example.com"), s.signedIn(t, "ann@example.com")
	endsWith := func(signIn func() *httptest.ResponseRecorder) {
		t.Helper()
		before := b.cookie.Value
		w := signIn()
		if _, err := s.Sessions.Get(t.Context(), before); !errors.Is(err, models.ErrNotFound) {
			t.Errorf("%d, and the session before is left: %v", w.Code, err)
		}
	}
	endsWith(func() *httptest.ResponseRecorder {
		return b.post("/login", "email", "bob@example.com", "password", password)
	})
	shows(t, b.get("/"), http.StatusOK, "bob@example.com")
	endsWith(func() *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodPost, "/api/v1/auth/login", strings.NewReader(`{"email":"bob@example.com","password":"`+password+`"}`))
		return b.send(r, "Content-Type", "application/json", "Sec-Fetch-Site", "same-origin")
	})
	shows(t, elsewhere.get("/"), http.StatusOK, "ann@example.com")
	audit, err := s.Accounts.AuditPage(t.Context(), models.AuditSignOut, models.Page{})
	check(t, err)
	if len(audit.Items) != 2 || audit.Items[1].Actor != "ann@example.com" || audit.Items[0].Actor != "bob@example.com" {
		t.Errorf("the audit has %+v", audit.Items)
	}
}
