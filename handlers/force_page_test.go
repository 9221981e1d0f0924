package handlers_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"gatehouse/models"
	"gatehouse/services"
)

func TestForcingALock(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	admin := s.signedIn(t, "admin@example.com")
	resource, held := s.lockAs(t, "ann@example.com", "Order paper", "quarterly review")
	question := "/locks/force?resource=" + resource
	shownFence := func(t *testing.T) string {
		t.Helper()
		w := admin.get(question)
		shows(t, w, http.StatusOK, "Force this lock?", "Order paper", "required")
		return regexp.MustCompile(`name="fence" value="(\d+)"`).FindStringSubmatch(w.Body.String())[1]
	}
	t.Run("shows whose lock it is, and why", func(t *testing.T) {
		shows(t, admin.get(question), http.StatusOK, "ann@example.com", "quarterly review")
	})
	t.Run("needs a reason", func(t *testing.T) {
		for _, reason := range []string{"", "  ", strings.Repeat("x", 201)} {
			w := admin.post("/locks/force", "resource", resource, "fence", shownFence(t), "reason", reason)
			shows(t, w, http.StatusUnprocessableEntity, "Say why, in 1 to 200 characters.", `aria-invalid="true"`)
		}
		shows(t, admin.post("/locks/force", "resource", "nonsense", "reason", "x"), http.StatusUnprocessableEntity)
		shows(t, admin.post("/locks/force", "resource", resource, "reason", "a\x00b"), http.StatusUnprocessableEntity)
		if !s.locked(t, resource) {
			t.Fatal("forced without a reason")
		}
	})
	t.Run("ends no other lock than the one shown", func(t *testing.T) {
		fence := shownFence(t)
		_, err := s.Processes.Unlock(t.Context(), models.UserRef{ID: held.Holder.UserID}, held.Process.ID, held.Token)
		check(t, err)
		_, err = s.Processes.Lock(t.Context(), s.user(t, "bob@example.com"), held.Process.ID, services.ProcessLockOptions{})
		check(t, err)
		sendsHome(t, admin.post("/locks/force", "resource", resource, "fence", fence, "reason", "gone home"))
		shows(t, admin.get("/"), http.StatusOK, "Nothing was forced", `class="notice failed"`)
		if !s.locked(t, resource) {
			t.Fatal("forced another lock than the one shown")
		}
	})
	t.Run("says once that it is done, and is audited", func(t *testing.T) {
		sendsHome(t, admin.post("/locks/force", "resource", resource, "fence", shownFence(t), "reason", "gone home"))
		shows(t, admin.get("/"), http.StatusOK, "The lock of bob@example.com on "+resource+" has ended.")
		if again := admin.get("/"); strings.Contains(again.Body.String(), "has ended.") {
			t.Error("the message is shown twice")
		}
		if s.locked(t, resource) {
			t.Error("still locked")
		}
		entries, err := s.Accounts.AuditPage(t.Context(), models.AuditLockForced, models.Page{Limit: 10})
		check(t, err)
		if len(entries.Items) != 1 || !strings.Contains(entries.Items[0].Detail, "gone home") {
			t.Errorf("the audit has %v", entries.Items)
		}
	})
	t.Run("finds that the lock has ended meanwhile", func(t *testing.T) {
		sendsHome(t, admin.get(question))
		shows(t, admin.get("/"), http.StatusOK, "is not locked any more.")
		sendsHome(t, admin.post("/locks/force", "resource", resource, "reason", "gone home"))
		shows(t, admin.get("/locks/force?resource=nonsense"), http.StatusNotFound)
	})
}
