package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/services/servicestest"
)

const password1, password2 = "a first password", "a second password, älter"

// newUser is a user that the administrator creates for one step.
func (w *world) newUser(t *testing.T, name, role string) (id, email string) {
	t.Helper()
	email = fmt.Sprintf("%s-%d@example.com", name, w.round)
	made := w.admin.call(t, "POST /users", map[string]any{"email": email, "password": password1, "roles": []string{role}}).is(t, 201).
		with(t, "email", email).with(t, "roles", []string{role}).with(t, "disabled", false)
	if made.moment(t, "createdAt"); strings.Contains(string(made.Body), "assword") {
		t.Errorf("a password in the answer: %s", made.Body)
	}
	id = made.text(t, "id")
	made.header(t, "Location", "/api/v1/users/"+id)
	return id, email
}

func sessions(t *testing.T, w *world) {
	id, email := w.newUser(t, "carol", "editor")
	first, second, third := w.app.signInWith(t, email, password1), w.app.signInWith(t, email, password1), w.app.signInWith(t, email, password1)

	mine := first.call(t, "GET /sessions", nil).is(t, 200).with(t, "count", 3)
	var current any
	for i := range 3 {
		if mine.at(t, fmt.Sprintf("items.%d.current", i)) == true {
			current = mine.at(t, fmt.Sprintf("items.%d.id", i))
		}
	}
	own := first.call(t, "GET /auth/session", nil).is(t, 200)
	if current != own.text(t, "id") {
		t.Errorf("the current session of %s is %v", mine.Body, current)
	}
	w.admin.call(t, "GET /users/"+id+"/sessions", nil).is(t, 200).with(t, "count", 3).with(t, "items.0.user.email", email).with(t, "items.0.current", false)
	w.alice.call(t, "GET /users/"+id+"/sessions", nil).problem(t, 403, "forbidden")

	refreshed := first.call(t, "POST /auth/refresh", nil).is(t, 200).with(t, "id", own.text(t, "id")).with(t, "expiresAt", own.text(t, "expiresAt"))
	if refreshed.moment(t, "lastSeenAt").Before(own.moment(t, "lastSeenAt")) {
		t.Error("refreshed backwards")
	}

	of := func(c *client) string { return c.call(t, "GET /auth/session", nil).is(t, 200).text(t, "id") }
	secondID := of(second)
	w.alice.call(t, "DELETE /sessions/"+secondID, nil).problem(t, 404, "not-found")
	first.call(t, "DELETE /sessions/"+secondID, nil).is(t, 204)
	second.call(t, "GET /auth/session", nil).problem(t, 401, "unauthenticated")
	first.call(t, "DELETE /sessions/"+secondID, nil).problem(t, 404, "not-found")
	third.call(t, "GET /auth/session", nil).is(t, 200)

	first.call(t, "DELETE /sessions", nil).is(t, 204)
	third.call(t, "GET /auth/session", nil).problem(t, 401, "unauthenticated")
	first.call(t, "GET /sessions", nil).is(t, 200).with(t, "count", 1)
	first.call(t, "DELETE /sessions?all=true", nil).is(t, 204)
	first.call(t, "GET /sessions", nil).problem(t, 401, "unauthenticated")

	again := w.app.signInWith(t, email, password1)
	w.alice.call(t, "DELETE /users/"+id+"/sessions", nil).problem(t, 403, "forbidden")
	w.admin.call(t, "DELETE /users/"+id+"/sessions", nil).is(t, 204)
	again.call(t, "GET /auth/session", nil).problem(t, 401, "unauthenticated")
	w.alice.call(t, "GET /auth/session", nil).is(t, 200)
}

func password(t *testing.T, w *world) {
	_, email := w.newUser(t, "dave", "viewer")
	c, other := w.app.signInWith(t, email, password1), w.app.signInWith(t, email, password1)
	change := func(current, next string) *answer {
		return c.call(t, "POST /auth/password", map[string]any{"currentPassword": current, "newPassword": next})
	}
	if wrong := change("not the password", password2).problem(t, 422, "validation"); !slices.Contains(wrong.fields(t), "currentPassword") {
		t.Errorf("not on the field: %s", wrong.Body)
	}
	for _, bad := range []string{"short", strings.Repeat("x", 129)} {
		if wrong := change(password1, bad).problem(t, 422, "validation"); !slices.Contains(wrong.fields(t), "newPassword") {
			t.Errorf("not on the field: %s", wrong.Body)
		}
	}
	other.call(t, "GET /auth/session", nil).is(t, 200)

	changed := change(password1, password2).is(t, 200).with(t, "tokenType", "Bearer")
	w.app.keepSecret(changed.text(t, "token"))
	c.call(t, "GET /auth/session", nil).problem(t, 401, "unauthenticated")
	other.call(t, "GET /auth/session", nil).problem(t, 401, "unauthenticated")
	c.token = changed.text(t, "token")
	c.call(t, "GET /sessions", nil).is(t, 200).with(t, "count", 1)
	w.anonymous().call(t, "POST /auth/login", credentials(email, password1)).problem(t, 401, "invalid-credentials")
	w.app.signInWith(t, email, password2)
}

