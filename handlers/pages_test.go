package handlers_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"gatehouse/handlers"
	"gatehouse/middleware"
	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/services/lock"
	"gatehouse/services/ratelimit"
	"gatehouse/services/redis"
	"gatehouse/services/redis/embedded"
	"gatehouse/services/session"
	"gatehouse/services/store"
	"gatehouse/templates"
)

const password = "a long enough password"

// site is the application around the handlers, without a socket.
type site struct {
	handlers.Options
	db     *store.Store
	path   string // of the database
	router *gin.Engine
}

// newSite starts one with an administrator, two editors and a viewer, and Redis
// switched off unless embedded.
func newSite(t *testing.T, rdb redis.Options) *site {
	t.Helper()
	gin.SetMode(gin.TestMode)
	path := filepath.Join(t.TempDir(), "test.db")
	db, err := store.Open(t.Context(), store.Options{URL: path, Timeout: 20 * time.Second}) // the machine may be busy
	fatal(t, err)
	t.Cleanup(func() { _ = db.Close() })
	if rdb.Embedded {
		server, err := embedded.Start()
		fatal(t, err)
		t.Cleanup(server.Close)
		rdb.Client = server.ClientOption()
	}
	quiet := slog.New(slog.DiscardHandler)
	rdb.Logger = quiet
	r := redis.New(rdb)
	t.Cleanup(func() { _ = r.Close(context.Background()) })
	r.WaitReady(t.Context())

	policy := func(name string) models.Policy { return models.Policy{Name: name, Limit: 500, Window: time.Minute} }
	limiter := ratelimit.New(r, ratelimit.Options{Logger: quiet})
	locks := lock.New(r, lock.Options{OnRedisDown: models.OnRedisDownOpen, Logger: quiet})
	sessions, err := session.NewCache(r, db, session.Options{Logger: quiet})
	fatal(t, err)
	t.Cleanup(func() { _ = sessions.Close(context.Background()) })
	accounts := services.NewAccounts(db, sessions, locks, limiter, services.AccountsOptions{
		LoginByIP: policy("login-ip"), LoginByAccount: models.Policy{Name: "login-account", Limit: 5, Window: time.Minute}, Logger: quiet,
	})
	secret := strings.Repeat("s", 32)
	tokens, err := lock.NewTokenSigner([]string{secret})
	fatal(t, err)
	processes, err := services.NewProcesses(db, locks, tokens, []string{secret})
	fatal(t, err)
	pages, err := templates.New()
	fatal(t, err)
	for email, role := range map[string]string{"admin@example.com": "admin", "ann@example.com": "editor", "bob@example.com": "editor", "vic@example.com": "viewer"} {
		fatal(t, accounts.EnsureUser(t.Context(), email, password, role))
	}
	s := &site{db: db, path: path, router: gin.New(), Options: handlers.Options{
		Processes: processes, Locks: locks, Accounts: accounts, Sessions: sessions, Limiter: limiter, Redis: r, Database: db, Pages: pages,
		Cookie: middleware.NewSessionStore(sessions, middleware.SessionStoreOptions{Name: "gatehouse"}), Metrics: http.NotFoundHandler(),
		PublicURL: "http://gate.example", API: policy("api"), Anonymous: policy("anonymous"),
	}}
	s.router.HandleMethodNotAllowed, s.router.RedirectTrailingSlash = true, false
	s.router.Use(middleware.RequestID(), middleware.SecurityHeaders(false))
	handlers.New(s.Options).Register(s.router)
	return s
}

func inProcess() redis.Options {
	return redis.Options{Embedded: true, Timeout: 5 * time.Second} // it never hangs, but the machine may be busy
}

func fatal(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// browser keeps a cookie.
type browser struct {
	t      *testing.T
	site   *site
	cookie *http.Cookie
	agent  string
}

func (s *site) browser(t *testing.T) *browser { return &browser{t: t, site: s, agent: "test"} }

// signedIn is a browser in which a user has signed in.
func (s *site) signedIn(t *testing.T, email string) *browser {
	t.Helper()
	b := s.browser(t)
	if w := b.post("/login", "email", email, "password", password); w.Code != http.StatusSeeOther {
		t.Fatalf("sign in as %s: %d %s", email, w.Code, w.Body)
	}
	return b
}

func (b *browser) get(path string, headers ...string) *httptest.ResponseRecorder {
	return b.send(httptest.NewRequest(http.MethodGet, path, nil), headers...)
}

func (b *browser) post(path string, fields ...string) *httptest.ResponseRecorder {
	form := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		form.Set(fields[i], fields[i+1])
	}
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(form.Encode()))
	return b.send(r, "Content-Type", "application/x-www-form-urlencoded", "Sec-Fetch-Site", "same-origin")
}

func (b *browser) send(r *http.Request, headers ...string) *httptest.ResponseRecorder {
	r.Header.Set("User-Agent", b.agent)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	if b.cookie != nil {
		r.AddCookie(b.cookie)
	}
	w := httptest.NewRecorder()
	b.site.router.ServeHTTP(w, r)
	for _, cookie := range w.Result().Cookies() {
		b.cookie = cookie
		if cookie.MaxAge < 0 {
			b.cookie = nil
		}
	}
	return w
}

