package handlers_test

import (
	"context"
	"database/sql"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/services/lock"
	"gatehouse/services/redis"
	"gatehouse/services/servicestest"
)

// lockAs locks a new process and returns its resource and lock.
func (s *site) lockAs(t *testing.T, email, title, reason string) (string, services.ProcessLock) {
	t.Helper()
	who, err := s.db.Credentials(t.Context(), email)
	fatal(t, err)
	user := models.UserRef{ID: who.ID, Email: who.Email}
	process, err := s.Processes.Create(t.Context(), user, models.ProcessFields{Title: title, Status: "draft"})
	fatal(t, err)
	held, err := s.Processes.Lock(t.Context(), user, process.ID, services.ProcessLockOptions{Reason: reason})
	fatal(t, err)
	return services.Resource(process.ID), held
}

func (s *site) locked(t *testing.T, resource string) bool {
	t.Helper()
	status, err := s.Locks.Status(t.Context(), resource)
	fatal(t, err)
	return status.Held
}

func TestDashboardWithoutLocks(t *testing.T) {
	s := newSite(t, inProcess())
	w := s.signedIn(t, "ann@example.com").get("/")
	shows(t, w, http.StatusOK, "Nobody is editing anything.", "API=http://gate.example/api/v1", `{&#34;email&#34;:&#34;ann@example.com&#34;`, "this device")
	if strings.Contains(w.Body.String(), "keeps its own locks") {
		t.Error("a banner with an embedded Redis")
	}
	if w := s.signedIn(t, "vic@example.com").get("/"); strings.Contains(w.Body.String(), "curl") {
		t.Error("viewers are shown how to lock, which they may not")
	}
}

func TestDashboardShowsLocks(t *testing.T) {
	s := newSite(t, inProcess())
	resource, _ := s.lockAs(t, "ann@example.com", "<b>Order paper</b>", `"><script>alert(1)</script>`)
	waiting, leave := context.WithCancel(t.Context())
	var waiter sync.WaitGroup
	defer waiter.Wait()
	defer leave()
	waiter.Go(func() { _, _ = s.Locks.Acquire(waiting, lock.Request{Resource: resource}) })
	servicestest.Eventually(t, func() bool {
		status, err := s.Locks.Status(t.Context(), resource)
		return err == nil && status.Waiting == 1
	}, "no waiter")
	for email, may := range map[string]bool{"admin@example.com": true, "ann@example.com": false, "vic@example.com": false} {
		w := s.signedIn(t, email).get("/")
		shows(t, w, http.StatusOK, resource, "ann@example.com", "&lt;b&gt;Order paper&lt;/b&gt;", "&lt;script&gt;alert", `data-until="`, `data-label="Waiting" class="number">1<`)
		if got := strings.Contains(w.Body.String(), "/locks/force"); got != may {
			t.Errorf("%s may force: %t", email, got)
		}
	}
}

func TestRefreshOfTheTable(t *testing.T) {
	s := newSite(t, inProcess())
	b := s.signedIn(t, "ann@example.com")
	poll := func(page *httptest.ResponseRecorder) string {
		return strings.ReplaceAll(regexp.MustCompile(`hx-get="([^"]+)"`).FindStringSubmatch(page.Body.String())[1], "&amp;", "&")
	}
	next := poll(b.get("/"))
	if w := b.get(next, "HX-Request", "true"); w.Code != http.StatusNoContent || w.Body.Len() != 0 {
		t.Fatalf("unchanged: %d %s", w.Code, w.Body)
	}
	resource, _ := s.lockAs(t, "bob@example.com", "Order paper", "")
	w := b.get(next, "HX-Request", "true")
	shows(t, w, http.StatusOK, resource, "Order paper")
	if !strings.HasPrefix(w.Body.String(), `<div id="locks"`) || poll(w) == next {
		t.Errorf("not a new table: %s", w.Body)
	}

	// Without JavaScript the same address is the whole page.
	shows(t, b.get("/dashboard/locks"), http.StatusOK, "<!doctype html>", resource, "My sessions")
}