func users(t *testing.T, w *world) {
	id, email := w.newUser(t, "erin", "editor")
	for _, c := range []*client{w.alice, w.viewer} {
		c.call(t, "GET /users", nil).problem(t, 403, "forbidden")
	}
	if w.admin.call(t, "GET /users?limit=200", nil).is(t, 200).item(t, "email", email) == nil {
		t.Error("a new user is not in the list")
	}
	w.admin.call(t, "POST /users", map[string]any{"email": strings.ToUpper(email), "password": password1, "roles": []string{"viewer"}}).
		problem(t, 409, "conflict").with(t, "field", "email").with(t, "detail", "This e-mail address is already in use.")
	create := func(address string) *answer {
		return w.admin.call(t, "POST /users", map[string]any{"email": address, "password": password1, "roles": []string{"viewer"}})
	}
	create(strings.Replace(email, "e", "\uff45", 1)).problem(t, 409, "conflict").with(t, "field", "email") // full width
	w.anonymous().call(t, "POST /auth/login", credentials(strings.Replace(email, "e", "\uff45", 1), password1)).is(t, 200).with(t, "user.email", email)
	for _, lookAlike := range []string{strings.Replace(email, "e", "\u0435", 1), "\u200b" + email, strings.Replace(email, "@", "\u00ad@", 1), email + "\u202e"} {
		create(lookAlike).problem(t, 422, "validation").with(t, "errors.0.field", "email")
	}
	user := "/users/" + id
	w.admin.call(t, "GET "+user, nil).is(t, 200).with(t, "email", email)

	// A change of rights counts for the session that is there already.
	erin := w.app.signInWith(t, email, password1)
	made := erin.call(t, "POST /processes", map[string]any{"title": "Erin's"}).is(t, 201).text(t, "id")
	w.acquire(t, erin, made, nil)
	w.admin.call(t, "PATCH "+user, map[string]any{"roles": []string{"viewer"}}).is(t, 200).with(t, "roles", "[viewer]")
	w.soon(t, erin, "POST /processes", 403)
	erin.call(t, "GET /auth/session", nil).is(t, 200).with(t, "user.roles", "[viewer]")
	w.admin.call(t, "PATCH "+user, map[string]any{"roles": []string{"viewer", "editor"}}).is(t, 200)

	// Disabling ends sessions and locks, and the sign-in says nothing about it.
	w.admin.call(t, "PATCH "+user, map[string]any{"disabled": true}).is(t, 200).with(t, "disabled", true)
	w.soon(t, erin, "GET /auth/session", 401)
	w.bob.call(t, "GET "+lockPath(made)+"/status", nil).is(t, 200).with(t, "isLocked", false)
	login := func(email, password string) *answer {
		return w.anonymous().call(t, "POST /auth/login", credentials(email, password), "X-Request-Id: same").problem(t, 401, "invalid-credentials")
	}
	disabled, wrong, unknown := login(email, password1), login(w.alice.email, "wrong"), login("nobody@example.com", password1)
	if string(disabled.Body) != string(wrong.Body) || string(wrong.Body) != string(unknown.Body) {
		t.Errorf("the sign-in tells why it refuses:\n%s\n%s\n%s", disabled.Body, wrong.Body, unknown.Body)
	}
	w.admin.call(t, "PATCH "+user, map[string]any{"disabled": false}).is(t, 200)
	erin.call(t, "GET /auth/session", nil).problem(t, 401, "unauthenticated")

	erin = w.app.signInWith(t, email, password1)
	w.admin.call(t, "PATCH "+user, map[string]any{"password": password2}).is(t, 200)
	w.soon(t, erin, "GET /auth/session", 401)
	erin = w.app.signInWith(t, email, password2)
	w.acquire(t, erin, made, nil)
	w.admin.call(t, "DELETE "+user, nil).is(t, 204)
	w.soon(t, erin, "GET /auth/session", 401)
	w.bob.call(t, "GET "+lockPath(made)+"/status", nil).is(t, 200).with(t, "isLocked", false)
	w.admin.call(t, "GET "+user, nil).problem(t, 404, "not-found")
	w.admin.call(t, "DELETE "+user, nil).problem(t, 404, "not-found")
	login(email, password2)
	w.bob.call(t, "GET /processes/"+made, nil).is(t, 200).with(t, "title", "Erin's")
}

