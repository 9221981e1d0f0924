package handlers_test

import (
	"context"
	"database/sql"
	"encoding/json"
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
	"gatehouse/services/servicestest"
)

// lockAs locks a new process and returns its resource and lock.
func (s *site) lockAs(t *testing.T, email, title, reason string) (string, services.ProcessLock) {
	t.Helper()
	user := s.user(t, email)
	process, err := s.Processes.Create(t.Context(), user, models.ProcessFields{Title: title, Status: "draft"})
	check(t, err)
	held, err := s.Processes.Lock(t.Context(), user, process.ID, services.ProcessLockOptions{Reason: reason})
	check(t, err)
	return services.Resource(process.ID), held
}

func (s *site) locked(t *testing.T, resource string) bool {
	t.Helper()
	status, err := s.Locks.Status(t.Context(), resource)
	check(t, err)
	return status.Held
}

func TestDashboardWithoutLocks(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	w := s.signedIn(t, "admin@example.com").get("/")
	shows(t, w, http.StatusOK, "Nobody is editing anything.", "API=http://gate.example/api/v1", `{&#34;email&#34;:&#34;admin@example.com&#34;`)
	if strings.Contains(w.Body.String(), "may not show everybody") {
		t.Error("a banner with an embedded Redis")
	}
	for user, may := range map[string]bool{ann: true, vic: false} {
		page := s.signedIn(t, user).get("/").Body.String()
		if strings.Contains(page, "curl") || strings.Contains(page, `id="begin"`) != may {
			t.Errorf("%s is shown %s", user, page)
		}
	}
}

func TestDashboardShowsLocks(t *testing.T) {
	t.Parallel()
	s := newSite(t)
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
		shows(t, w, http.StatusOK, resource, "ann@example.com", "&lt;b&gt;Order paper&lt;/b&gt;", "&lt;script&gt;alert", `data-until="`, `data-label="Waiting">1 is waiting<`,
			`href="/processes/`+strings.TrimPrefix(resource, "process:")+`"`, ">1 lock<")
		for _, part := range []string{"/locks/force", ">Fence<", "<code>" + resource + "</code>"} {
			if got := strings.Contains(w.Body.String(), part); got != may {
				t.Errorf("%s sees %s: %t", email, part, got)
			}
		}
	}
}

func TestRefreshOfTheTable(t *testing.T) {
	t.Parallel()
	s := newSite(t)
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
	shows(t, b.get("/dashboard/locks"), http.StatusOK, "<!doctype html>", resource, "Locks held now")
}

func TestRefreshWithoutJavaScript(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	resource, _ := s.lockAs(t, ann, "Order paper", "")
	admin := s.signedIn(t, "admin@example.com")
	shows(t, admin.get("/?q=paper"), http.StatusOK, `<noscript><meta http-equiv="refresh" content="60; url=/dashboard/locks?q=paper"></noscript>`,
		`<noscript>Refreshes every minute. <a href="/?q=paper">Refresh now</a></noscript>`)

	// What was done stays there until it is read.
	sendsHome(t, admin.post("/locks/force", "resource", resource, "reason", "gone home"))
	page := admin.get("/")
	shows(t, page, http.StatusOK, "has ended.", `<noscript><a href="/">Refresh now</a></noscript>`)
	if strings.Contains(page.Body.String(), `http-equiv="refresh"`) {
		t.Errorf("a message goes by itself: %s", page.Body)
	}
}

func TestRefreshIsNoActivity(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	left, used := s.signedIn(t, ann), s.signedIn(t, bob)
	process := s.process(t, "Order paper", "")
	lastSeen := func(email string) time.Time {
		all, err := s.Sessions.List(t.Context(), s.user(t, email).ID)
		check(t, err)
		return all[0].LastSeen
	}
	// As if the sessions had been used last two minutes ago: what is more recent is not noted.
	raw, err := sql.Open("sqlite", s.path)
	check(t, err)
	defer raw.Close()
	raw.SetMaxOpenConns(1)
	_, err = raw.ExecContext(t.Context(), "PRAGMA busy_timeout = 5000; UPDATE sessions SET last_seen = last_seen - 120000000, idle_at = idle_at - 120000000")
	check(t, err)
	check(t, s.db.NoteChange(t.Context(), ""))
	s.Sessions.Sync(t.Context())
	before, usedBefore := lastSeen(ann), lastSeen(bob)
	left.get("/dashboard/locks", "HX-Request", "true")
	shows(t, left.get("/dashboard/locks"), http.StatusOK)
	shows(t, left.get("/processes/"+process.ID+"?request=x"), http.StatusOK)
	shows(t, left.get("/account?left-open=true"), http.StatusOK)
	shows(t, left.get("/processes?q=paper&left-open=true"), http.StatusOK)
	shows(t, used.get("/"), http.StatusOK)
	servicestest.Eventually(t, func() bool { return lastSeen(bob).After(usedBefore) }, "opening the page is no activity")
	if got := lastSeen(ann); !got.Equal(before) { // it would have been noted before the other
		t.Errorf("a page left open moved the last activity from %s to %s", before, got)
	}
}

