package handlers_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"gatehouse/models"
)

// What the script of the page calls.
func TestEditScript(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	process := s.process(t, "Order paper", "")
	a := s.signedIn(t, ann)
	tab := a.begins(t, process.ID)
	lock := tab.fields.Get("lock")
	path := "/processes/" + process.ID + "/edit"
	type state struct {
		Held                    bool
		Now, Expires, ExpiresIn int64
		Version                 int64
		ChangedBy               struct{ Email string }
		Text, Type              string
		Calm                    bool
		Holder                  *models.Holder
		Waiting                 int
		TakeOver, Clock         string
		EndedBy                 map[string]any
		Degraded                bool
	}
	answer := func(t *testing.T, w *httptest.ResponseRecorder, status int) (got state) {
		t.Helper()
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != status || w.Header().Get("Cache-Control") != "no-store" {
			t.Fatalf("%d %v, want %d: %s", w.Code, w.Header(), status, w.Body)
		}
		return got
	}
	if got := answer(t, a.get(path+"/state?lock="+lock), 200); !got.Held || got.ExpiresIn < 800 || got.Version != 1 || got.ChangedBy.Email != ann || got.Text != "" {
		t.Errorf("a held lock: %+v", got)
	}
	if got := answer(t, a.post(path+"/extend", "lock", lock), 200); got.ExpiresIn < 290 || got.ExpiresIn > 300 || got.Expires <= got.Now {
		t.Errorf("extended: %+v", got)
	}
	if w := a.post(path+"/release", "lock", lock, "soon", "true"); w.Code != http.StatusNoContent {
		t.Errorf("left: %d %s", w.Code, w.Body)
	}
	if got := answer(t, a.get(path+"/state?lock="+lock), 200); !got.Held || got.ExpiresIn > 5 {
		t.Errorf("left, and may come back: %+v", got)
	}
	shows(t, a.get(tab.path), http.StatusOK) // it is back
	if got := answer(t, a.post(path+"/extend", "lock", lock), 200); got.ExpiresIn < 290 {
		t.Errorf("back: %+v", got)
	}
	for range 2 {
		if w := a.post(path+"/release", "lock", lock); w.Code != http.StatusNoContent {
			t.Errorf("released: %d %s", w.Code, w.Body)
		}
	}
	if got := answer(t, a.get(path+"/state?lock="+lock), 200); got.EndedBy["at"] == nil || got.Clock == "" || !strings.Contains(got.Text, "at "+got.Clock+",") || got.TakeOver != "" {
		t.Errorf("when it ended: %+v", got)
	}
	if got := answer(t, a.post(path+"/extend", "lock", lock), 409); got.Type != "/problems/lock-not-held" || got.Text == "" {
		t.Errorf("extended what is over: %+v", got)
	}
	s.signedIn(t, bob).begins(t, process.ID)
	if got := answer(t, a.get(path+"/state?lock="+lock), 200); got.Held || got.Holder == nil || got.Holder.Email != bob || got.TakeOver != "" || got.Calm || !strings.Contains(got.Text, bob) {
		t.Errorf("another has it: %+v", got)
	}
	if got := answer(t, a.post(path+"/extend", "lock", "no such lock"), 428); got.Type != "/problems/lock-token-required" {
		t.Errorf("without a cookie: %+v", got)
	}
	if got := answer(t, s.browser(t).get(path+"/state?lock="+lock), 401); got.Type != "/problems/unauthenticated" {
		t.Errorf("signed out: %+v", got)
	}
	if w := a.get("/processes/999/edit/state?lock=" + lock); w.Code != 404 {
		t.Errorf("of no process: %d", w.Code)
	}
}