// shows checks status and kind of a page, and that it has each of the texts.
func shows(t *testing.T, w *httptest.ResponseRecorder, status int, texts ...string) {
	t.Helper()
	if w.Code != status || w.Header().Get("Content-Type") != "text/html; charset=utf-8" || w.Header().Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %v, want a page with %d: %s", w.Code, w.Header(), status, w.Body)
	}
	for _, text := range texts {
		if !strings.Contains(w.Body.String(), text) {
			t.Errorf("no %q in the page: %s", text, w.Body)
		}
	}
	if strings.Contains(w.Body.String(), "Redis") { // which those who edit need not know
		t.Errorf("the page names Redis: %s", w.Body)
	}
}

func sendsHome(t *testing.T, w *httptest.ResponseRecorder) {
	t.Helper()
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/" {
		t.Fatalf("%d to %q, want 303 to /: %s", w.Code, w.Header().Get("Location"), w.Body)
	}
}

func TestSignIn(t *testing.T) {
	s := newSite(t, inProcess())
	b := s.browser(t)
	shows(t, b.get("/"), http.StatusOK, `<form method="post" action="/login">`, `autocomplete="username"`, `autocomplete="current-password"`)
	sendsHome(t, b.get("/login"))

	w := b.post("/login", "email", `ann"><script>@example.com`, "password", "wrong")
	shows(t, w, http.StatusUnauthorized, "Error: Sign in", `role="alert"`, "The e-mail address or the password is wrong.", `value="ann&#34;&gt;&lt;script&gt;@example.com"`)
	if b.cookie != nil {
		t.Error("a cookie for a wrong password")
	}
	shows(t, b.post("/login", "email", "ann@example.com"), http.StatusUnprocessableEntity, "Enter your e-mail address and your password.")
	shows(t, b.post("/login", "email", "ann@example.com", "password", "\xff"), http.StatusUnprocessableEntity, "Not accepted: password must be")
	shows(t, b.post("/login", "email", strings.Repeat("a", 100_000), "password", "x"), http.StatusRequestEntityTooLarge, "The body is larger than 64 KiB.")

	sendsHome(t, b.post("/login", "email", " ANN@example.com", "password", password))
	if b.cookie == nil || !b.cookie.HttpOnly || b.cookie.SameSite != http.SameSiteLaxMode {
		t.Fatalf("the cookie is %v", b.cookie)
	}
	shows(t, b.get("/"), http.StatusOK, "ann@example.com", "editor", `action="/logout"`)
	shows(t, b.get("/problems"), http.StatusOK, "ann@example.com", `action="/logout"`)
	shows(t, b.get("/nowhere"), http.StatusNotFound, "ann@example.com", `action="/logout"`)

	before := b.cookie.Value
	w = b.post("/logout")
	if w.Code != http.StatusSeeOther || w.Header().Get("Clear-Site-Data") != `"cache", "storage"` || b.cookie != nil {
		t.Errorf("sign-out: %d %v, cookie %v", w.Code, w.Header(), b.cookie)
	}
	shows(t, b.get(w.Header().Get("Location")), http.StatusOK, "You are signed out.", "current-password")
	b.cookie = &http.Cookie{Name: "gatehouse", Value: before}
	shows(t, b.get("/"), http.StatusOK, "current-password") // the token is over, too
	if w := b.post("/logout"); w.Code != http.StatusSeeOther {
		t.Errorf("signing out twice: %d", w.Code)
	}
}

func TestTooManySignIns(t *testing.T) {
	b := newSite(t, inProcess()).browser(t)
	for range 5 {
		shows(t, b.post("/login", "email", "ann@example.com", "password", "wrong"), http.StatusUnauthorized)
	}
	w := b.post("/login", "email", "ann@example.com", "password", password)
	shows(t, w, http.StatusTooManyRequests, "Too many requests", `value="ann@example.com"`)
	if w.Header().Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

func TestRefusalsArePages(t *testing.T) {
	s := newSite(t, inProcess())
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

func TestProblemPages(t *testing.T) {
	b := newSite(t, redis.Options{Disabled: true}).browser(t)
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
	b := newSite(t, redis.Options{Disabled: true}).browser(t)
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
	s := newSite(t, inProcess())
	b := s.signedIn(t, "ann@example.com")
	fatal(t, s.db.Close())
	w := b.get("/")
	shows(t, w, http.StatusServiceUnavailable, "The database cannot be reached", "You are not signed out", `http-equiv="refresh" content="5"`)
	if w.Header().Get("Retry-After") == "" || b.cookie == nil {
		t.Errorf("%v, cookie %v", w.Header(), b.cookie)
	}
	shows(t, s.browser(t).post("/login", "email", "ann@example.com", "password", password), http.StatusServiceUnavailable, "The database cannot be reached")
	if w := b.get("/dashboard/locks", "HX-Request", "true"); strings.Contains(w.Header().Get("Content-Type"), "html") && w.Code != http.StatusOK {
		t.Errorf("the table is replaced by an error page: %d %s", w.Code, w.Body)
	}
}
