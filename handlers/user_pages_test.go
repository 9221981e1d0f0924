package handlers_test

import (
	"net/http"
	"strings"
	"testing"

	"gatehouse/models"
	"gatehouse/services/redis"
)

// Administrators see on the page how many sessions each user has, and where. They end those of
// one user or of all users. Other users cannot, and each step is audited.
func TestUsersPage(t *testing.T) {
	s := newSite(t, redis.Options{Disabled: true})
	admin, ann, bob := s.signedIn(t, "admin@example.com"), s.signedIn(t, "ann@example.com"), s.signedIn(t, "bob@example.com")
	s.signedIn(t, "ann@example.com")
	who, err := s.db.Credentials(t.Context(), "ann@example.com")
	fatal(t, err)

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
	fatal(t, err)
	if len(audit.Items) != 2 || audit.Items[0].Target != "everybody" || audit.Items[1].Target != "user:"+who.ID || audit.Items[1].Actor != "admin@example.com" {
		t.Errorf("the audit has %+v", audit.Items)
	}
}
