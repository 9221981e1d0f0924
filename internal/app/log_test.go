package app

import (
	"net/http"
	"strings"
	"testing"

	"gatehouse/services/servicestest"
)

// Whatever happens to a request, no line of the log has a token, a password or the query in it,
// at any level.
func TestLogHasNoSecret(t *testing.T) {
	t.Parallel()
	var log servicestest.LogLines
	a := startAppOn(t, &log, map[string]string{"LOG_LEVEL": "debug"})
	signedIn := decoded[struct{ Token string }](t, a.login("alice@example.com", demoPassword), http.StatusOK).Token
	lockToken := decoded[struct{ LockToken string }](t, a.api(signedIn, http.MethodPost, "/processes/1/lock", "", "Idempotency-Key", "idempotent-secret"), http.StatusCreated).LockToken
	const update = `{"title":"t","status":"draft","description":""}`
	for _, row := range []struct {
		method, path, body string
		headers            []string
		code               int
	}{
		{"GET", "/processes?q=searched-secret", "", nil, 200},
		{"GET", "/processes?token=" + signedIn, "", nil, 422},
		{"GET", "/nowhere/" + signedIn + "?lockToken=" + lockToken, "", nil, 404},
		{"GET", "/auth/session", "", []string{"Authorization", "Basic " + signedIn, "Cookie", "gatehouse=" + signedIn}, 200},
		{"PUT", "/processes/1", update, []string{"X-Lock-Token", lockToken}, 200},
		{"PUT", "/processes/2", update, []string{"X-Lock-Token", lockToken}, 409},
		{"POST", "/processes/1/lock/extend", "", []string{"X-Lock-Token", lockToken + "x"}, 409},
		{"POST", "/auth/password", `{"currentPassword":"guessed-secret","newPassword":"a long enough secret"}`, nil, 422},
		{"DELETE", "/processes/1/lock", "", []string{"X-Lock-Token", lockToken}, 204},
		{"POST", "/auth/logout", "", nil, 204},
		{"GET", "/auth/session", "", nil, 401},
	} {
		if w := a.api(signedIn, row.method, row.path, row.body, row.headers...); w.Code != row.code {
			t.Errorf("%s %s: %d %s", row.method, row.path, w.Code, w.Body)
		}
	}
	for _, secret := range []string{signedIn, lockToken, demoPassword, "secret"} {
		if lines := log.With(secret); len(lines) > 0 {
			t.Errorf("the log has %s in %s", secret, lines)
		}
	}
	if lines := log.With("msg=request"); len(lines) != 13 {
		t.Errorf("%d of 13 requests are logged:\n%s", len(lines), strings.Join(lines, ""))
	}
}