func TestRefreshIsNoActivity(t *testing.T) {
	s := newSite(t, inProcess())
	b := s.signedIn(t, "ann@example.com")
	who, err := s.db.Credentials(t.Context(), "ann@example.com")
	fatal(t, err)
	lastSeen := func() time.Time {
		all, err := s.Sessions.List(t.Context(), who.ID)
		fatal(t, err)
		return all[0].LastSeen
	}
	// As if the session had been used last two minutes ago: what is more recent is not noted.
	raw, err := sql.Open("sqlite", s.path)
	fatal(t, err)
	defer raw.Close()
	raw.SetMaxOpenConns(1)
	_, err = raw.ExecContext(t.Context(), "PRAGMA busy_timeout = 5000; UPDATE sessions SET last_seen = last_seen - 120000000, idle_at = idle_at - 120000000")
	fatal(t, err)
	fatal(t, s.db.NoteChange(t.Context(), ""))
	s.Sessions.Sync(t.Context())
	before := lastSeen()
	b.get("/dashboard/locks", "HX-Request", "true")
	shows(t, b.get("/dashboard/locks"), http.StatusOK)
	if got := lastSeen(); !got.Equal(before) {
		t.Errorf("a page left open moved the last activity from %s to %s", before, got)
	}
	shows(t, b.get("/"), http.StatusOK)
	servicestest.Within(t, 3*time.Second, func() bool { return lastSeen().After(before) }, "opening the page is no activity")
}

func TestRefreshAfterTheSessionEnded(t *testing.T) {
	s := newSite(t, inProcess())
	b, other := s.signedIn(t, "ann@example.com"), s.signedIn(t, "ann@example.com")
	sendsHome(t, other.post("/sessions/end-others"))
	w := b.get("/dashboard/locks", "HX-Request", "true")
	if w.Code != http.StatusUnauthorized || w.Header().Get("HX-Refresh") != "true" {
		t.Errorf("the table: %d %v", w.Code, w.Header())
	}
	shows(t, b.get("/dashboard/locks"), http.StatusUnauthorized, "Sign in again.", "current-password")
	shows(t, other.get("/"), http.StatusOK, "All your other sessions have ended.")
}

func TestForce(t *testing.T) {
	s := newSite(t, inProcess())
	admin := s.signedIn(t, "admin@example.com")
	resource, held := s.lockAs(t, "ann@example.com", "Order paper", "quarterly review")
	question := "/locks/force?resource=" + resource
	w := admin.get(question)
	shows(t, w, http.StatusOK, "Force this lock?", "Order paper", "ann@example.com", "quarterly review", "required")
	fence := regexp.MustCompile(`name="fence" value="(\d+)"`).FindStringSubmatch(w.Body.String())[1]

	for _, reason := range []string{"", "  ", strings.Repeat("x", 201)} {
		w := admin.post("/locks/force", "resource", resource, "fence", fence, "reason", reason)
		shows(t, w, http.StatusUnprocessableEntity, "Say why, in 1 to 200 characters.", `aria-invalid="true"`)
	}
	shows(t, admin.post("/locks/force", "resource", "nonsense", "reason", "x"), http.StatusUnprocessableEntity)
	shows(t, admin.post("/locks/force", "resource", resource, "reason", "a\x00b"), http.StatusUnprocessableEntity)
	if !s.locked(t, resource) {
		t.Fatal("forced without a reason")
	}

	// The lock changes hands between the question and the answer.
	_, err := s.Processes.Unlock(t.Context(), models.UserRef{ID: held.Holder.UserID}, held.Process.ID, held.Token)
	fatal(t, err)
	bob, err := s.db.Credentials(t.Context(), "bob@example.com")
	fatal(t, err)
	_, err = s.Processes.Lock(t.Context(), models.UserRef{ID: bob.ID, Email: bob.Email}, held.Process.ID, services.ProcessLockOptions{})
	fatal(t, err)
	sendsHome(t, admin.post("/locks/force", "resource", resource, "fence", fence, "reason", "gone home"))
	shows(t, admin.get("/"), http.StatusOK, "Nothing was forced", `class="notice failed"`)
	if !s.locked(t, resource) {
		t.Fatal("forced another lock than the one shown")
	}

	fence = regexp.MustCompile(`name="fence" value="(\d+)"`).FindStringSubmatch(admin.get(question).Body.String())[1]
	sendsHome(t, admin.post("/locks/force", "resource", resource, "fence", fence, "reason", "gone home"))
	w = admin.get("/")
	shows(t, w, http.StatusOK, "The lock of bob@example.com on "+resource+" has ended.")
	if again := admin.get("/"); strings.Contains(again.Body.String(), "has ended.") {
		t.Error("the message is shown twice")
	}
	if s.locked(t, resource) {
		t.Error("still locked")
	}
	entries, err := s.Accounts.AuditPage(t.Context(), models.AuditLockForced, models.Page{Limit: 10})
	fatal(t, err)
	if len(entries.Items) != 1 || !strings.Contains(entries.Items[0].Detail, "gone home") {
		t.Errorf("the audit has %v", entries.Items)
	}

	sendsHome(t, admin.get(question))
	shows(t, admin.get("/"), http.StatusOK, "is not locked any more.")
	sendsHome(t, admin.post("/locks/force", "resource", resource, "reason", "gone home"))
	shows(t, admin.get("/locks/force?resource=nonsense"), http.StatusNotFound)
}

