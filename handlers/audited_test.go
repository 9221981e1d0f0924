package handlers_test

import (
	"database/sql"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"gatehouse/models"
	"gatehouse/services"
)

// Nothing that the audit is to know is acknowledged, or done, while its entry cannot
// be stored; with it, there is one entry of the right kind.
func TestNothingWithoutItsAudit(t *testing.T) {
	s := newSite(t, inProcess())
	raw, err := sql.Open("sqlite", s.path)
	fatal(t, err)
	defer raw.Close()
	run := func(statement string) {
		t.Helper()
		_, err := raw.ExecContext(t.Context(), statement)
		fatal(t, err)
	}
	signIn := func(email string) string {
		t.Helper()
		token, _, err := s.Accounts.SignIn(t.Context(), email, password, services.Client{Network: "192.0.2.9"})
		fatal(t, err)
		return token
	}
	call := func(token, what, body string) *httptest.ResponseRecorder {
		method, path, _ := strings.Cut(what, " ")
		r := httptest.NewRequest(method, "/api/v1"+path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		w := httptest.NewRecorder()
		s.router.ServeHTTP(w, r)
		return w
	}
	admin, ann := signIn("admin@example.com"), signIn("ann@example.com")
	bob, err := s.db.Credentials(t.Context(), "bob@example.com")
	fatal(t, err)
	annID, err := s.db.Credentials(t.Context(), "ann@example.com")
	fatal(t, err)
	process, err := s.db.CreateProcess(t.Context(), annID.ID, models.ProcessFields{Title: "x", Status: "draft"})
	fatal(t, err)
	state := func() string {
		users, err := s.db.Users(t.Context(), models.Page{})
		fatal(t, err)
		var epochs []int64
		for _, user := range users.Items {
			c, err := s.db.CredentialsByID(t.Context(), user.ID)
			fatal(t, err)
			epochs = append(epochs, c.Epoch)
		}
		counts, err := s.Accounts.CountSessions(t.Context(), annID.ID, bob.ID)
		fatal(t, err)
		lock, err := s.Locks.Status(t.Context(), "process:"+process.ID)
		fatal(t, err)
		text, err := json.Marshal([]any{users.Items, epochs, counts, lock.Held, lock.Holder.UserID})
		fatal(t, err)
		return string(text)
	}
	if w := call(ann, "POST /processes/"+process.ID+"/lock", ""); w.Code != http.StatusCreated {
		t.Fatalf("lock: %d %s", w.Code, w.Body)
	}
	sessionOf := func(token string) string {
		session, err := s.Sessions.Get(t.Context(), token)
		fatal(t, err)
		return session.ID
	}
	second := signIn("ann@example.com")

	for _, row := range []struct {
		name, who, what, body string
		status                int
		action                string
	}{
		{"sign-in", "", "POST /auth/login", `{"email":"bob@example.com","password":"` + password + `"}`, 200, models.AuditSignIn},
		{"wrong password", "", "POST /auth/login", `{"email":"bob@example.com","password":"wrong"}`, 401, models.AuditSignInFailed},
		{"unknown user", "", "POST /auth/login", `{"email":"no@example.com","password":"wrong"}`, 401, models.AuditSignInFailed},
		{"wrong current password", ann, "POST /auth/password", `{"currentPassword":"wrong","newPassword":"` + password + `"}`, 422, models.AuditSignInFailed},
		{"force", admin, "DELETE /locks/process:" + process.ID + "?reason=because", "", 204, models.AuditLockForced},
		{"end one session", ann, "DELETE /sessions/" + sessionOf(second), "", 204, models.AuditSessionRevoked},
		{"end my others", ann, "DELETE /sessions", "", 204, models.AuditSessionsRevoked},
		{"end a user's", admin, "DELETE /users/" + bob.ID + "/sessions", "", 204, models.AuditSessionsRevoked},
		{"new user", admin, "POST /users", `{"email":"new@example.com","password":"` + password + `","roles":["viewer"]}`, 201, models.AuditUserCreated},
		{"change of a user", admin, "PATCH /users/" + bob.ID, `{"roles":["viewer"],"disabled":true}`, 200, models.AuditUserChanged},
		{"end everybody's", admin, "POST /sessions/end-all", "", 204, models.AuditSessionsRevoked},
		{"deletion of a user", admin, "DELETE /users/" + bob.ID, "", 204, models.AuditUserDeleted},
		{"password", admin, "POST /auth/password", `{"currentPassword":"` + password + `","newPassword":"another long password"}`, 200, models.AuditPasswordChanged},
		{"sign-out", "renewed", "POST /auth/logout", "", 204, models.AuditSignOut},
	} {
		t.Run(row.name, func(t *testing.T) {
			who := row.who
			if who == "renewed" {
				var err error
				who, _, err = s.Accounts.SignIn(t.Context(), "ann@example.com", password, services.Client{Network: "192.0.2.9"})
				fatal(t, err)
			}
			before := state()
			run(`CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no audit'); END`)
			w := call(who, row.what, row.body)
			if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
				t.Errorf("without an audit: %d %s", w.Code, w.Body)
			}
			run(`DROP TRIGGER full`)
			if after := state(); after != before {
				t.Errorf("it was done without an audit:\n%s\n%s", before, after)
			}
			entries := func() int {
				list, err := s.db.Audit(t.Context(), row.action, models.Page{Limit: 200})
				fatal(t, err)
				return len(list.Items)
			}
			had := entries()
			if w := call(who, row.what, row.body); w.Code != row.status {
				t.Errorf("with an audit: %d %s", w.Code, w.Body)
			}
			if n := entries() - had; n != 1 {
				t.Errorf("%d entries", n)
			}
		})
	}
}
