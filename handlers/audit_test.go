package handlers_test

import (
	"database/sql"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"gatehouse/models"
)

// audited is a site whose audit can be made to fail.
type audited struct {
	*site
	raw *sql.DB
}

func newAudited(t *testing.T) *audited {
	t.Helper()
	s := &audited{site: newSite(t)}
	var err error
	s.raw, err = sql.Open("sqlite", s.path)
	check(t, err)
	t.Cleanup(func() { _ = s.raw.Close() })
	return s
}

func (s *audited) run(t *testing.T, statement string) {
	t.Helper()
	_, err := s.raw.ExecContext(t.Context(), statement)
	check(t, err)
}

func (s *audited) call(token, what, body string) *httptest.ResponseRecorder {
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

func (s *audited) entries(t *testing.T, action string) []models.AuditEntry {
	t.Helper()
	list, err := s.db.Audit(t.Context(), action, models.Page{Limit: 200})
	check(t, err)
	return list.Items
}

// state is all that the audited steps change: users and their epochs, sessions, the lock.
func (s *audited) state(t *testing.T, resource string) string {
	t.Helper()
	users, err := s.db.Users(t.Context(), models.Page{})
	check(t, err)
	var ids []string
	var epochs []int64
	for _, user := range users.Items {
		c, err := s.db.CredentialsByID(t.Context(), user.ID)
		check(t, err)
		ids, epochs = append(ids, user.ID), append(epochs, c.Epoch)
	}
	counts, err := s.Accounts.CountSessions(t.Context(), ids...)
	check(t, err)
	lock, err := s.Locks.Status(t.Context(), resource)
	check(t, err)
	text, err := json.Marshal([]any{users.Items, epochs, counts, lock.Held, lock.Holder.UserID})
	check(t, err)
	return string(text)
}

// Nothing that the audit is to know is acknowledged, or done, while its entry cannot be stored.
// With it there is one entry, which says who did what to whom, from where and by which request.
func TestNothingIsDoneWithoutItsAudit(t *testing.T) {
	t.Parallel()
	s := newAudited(t)
	ann, bob, admin := s.user(t, "ann@example.com").ID, s.user(t, "bob@example.com").ID, s.user(t, "admin@example.com").ID
	resource, held := s.lockAs(t, "ann@example.com", "x", "")
	second, err := s.Sessions.Get(t.Context(), s.token(t, "ann@example.com"))
	check(t, err)
	for _, row := range []struct {
		name, who, what, body string
		status                int
		action, entry         string // the entry's actor, target and detail
	}{
		{"wrong password", "", "POST /auth/login", `{"email":"bob@example.com","password":"wrong"}`, 401, models.AuditSignInFailed, "bob@example.com|user:" + bob + "|"},
		{"sign-in", "", "POST /auth/login", `{"email":"bob@example.com","password":"` + password + `"}`, 200, models.AuditSignIn, "bob@example.com|user:" + bob + "|"},
		{"unknown user", "", "POST /auth/login", `{"email":"no@example.com","password":"wrong"}`, 401, models.AuditSignInFailed, "no@example.com||"},
		{"wrong current password", "ann@", "POST /auth/password", `{"currentPassword":"wrong","newPassword":"` + password + `"}`, 422, models.AuditSignInFailed, "ann@example.com|user:" + ann + "|at a change of password"},
		{"force", "admin@", "DELETE /locks/" + resource + "?reason=because", "", 204, models.AuditLockForced, "admin@example.com|" + resource + "|held by ann@example.com: because"},
		{"end one session", "ann@", "DELETE /sessions/" + second.ID, "", 204, models.AuditSessionRevoked, "ann@example.com|user:" + ann + "|session " + second.ID},
		{"end my others", "ann@", "DELETE /sessions", "", 204, models.AuditSessionsRevoked, "ann@example.com|user:" + ann + "|all others"},
		{"end a user's", "admin@", "DELETE /users/" + bob + "/sessions", "", 204, models.AuditSessionsRevoked, "admin@example.com|user:" + bob + "|all"},
		{"new user", "admin@", "POST /users", `{"email":"new@example.com","password":"` + password + `","roles":["viewer"]}`, 201, models.AuditUserCreated, "admin@example.com|user:5|new@example.com as viewer"},
		{"change of rights", "admin@", "PATCH /users/" + ann, `{"roles":["viewer","admin"]}`, 200, models.AuditUserChanged, "admin@example.com|user:" + ann + "|roles viewer, admin"},
		{"disabling a user", "admin@", "PATCH /users/" + bob, `{"disabled":true}`, 200, models.AuditUserChanged, "admin@example.com|user:" + bob + "|disabled true"},
		{"end everybody's", "admin@", "POST /sessions/end-all", "", 204, models.AuditSessionsRevoked, "admin@example.com|everybody|all but this one"},
		{"deletion of a user", "admin@", "DELETE /users/" + bob, "", 204, models.AuditUserDeleted, "admin@example.com|user:" + bob + "|"},
		{"password", "admin@", "POST /auth/password", `{"currentPassword":"` + password + `","newPassword":"another long password"}`, 200, models.AuditPasswordChanged, "admin@example.com|user:" + admin + "|"},
		{"sign-out", "ann@", "POST /auth/logout", "", 204, models.AuditSignOut, "ann@example.com|user:" + ann + "|"},
	} {
		t.Run(row.name, func(t *testing.T) {
			who := ""
			if row.who != "" {
				who = s.token(t, row.who+"example.com")
			}
			before := s.state(t, resource)
			s.run(t, `CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no audit'); END`)
			w := s.call(who, row.what, row.body)
			if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
				t.Errorf("without an audit: %d %s", w.Code, w.Body)
			}
			s.run(t, `DROP TRIGGER full`)
			if after := s.state(t, resource); after != before {
				t.Errorf("it was done without an audit:\n%s\n%s", before, after)
			}
			had := len(s.entries(t, row.action))
			w = s.call(who, row.what, row.body)
			if w.Code != row.status {
				t.Errorf("with an audit: %d %s", w.Code, w.Body)
			}
			entries := s.entries(t, row.action)
			if len(entries) != had+1 {
				t.Fatalf("%d entries", len(entries)-had)
			}
			got := entries[0]
			if entry := got.Actor + "|" + got.Target + "|" + got.Detail; entry != row.entry || got.IP != "192.0.2.1" || got.RequestID != w.Header().Get("X-Request-Id") {
				t.Errorf("the entry is %+v, want %q", got, row.entry)
			}
		})
	}
	if held.Fence == nil {
		t.Error("the lock was granted without Redis")
	}
}