func TestEndSessions(t *testing.T) {
	s := newSite(t, inProcess())
	b := s.signedIn(t, "ann@example.com")
	phone := s.browser(t)
	phone.agent = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.4 Mobile/15E148 Safari/604.1"
	sendsHome(t, phone.post("/login", "email", "ann@example.com", "password", password))
	w := b.get("/")
	shows(t, w, http.StatusOK, "Safari on iPhone", "this device", "End all others")
	ids := regexp.MustCompile(`name="id" value="([^"]+)"`).FindAllStringSubmatch(w.Body.String(), -1)
	if len(ids) != 1 {
		t.Fatalf("%d sessions can be ended", len(ids))
	}
	stranger := s.signedIn(t, "bob@example.com")
	sendsHome(t, stranger.post("/sessions/end", "id", ids[0][1]))
	shows(t, phone.get("/"), http.StatusOK, "ann@example.com") // not bob's to end
	sendsHome(t, b.post("/sessions/end", "id", ids[0][1]))
	shows(t, b.get("/"), http.StatusOK, "The session has ended.")
	shows(t, phone.get("/"), http.StatusOK, "current-password")
	sendsHome(t, b.post("/sessions/end", "id", ids[0][1]))
	shows(t, b.get("/"), http.StatusOK, "That session had ended already.")
	shows(t, b.post("/sessions/end", "id", "../1"), http.StatusUnprocessableEntity)
}

func TestBannerWithoutRedis(t *testing.T) {
	s := newSite(t, redis.Options{Disabled: true})
	b := s.signedIn(t, "admin@example.com")
	resource, _ := s.lockAs(t, "ann@example.com", "Order paper", "")
	w := b.get("/")
	shows(t, w, http.StatusOK, "Each server keeps its own locks.", `role="status"`, resource, "Order paper")
	if got := w.Header().Get("X-Degraded"); !strings.Contains(got, "locks") {
		t.Errorf("X-Degraded is %q", got)
	}
	w = b.get("/locks/force?resource=" + resource)
	shows(t, w, http.StatusOK, "Force this lock?")
	if strings.Contains(w.Body.String(), `name="fence"`) {
		t.Error("a fence without Redis")
	}
	sendsHome(t, b.post("/locks/force", "resource", resource, "reason", "gone home"))
	if s.locked(t, resource) {
		t.Error("still locked")
	}
}

func TestPagesOfLocks(t *testing.T) {
	s := newSite(t, inProcess())
	b := s.signedIn(t, "ann@example.com")
	seen := map[string]bool{}
	for range 51 {
		s.lockAs(t, "ann@example.com", "Order paper", "")
	}
	path := "/"
	for page := 1; path != ""; page++ {
		w := b.get(path)
		shows(t, w, http.StatusOK)
		body := strings.ReplaceAll(w.Body.String(), "&amp;", "&")
		for _, row := range regexp.MustCompile(`data-resource="([^"]+)"`).FindAllStringSubmatch(body, -1) {
			seen[row[1]] = true
		}
		if first := strings.Contains(body, "First page"); first != (page > 1) {
			t.Errorf("page %d has a link to the first: %t", page, first)
		}
		path = ""
		if next := regexp.MustCompile(`href="(/\?cursor=[^"]+)"`).FindStringSubmatch(body); next != nil && page < 10 {
			path = next[1]
		}
	}
	if len(seen) != 51 {
		t.Errorf("%d of 51 locks are shown", len(seen))
	}
}
