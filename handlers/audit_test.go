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

func (s *audited) call(token, what, body string, headers ...string) *httptest.ResponseRecorder {
	method, path, _ := strings.Cut(what, " ")
	r := httptest.NewRequest(method, "/api/v1"+path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
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

// state is all that the audited steps change: users and their epochs, sessions, the lock, the
// requests for locks, and how often processes were saved.
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
	var requests, saved string
	check(t, s.raw.QueryRowContext(t.Context(), `SELECT
		(SELECT COALESCE(group_concat(concat_ws(' ', id, state, answer_by, answered_at, grant_id)), '') FROM lock_requests),
		(SELECT COALESCE(group_concat(concat_ws(' ', id, version)), '') FROM processes)`).Scan(&requests, &saved))
	text, err := json.Marshal([]any{users.Items, epochs, counts, lock.Held, lock.Holder.UserID, lock.Grant, requests, saved})
	check(t, err)
	return string(text)
}

// withoutAudit wants what is refused, and not done, while no entry of the audit can be stored.
func (s *audited) withoutAudit(t *testing.T, resource string, do func() *httptest.ResponseRecorder) {
	t.Helper()
	before := s.state(t, resource)
	s.run(t, `CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no audit'); END`)
	if w := do(); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("without an audit: %d %s", w.Code, w.Body)
	}
	s.run(t, `DROP TRIGGER full`)
	if after := s.state(t, resource); after != before {
		t.Errorf("it was done without an audit:\n%s\n%s", before, after)
	}
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
			s.withoutAudit(t, resource, func() *httptest.ResponseRecorder { return s.call(who, row.what, row.body) })
			had := len(s.entries(t, row.action))
			w := s.call(who, row.what, row.body)
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

// So it is with a lock that is asked for and passes to another user, by the API and on the pages.
func TestLocksThatPassOnAreAudited(t *testing.T) {
	t.Parallel()
	s := newAudited(t)
	process := s.process(t, "Order paper", "")
	path, resource := "/processes/"+process.ID, "process:"+process.ID
	a, b := s.signedIn(t, ann), s.signedIn(t, bob)
	annsToken, bobsToken := s.token(t, ann), s.token(t, bob)
	// does wants one entry, with who did it and what, of what is not done without.
	does := func(status int, action, entry string, do func() *httptest.ResponseRecorder) *httptest.ResponseRecorder {
		t.Helper()
		s.withoutAudit(t, resource, do)
		had, w := len(s.entries(t, action)), do()
		entries := s.entries(t, action)
		if w.Code != status || len(entries) != had+1 {
			t.Fatalf("%s: %d with %d entries: %s", action, w.Code, len(entries)-had, w.Body)
		}
		if got := entries[0]; got.Actor+"|"+got.Detail != entry || got.Target != resource || got.IP != "192.0.2.1" || got.RequestID != w.Header().Get("X-Request-Id") {
			t.Errorf("%s: the entry is %+v, want %q", action, got, entry)
		}
		return w
	}
	page := func(b *browser, path string, fields ...string) func() *httptest.ResponseRecorder {
		return func() *httptest.ResponseRecorder { return b.post(path, fields...) }
	}
	api := func(token, what, body string, headers ...string) func() *httptest.ResponseRecorder {
		return func() *httptest.ResponseRecorder { return s.call(token, what, body, headers...) }
	}
	requested := func(w *httptest.ResponseRecorder) (request string) {
		address := w.Header().Get("Location")
		return address[strings.LastIndexAny(address, "/=")+1:]
	}

	t.Run("on the pages", func(t *testing.T) {
		tab := a.begins(t, process.ID)
		answers := func(answer, request string) func() *httptest.ResponseRecorder {
			return func() *httptest.ResponseRecorder { return tab.presses("/edit/answer", "answer", answer+" "+request) }
		}
		request := requested(does(303, models.AuditLockAsked, bob+"|of "+ann+": please", page(b, path+"/ask", "message", "please")))
		does(303, models.AuditLockAnswered, ann+"|later to "+bob, answers("later", request))
		does(303, models.AuditLockWithdrawn, bob+"|", page(b, path+"/ask/withdraw", "request", request))
		request = requested(b.post(path + "/ask"))
		does(303, models.AuditLockGiven, ann+"|to "+bob, answers("give", request))
		tab = b.follows(t, does(303, models.AuditLockTakenOver, bob+"|held by "+bob, page(b, path+"/edit", "takeOver", "true")), process.ID)
		s.writesAnyway(t, process.ID, "Order chalk") // so that a save takes the lock anew
		does(303, models.AuditLockTakenOver, bob+"|held by "+bob, func() *httptest.ResponseRecorder { return tab.presses("/edit/save", "base", "2") })
	})
	t.Run("by the API", func(t *testing.T) {
		_, err := s.Locks.ForceRelease(t.Context(), resource, nil)
		check(t, err)
		a.begins(t, process.ID)
		w := does(201, models.AuditLockTakenOver, ann+"|held by "+ann+": here", api(annsToken, "POST "+path+"/lock", `{"takeOver":true,"reason":"here"}`))
		var held struct{ LockToken string }
		check(t, json.Unmarshal(w.Body.Bytes(), &held))
		requests := path + "/lock/requests"
		one := requests + "/" + requested(does(201, models.AuditLockAsked, bob+"|of "+ann+": please", api(bobsToken, "POST "+requests, `{"message":"please"}`)))
		does(200, models.AuditLockAnswered, ann+"|later to "+bob+": soon", api(annsToken, "POST "+one+"/answer", `{"answer":"later","message":"soon"}`, "X-Lock-Token", held.LockToken))
		does(204, models.AuditLockWithdrawn, bob+"|", api(bobsToken, "DELETE "+one, ""))
		one = requests + "/" + requested(s.call(bobsToken, "POST "+requests, ""))
		does(200, models.AuditLockGiven, ann+"|to "+bob, api(annsToken, "POST "+one+"/answer", `{"answer":"give"}`, "X-Lock-Token", held.LockToken))
	})
}
