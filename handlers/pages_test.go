package handlers_test

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"gatehouse/services/servicestest"
)

func TestRefusalsArePages(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	editor, stranger := s.signedIn(t, "ann@example.com"), s.browser(t)
	shows(t, stranger.get("/locks/force?resource=process:1"), http.StatusUnauthorized, "current-password", "Sign in")
	shows(t, stranger.post("/sessions/end", "id", "1"), http.StatusUnauthorized, "current-password")
	shows(t, editor.get("/locks/force?resource=process:1"), http.StatusForbidden, "This needs the role admin", "Request id")
	shows(t, editor.post("/locks/force", "resource", "process:1", "reason", "x"), http.StatusForbidden)
	shows(t, editor.get("/?cursor=nonsense"), http.StatusUnprocessableEntity)
	r := httptest.NewRequest(http.MethodPost, "/sessions/end-others", nil)
	shows(t, editor.send(r, "Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example"), http.StatusForbidden, "another origin")
	shows(t, editor.get("/nowhere"), http.StatusNotFound, "Not found")
	w := editor.post("/problems")
	shows(t, w, http.StatusMethodNotAllowed)
	if w.Header().Get("Allow") != "GET" {
		t.Errorf("Allow is %q", w.Header().Get("Allow"))
	}
	for _, path := range []string{"/api/nowhere", "/api/v1/nowhere"} {
		if w := editor.get(path); w.Code != http.StatusNotFound || w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %s", path, w.Code, w.Header().Get("Content-Type"))
		}
	}
}

// TestPageLeftOpen: once its session must have ended a page asks for itself.
func TestPageLeftOpen(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.signedIn(t, "ann@example.com")
	id := s.process(t, "Order paper", "").ID
	for path, want := range map[string]string{
		"/":                                  "/?left-open=true",
		"/account":                           "/account?left-open=true",
		"/account?left-open=true":            "/account?left-open=true",
		"/processes?order=title&q=a":         "/processes?order=title&amp;q=a&amp;left-open=true",
		"/processes/" + id + "/history":      "/processes/" + id + "/history?left-open=true",
		"/refusals?request=x&left-open=true": "/refusals?request=x&amp;left-open=true",
	} {
		if page := a.get(path).Body.String(); !strings.Contains(page, ` data-reload="`+want+`"`) {
			t.Errorf("%s: not %s: %s", path, want, page)
		}
	}
	servicestest.Eventually(t, func() bool { // there is no such page: who is signed in is known for a moment only
		a.get("/")
		return strings.Contains(a.get("//evil.example/account").Body.String(), ` data-reload="/"`)
	}, "a page that is not there does not lead home")
	shows(t, a.post("/processes/new", "title", ""), http.StatusUnprocessableEntity, ` data-reload="/"`)
}

// TestWayOutOfARefusal: a form that is refused leads back to where it was.
func TestWayOutOfARefusal(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.signedIn(t, "ann@example.com")
	path := "/processes/" + s.process(t, "Order paper", "").ID
	back := `href="` + path + `">Back to the process</a>`
	shows(t, a.post(path+"/restore", "version", "99"), http.StatusUnprocessableEntity, back)
	shows(t, a.post("/processes/999/draft/discard"), http.StatusNotFound, `href="/">Go to the start page</a>`)
	check(t, s.db.Close())
	shows(t, a.post(path+"/restore", "version", "1"), http.StatusServiceUnavailable, back)
	shows(t, a.post("/sessions/end-others"), http.StatusServiceUnavailable, `href="/">Go to the start page</a>`)
	shows(t, a.get(path), http.StatusServiceUnavailable, `href="`+path+`">Try again</a>`)
}

func TestProblemPages(t *testing.T) {
	t.Parallel()
	b := newSiteWithoutRedis(t).browser(t)
	list := b.get("/problems")
	shows(t, list, http.StatusOK)
	links := regexp.MustCompile(`href="(/problems/[a-z-]+)"`).FindAllStringSubmatch(list.Body.String(), -1)
	if len(links) < 18 {
		t.Fatalf("only %d problem types", len(links))
	}
	for _, link := range links {
		shows(t, b.get(link[1]), http.StatusOK, strings.TrimPrefix(link[1], "/problems/"))
	}
	shows(t, b.get("/problems/nothing"), http.StatusNotFound)
}

func TestStaticFiles(t *testing.T) {
	t.Parallel()
	b := newSiteWithoutRedis(t).browser(t)
	links := regexp.MustCompile(`(?:src|href)="(/static/[^"]+)"`).FindAllStringSubmatch(b.get("/").Body.String(), -1)
	if len(links) != 4 {
		t.Fatalf("a page loads %v", links)
	}
	for _, link := range links {
		w := b.get(link[1])
		if w.Code != http.StatusOK || w.Body.Len() == 0 || w.Header().Get("Cache-Control") != "public, max-age=31536000, immutable" || w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d %v", link[1], w.Code, w.Header())
		}
		if w := b.get(link[1], "If-None-Match", w.Header().Get("ETag")); w.Code != http.StatusNotModified || w.Body.Len() != 0 {
			t.Errorf("%s, unchanged: %d", link[1], w.Code)
		}
	}
	if w := b.get("/static/app.css?v=000000000000"); w.Code != http.StatusOK || w.Header().Get("Cache-Control") != "no-cache" {
		t.Errorf("another version: %d %v", w.Code, w.Header())
	}
	shows(t, b.get("/static/nothing.js"), http.StatusNotFound)
	shows(t, b.get("/static/..%2Ftemplates.go"), http.StatusNotFound)
}

func TestDatabaseGone(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	b := s.signedIn(t, "ann@example.com")
	check(t, s.db.Close())
	w := b.get("/account")
	shows(t, w, http.StatusServiceUnavailable, "The database cannot be reached", "You are not signed out", `http-equiv="refresh" content="5"`)
	if w.Header().Get("Retry-After") == "" || b.cookie == nil {
		t.Errorf("%v, cookie %v", w.Header(), b.cookie)
	}
	w = s.browser(t).post("/login", "email", "ann@example.com", "password", password)
	shows(t, w, http.StatusServiceUnavailable, "The database cannot be reached", "Nothing was changed")
	if strings.Contains(w.Body.String(), "not signed out") {
		t.Errorf("to a visitor who was not signed in: %s", w.Body)
	}
	if w := b.get("/dashboard/locks", "HX-Request", "true"); strings.Contains(w.Header().Get("Content-Type"), "html") && w.Code != http.StatusOK {
		t.Errorf("the table is replaced by an error page: %d %s", w.Code, w.Body)
	}
}