func TestRefreshAfterTheSessionEnded(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b, other := s.signedIn(t, "ann@example.com"), s.signedIn(t, "ann@example.com")
	sendsTo(t, other.post("/sessions/end-others"), "/account")
	w := b.get("/dashboard/locks", "HX-Request", "true")
	if w.Code != http.StatusUnauthorized || w.Header().Get("HX-Refresh") != "true" {
		t.Errorf("the table: %d %v", w.Code, w.Header())
	}
	shows(t, b.get("/dashboard/locks"), http.StatusUnauthorized, "Sign in again.", "current-password")
	shows(t, other.get("/account"), http.StatusOK, "All your other sessions have ended.")
}

func TestBannerWithoutRedis(t *testing.T) {
	t.Parallel()
	s := newSiteWithoutRedis(t)
	b := s.signedIn(t, "admin@example.com")
	resource, _ := s.lockAs(t, "ann@example.com", "Order paper", "")
	w := b.get("/")
	shows(t, w, http.StatusOK, "This list may not show everybody who is editing.", "It was set up like that.", `role="status"`, resource, "Order paper")
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

	// Each page says what that means on it, in words of its readers.
	process := strings.TrimPrefix(resource, "process:")
	pages := map[string]string{
		"/processes": "This list may not show everybody", "/processes/" + process: "Someone may be editing this although",
		b.begins(t, process).path: "Someone else may be editing this at the same time.",
	}
	for path, want := range pages {
		w := b.get(path)
		shows(t, w, http.StatusOK, want, "whoever saves second is shown both texts")
		if banner := regexp.MustCompile(`(?s)class="banner".*?</div>`).FindString(w.Body.String()); regexp.MustCompile(`(?i)server|database|redis|locks`).MatchString(banner) {
			t.Errorf("%s: %s", path, banner)
		}
	}
}

// TestSearchForLocks: the page selects and counts as the API does, keeps its form filled in, and
// keeps the selection when it refreshes itself and on its other pages.
func TestSearchForLocks(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	var resources []string
	for range 51 {
		resource, _ := s.lockAs(t, "ann@example.com", "Order paper", "")
		resources = append(resources, resource)
	}
	other, _ := s.lockAs(t, "bob@example.com", "Order pens", "")
	b := s.signedIn(t, "bob@example.com")
	w := b.get("/")
	shows(t, w, http.StatusOK, ">52 locks<")
	if first := regexp.MustCompile(`data-resource="([^"]+)"`).FindStringSubmatch(w.Body.String())[1]; first != other {
		t.Errorf("the reader's own lock is not the first: %s", first)
	}
	w = b.get("/?q=+PAPER+")
	shows(t, w, http.StatusOK, ">51 locks found<", `value="PAPER"`, `hx-get="/dashboard/locks?q=PAPER&amp;seen=`, `/?cursor=`, "q=PAPER", `<a href="/">Show all</a>`)
	w = b.get("/?mine=true&q=pens")
	shows(t, w, http.StatusOK, ">1 lock found<", `id="mine" name="mine" type="checkbox" value="true" checked`)
	if strings.Contains(w.Body.String(), resources[0]+`"`) {
		t.Error("the lock of another user is mine")
	}
	shows(t, b.get("/?waiting=true"), http.StatusOK, "No lock matches.")
	for _, query := range []string{"mine=yes", "waiting=1", "q=" + strings.Repeat("x", 201), "cursor=x"} {
		shows(t, b.get("/?"+query), http.StatusUnprocessableEntity)
	}
	shows(t, b.get("/?q=%ff&other=1"), http.StatusOK, ">52 locks<")

	// The API.
	var list struct {
		Items []struct{ Resource string }
		Count int
	}
	token := "Bearer " + s.token(t, "bob@example.com")
	api := func(query string) *httptest.ResponseRecorder {
		return s.browser(t).get("/api/v1/locks?"+query, "Authorization", token)
	}
	check(t, json.Unmarshal(api("limit=1&q=pen&mine=true&waiting=false&sort=-since").Body.Bytes(), &list))
	if list.Count != 1 || len(list.Items) != 1 || list.Items[0].Resource != other {
		t.Errorf("the API lists %+v", list)
	}
	for query, field := range map[string]string{
		"mine=yes": "mine", "waiting=": "waiting", "sort=": "sort", "sort=fence": "sort", "q=" + strings.Repeat("x", 201): "q",
		"cursor=x": "cursor", "limit=201": "limit", "q=%00": "q", "q=1&q=2": "q", "holder=1": "holder",
	} {
		if w := api(query); w.Code != http.StatusUnprocessableEntity || !strings.Contains(w.Body.String(), `"field":"`+field+`"`) {
			t.Errorf("%s: %d %s", query, w.Code, w.Body)
		}
	}
}

func TestPagesOfLocks(t *testing.T) {
	t.Parallel()
	s := newSite(t)
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

	t.Run("of which the last can be empty by the time that it is opened", func(t *testing.T) {
		body := strings.ReplaceAll(b.get("/").Body.String(), "&amp;", "&")
		next := regexp.MustCompile(`href="(/\?cursor=[^"]+)"`).FindStringSubmatch(body)[1]
		for resource := range seen {
			_, err := s.Locks.ForceRelease(t.Context(), resource, nil)
			check(t, err)
		}
		shows(t, b.get(next), http.StatusOK, `There is nothing more here. <a href="/">First page</a>`)
		shows(t, b.get(next+"&q=paper"), http.StatusOK, `There is nothing more here. <a href="/?q=paper">First page</a>`)
	})
}