// soon: a change of an account counts within the bound of 2 s.
func (w *world) soon(t *testing.T, c *client, what string, status int) {
	t.Helper()
	var body any
	if strings.HasPrefix(what, "POST") {
		body = map[string]any{"title": "Soon"}
	}
	servicestest.Within(t, 2*time.Second, func() bool { return c.call(t, what, body).Status == status }, fmt.Sprintf("%s is not %d", what, status))
}

func administrators(t *testing.T, w *world) {
	path := "/users/" + w.admin.id
	for _, row := range []struct {
		what string
		body any
	}{
		{"PATCH " + path, map[string]any{"disabled": true}},
		{"PATCH " + path, map[string]any{"roles": []string{"editor"}}},
		{"DELETE " + path, nil},
	} {
		if got := w.admin.call(t, row.what, row.body).problem(t, 409, "conflict"); got.text(t, "field") == absent || !strings.HasPrefix(got.text(t, "detail"), "Nobody would be left") {
			t.Errorf("%s %v: %s", row.what, row.body, got.Body)
		}
	}
	w.admin.call(t, "GET "+path, nil).is(t, 200).with(t, "disabled", false).with(t, "roles", "[admin]")

	// With a second one it can.
	id, email := w.newUser(t, "grace", "admin")
	grace := w.app.signInWith(t, email, password1)
	grace.call(t, "PATCH "+path, map[string]any{"roles": []string{"viewer"}}).is(t, 200)
	w.soon(t, w.admin, "GET /users", 403)
	grace.call(t, "PATCH "+path, map[string]any{"roles": []string{"admin"}}).is(t, 200)
	w.soon(t, w.admin, "GET /users", 200)
	w.admin.call(t, "DELETE /users/"+id, nil).is(t, 204)
}

func audit(t *testing.T, w *world) {
	w.alice.call(t, "GET /audit", nil).problem(t, 403, "forbidden")
	forced := w.admin.call(t, "GET /audit?action=lock-forced", nil).is(t, 200).with(t, "items.0.action", "lock-forced").
		with(t, "items.0.actor", w.admin.email).with(t, "items.0.target", "process:"+w.process).
		with(t, "items.0.ip", "127.0.0.1").with(t, "items.0.requestId", "forced-"+w.process)
	if detail := forced.text(t, "items.0.detail"); !strings.Contains(detail, "bob is at lunch") {
		t.Errorf("the reason is not in %q", detail)
	}
	forced.moment(t, "items.0.at")

	all := w.admin.call(t, "GET /audit?limit=200", nil).is(t, 200)
	for _, action := range []string{
		"sign-in", "sign-in-failed", "sign-out", "password-changed", "session-revoked", "sessions-revoked", "user-created", "user-changed", "user-deleted",
	} {
		if all.item(t, "action", action) == nil {
			t.Errorf("no %s in the audit", action)
		}
	}
	for _, secret := range []string{w.alice.token, w.token, demoPassword, password1} {
		if strings.Contains(string(all.Body), secret) {
			t.Error("a secret is in the audit")
		}
	}
	one := w.admin.call(t, "GET /audit?limit=1", nil).is(t, 200)
	w.admin.call(t, "GET /audit?limit=1&cursor="+one.text(t, "nextCursor"), nil).is(t, 200).with(t, "items.0.at", all.text(t, "items.1.at"))
}

func endAll(t *testing.T, w *world) {
	w.alice.call(t, "POST /sessions/end-all", nil).problem(t, 403, "forbidden")
	w.admin.call(t, "POST /sessions/end-all", nil).is(t, 204)
	for _, c := range []*client{w.alice, w.bob, w.viewer} {
		c.call(t, "GET /auth/session", nil).problem(t, 401, "unauthenticated")
	}
	w.admin.call(t, "GET /auth/session", nil).is(t, 200)
	w.app.signIn(t, w.alice.email).call(t, "GET /auth/session", nil).is(t, 200)
}
