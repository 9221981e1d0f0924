package handlers_test

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"gatehouse/models"
)

func TestEndSessions(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.signedIn(t, "ann@example.com")
	onPhone := s.newSession(t, "ann@example.com")
	onPhone.UserAgent = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4 Mobile/15E148 Safari/604.1"
	phone := s.with(t, s.begin(t, onPhone))
	w := b.get("/account")
	shows(t, w, http.StatusOK, "Safari on iPhone", "this device", "End all others")
	ids := regexp.MustCompile(`name="id" value="([^"]+)"`).FindAllStringSubmatch(w.Body.String(), -1)
	if len(ids) != 1 {
		t.Fatalf("%d sessions can be ended", len(ids))
	}
	stranger := s.signedIn(t, "bob@example.com")
	sendsTo(t, stranger.post("/sessions/end", "id", ids[0][1]), "/account")
	shows(t, phone.get("/"), http.StatusOK, "ann@example.com") // not bob's to end
	sendsTo(t, b.post("/sessions/end", "id", ids[0][1]), "/account")
	shows(t, b.get("/account"), http.StatusOK, "The session has ended.")
	shows(t, phone.get("/"), http.StatusOK, "current-password")
	sendsTo(t, b.post("/sessions/end", "id", ids[0][1]), "/account")
	shows(t, b.get("/account"), http.StatusOK, "That session had ended already.")
	shows(t, b.post("/sessions/end", "id", "../1"), http.StatusUnprocessableEntity)
}

// A session that ended after its request was let in is not signed in: it is no
// resource that is not found.
func TestEndingSessionsWithoutOne(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, who, path string
		gone            bool // the user, not only the session
		says            string
	}{
		{"the others", "bob@example.com", "/api/v1/sessions", false, "The session ended while the request waited"},
		{"the others, on the page", "vic@example.com", "/sessions/end-others", false, "Your session has ended."},
		{"all", "ann@example.com", "/api/v1/sessions?all=true", true, "The session ended while the request waited"},
	} {
		t.Run(row.name, func(t *testing.T) {
			var w *httptest.ResponseRecorder
			for range 5 { // the instance may hear of the end before the request comes
				s := newSiteWithoutRedis(t)
				b := s.signedIn(t, row.who)
				shows(t, b.get("/"), http.StatusOK, row.who)
				// Another instance ends it; the copy of this one is trusted for up to 2 s.
				session, err := s.Sessions.Get(t.Context(), b.cookie.Value)
				check(t, err)
				if row.gone {
					check(t, s.db.DeleteUser(t.Context(), session.User.ID))
				} else {
					check(t, s.db.EndSessions(t.Context(), models.Ending{Hash: session.Hash}))
				}
				if row.path == "/sessions/end-others" {
					w = b.post(row.path)
				} else {
					w = b.send(httptest.NewRequest(http.MethodDelete, row.path, nil), "Sec-Fetch-Site", "same-origin")
				}
				if w.Code == http.StatusUnauthorized && strings.Contains(w.Body.String(), row.says) {
					return
				}
			}
			t.Errorf("%d %s", w.Code, w.Body)
		})
	}
}

// Administrators see on the page how many sessions each user has, and where. They end those of
// one user or of all users. Other users cannot, and each step is audited.
func TestUsersPage(t *testing.T) {
	t.Parallel()
	s := newSiteWithoutRedis(t)
	admin, ann, bob := s.signedIn(t, "admin@example.com"), s.signedIn(t, "ann@example.com"), s.signedIn(t, "bob@example.com")
	s.signedIn(t, "ann@example.com")
	who := s.user(t, "ann@example.com")

	shows(t, admin.get("/"), http.StatusOK, `href="/users"`)
	shows(t, admin.get("/users"), http.StatusOK, `<a href="/users/sessions?id=`+who.ID+`">2 sessions</a>`, "bob@example.com", "1 session<", "none")
	shows(t, admin.get("/users/sessions?id="+who.ID), http.StatusOK, "Sessions of ann@example.com", "192.0.2.1", "2 sessions.")
	shows(t, admin.get("/users/sessions?id=99"), http.StatusNotFound)

	if strings.Contains(ann.get("/").Body.String(), `href="/users"`) {
		t.Error("an editor is shown the way to the users")
	}
	for path, answer := range map[string]int{"/users": ann.get("/users").Code, "/users/sessions": ann.get("/users/sessions?id=" + who.ID).Code,
		"/users/end-sessions": ann.post("/users/end-sessions", "id", who.ID).Code, "/users/end-everybody": ann.post("/users/end-everybody").Code} {
		if answer != http.StatusForbidden {
			t.Errorf("%s for an editor: %d", path, answer)
		}
	}

	goesToUsers := func(path string, fields ...string) {
		t.Helper()
		if w := admin.post(path, fields...); w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/users" {
			t.Fatalf("%s: %d to %q", path, w.Code, w.Header().Get("Location"))
		}
	}
	goesToUsers("/users/end-sessions", "id", who.ID)
	shows(t, admin.get("/users"), http.StatusOK, "All sessions of ann@example.com have ended.")
	shows(t, ann.get("/password"), http.StatusUnauthorized)
	shows(t, bob.get("/password"), http.StatusOK)
	goesToUsers("/users/end-everybody")
	shows(t, admin.get("/users"), http.StatusOK, "sessions but this one have ended.")
	shows(t, bob.get("/password"), http.StatusUnauthorized)

	audit, err := s.Accounts.AuditPage(t.Context(), models.AuditSessionsRevoked, models.Page{})
	check(t, err)
	if len(audit.Items) != 2 || audit.Items[0].Target != "everybody" || audit.Items[1].Target != "user:"+who.ID || audit.Items[1].Actor != "admin@example.com" {
		t.Errorf("the audit has %+v", audit.Items)
	}
}

// The page changes the password: this browser goes on with a new token, the
// user's other one is signed out.
func TestPasswordPage(t *testing.T) {
	t.Parallel()
	s := newSiteWithoutRedis(t)
	here, there := s.signedIn(t, "ann@example.com"), s.signedIn(t, "ann@example.com")
	shows(t, here.get("/password"), http.StatusOK, "Change password", `autocomplete="current-password"`, `autocomplete="new-password"`)
	const next = "another long password"
	shows(t, here.post("/password", "currentPassword", "wrong", "newPassword", next), http.StatusUnprocessableEntity, "That is not your current password.")
	shows(t, here.post("/password", "currentPassword", password, "newPassword", "short"), http.StatusUnprocessableEntity, "12 to 128 characters")
	shows(t, there.get("/"), http.StatusOK, "ann@example.com")

	old := here.cookie.Value
	w := here.post("/password", "currentPassword", password, "newPassword", next)
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/account?password-changed=1" || here.cookie.Value == old {
		t.Fatalf("%d to %s, the same cookie: %v", w.Code, w.Header().Get("Location"), here.cookie.Value == old)
	}
	shows(t, here.get("/account?password-changed=1"), http.StatusOK, "ann@example.com", "Your password is changed.")
	shows(t, there.get("/password"), http.StatusUnauthorized, "Sign in")
}
