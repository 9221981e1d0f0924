package handlers_test

import (
	"net/http"
	"testing"

	"gatehouse/services/redis"
)

// The page changes the password: this browser goes on with a new token, the
// user's other one is signed out.
func TestPasswordPage(t *testing.T) {
	s := newSite(t, redis.Options{Disabled: true})
	here, there := s.signedIn(t, "ann@example.com"), s.signedIn(t, "ann@example.com")
	shows(t, here.get("/password"), http.StatusOK, "Change password", `autocomplete="current-password"`, `autocomplete="new-password"`)
	const next = "another long password"
	shows(t, here.post("/password", "currentPassword", "wrong", "newPassword", next), http.StatusUnprocessableEntity, "That is not your current password.")
	shows(t, here.post("/password", "currentPassword", password, "newPassword", "short"), http.StatusUnprocessableEntity, "12 to 128 characters")
	shows(t, there.get("/"), http.StatusOK, "ann@example.com")

	old := here.cookie.Value
	w := here.post("/password", "currentPassword", password, "newPassword", next)
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/?password-changed=1" || here.cookie.Value == old {
		t.Fatalf("%d to %s, the same cookie: %v", w.Code, w.Header().Get("Location"), here.cookie.Value == old)
	}
	shows(t, here.get("/?password-changed=1"), http.StatusOK, "ann@example.com", "Your password is changed.")
	shows(t, there.get("/password"), http.StatusUnauthorized, "Sign in")
}
