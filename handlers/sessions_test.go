package handlers_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"gatehouse/models"
	"gatehouse/services/redis"
)

// A session that ended after its request was let in is not signed in: it is no
// resource that is not found.
func TestEndSessionsOfOneThatHasJustEnded(t *testing.T) {
	for _, row := range []struct {
		name, path string
		gone       bool // the user, not only the session
		says       string
	}{
		{"the others", "/api/v1/sessions", false, "The session ended while the request waited"},
		{"all", "/api/v1/sessions?all=true", true, "The session ended while the request waited"},
		{"the others, on the page", "/sessions/end-others", false, "Your session has ended."},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := newSite(t, redis.Options{Disabled: true})
			ann := s.signedIn(t, "ann@example.com")
			shows(t, ann.get("/"), http.StatusOK, "ann@example.com")
			// Another instance ends it; the copy of this one is trusted for up to 2 s.
			session, err := s.Sessions.Get(t.Context(), ann.cookie.Value)
			fatal(t, err)
			if row.gone {
				fatal(t, s.db.DeleteUser(t.Context(), session.User.ID))
			} else {
				fatal(t, s.db.EndSessions(t.Context(), models.Ending{Hash: session.Hash}))
			}
			var w *httptest.ResponseRecorder
			if row.path == "/sessions/end-others" {
				w = ann.post(row.path)
			} else {
				w = ann.send(httptest.NewRequest(http.MethodDelete, row.path, nil), "Sec-Fetch-Site", "same-origin")
			}
			if w.Code != http.StatusUnauthorized || !strings.Contains(w.Body.String(), row.says) {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	}
}
