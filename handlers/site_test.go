package handlers_test

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
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
	"gatehouse/services/servicestest"
	"gatehouse/services/session"
	"gatehouse/services/store"
	"gatehouse/templates"
)

const password = "a long enough password"

// site is the application around the handlers, without a socket.
type site struct {
	handlers.Options
	handlers *handlers.Handlers
	db       *store.Store
	path     string // of the database
	router   *gin.Engine
}

// newSite starts a site on an embedded Redis.
func newSite(t *testing.T) *site {
	t.Helper()
	return newSiteOn(t, embeddedRedis(t), services.ProcessesOptions{})
}

// newUnprotectedSite is a site on which any editor can take a lock over at once.
func newUnprotectedSite(t *testing.T) *site {
	t.Helper()
	return newSiteOn(t, embeddedRedis(t), services.ProcessesOptions{Protection: time.Nanosecond})
}

func embeddedRedis(t *testing.T) redis.Options {
	t.Helper()
	server, err := embedded.Start()
	check(t, err)
	t.Cleanup(server.Close)
	return redis.Options{Client: server.ClientOption(), Embedded: true, Timeout: time.Minute} // it never hangs
}

// newSiteWithoutRedis starts a site with Redis switched off.
func newSiteWithoutRedis(t *testing.T) *site {
	t.Helper()
	return newSiteOn(t, redis.Options{Disabled: true}, services.ProcessesOptions{})
}

func newSiteOn(t *testing.T, rdb redis.Options, opt services.ProcessesOptions) *site {
	t.Helper()
	path := newDatabase(t)
	db, err := store.Open(t.Context(), store.Options{URL: path, Timeout: servicestest.Patience})
	check(t, err)
	t.Cleanup(func() { _ = db.Close() })
	quiet := slog.New(slog.DiscardHandler)
	rdb.Logger = quiet
	r := redis.New(rdb)
	t.Cleanup(func() { _ = r.Close(context.Background()) })
	r.WaitReady(t.Context())

	policy := func(name string) models.Policy { return models.Policy{Name: name, Limit: 500, Window: time.Minute} }
	limiter := ratelimit.New(r, ratelimit.Options{Logger: quiet})
	locks := lock.New(r, lock.Options{OnRedisDown: models.OnRedisDownOpen, Logger: quiet})
	sessions, err := session.NewCache(r, db, session.Options{Logger: quiet})
	check(t, err)
	t.Cleanup(func() { _ = sessions.Close(context.Background()) })
	accounts := services.NewAccounts(db, sessions, locks, limiter, services.AccountsOptions{
		LoginByIP: policy("login-ip"), LoginByAccount: models.Policy{Name: "login-account", Limit: 5, Window: time.Minute}, Logger: quiet,
	})
	secret := strings.Repeat("s", 32)
	tokens, err := lock.NewTokenSigner([]string{secret})
	check(t, err)
	recorder := services.NewRecorder(db, quiet)
	t.Cleanup(func() { _ = recorder.Close(context.Background()) })
	opt.Ends, opt.Logger = recorder, quiet
	processes, err := services.NewProcesses(db, locks, tokens, []string{secret}, opt)
	check(t, err)
	pages, err := templates.New()
	check(t, err)
	s := &site{db: db, path: path, router: gin.New(), Options: handlers.Options{
		Processes: processes, Locks: locks, Accounts: accounts, Recorder: recorder, Sessions: sessions, Limiter: limiter, Redis: r, Database: db, Pages: pages,
		Cookie: middleware.NewSessionStore(sessions, middleware.SessionStoreOptions{Name: "gatehouse"}), Metrics: http.NotFoundHandler(),
		PublicURL: "http://gate.example", API: policy("api"), Anonymous: policy("anonymous"),
	}}
	s.handlers = handlers.New(s.Options)
	s.router.HandleMethodNotAllowed, s.router.RedirectTrailingSlash = true, false
	s.router.Use(middleware.RequestID(), middleware.SecurityHeaders(false))
	s.handlers.Register(s.router)
	return s
}

// newDatabase is a database with an administrator, two editors and a viewer. Their password has a
// hash that is checked quickly, until its user signs in.
var newDatabase = servicestest.Copies(func(path string) error {
	gin.SetMode(gin.TestMode)
	db := must(store.Open(context.Background(), store.Options{URL: path, Timeout: servicestest.Patience}))
	hash := servicestest.QuickHash(password)
	for _, user := range [][2]string{{"admin@example.com", "admin"}, {"ann@example.com", "editor"}, {"bob@example.com", "editor"}, {"vic@example.com", "viewer"}} {
		must(db.CreateUser(context.Background(), user[0], hash, []string{user[1]}))
	}
	return db.Close()
})

// must returns the value of a call that has to work.
func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// user is who has the address.
func (s *site) user(t *testing.T, email string) models.UserRef {
	t.Helper()
	return s.newSession(t, email).User
}

// newSession is a session of a user that has not begun.
func (s *site) newSession(t *testing.T, email string) models.Session {
	t.Helper()
	who, err := s.db.Credentials(t.Context(), email)
	check(t, err)
	return models.Session{User: models.UserRef{ID: who.ID, Email: who.Email}, Roles: who.Roles, Epoch: who.Epoch, UserAgent: "test", IP: "192.0.2.1"}
}

// begin begins a session without the work of checking a password.
func (s *site) begin(t *testing.T, session models.Session) (token string) {
	t.Helper()
	token, _, err := s.Sessions.Create(t.Context(), session)
	check(t, err)
	return token
}

func (s *site) token(t *testing.T, email string) string {
	t.Helper()
	return s.begin(t, s.newSession(t, email))
}

// browser keeps the session's cookie, and those of locks, which are for the pages of a process.
type browser struct {
	t      *testing.T
	site   *site
	cookie *http.Cookie
	locks  map[string]*http.Cookie
	came   map[string]int // in which order
	agent  string
}

func (s *site) browser(t *testing.T) *browser { return &browser{t: t, site: s, agent: "test"} }

// signedIn is a browser in which a user has signed in.
func (s *site) signedIn(t *testing.T, email string) *browser {
	t.Helper()
	return s.with(t, s.token(t, email))
}

// with is a browser that has the token of a session.
func (s *site) with(t *testing.T, token string) *browser {
	b := s.browser(t)
	b.cookie = &http.Cookie{Name: s.Cookie.CookieName(), Value: token}
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
	byAge := func(x, y string) int { return cmp.Compare(b.came[x], b.came[y]) }
	for _, name := range slices.SortedFunc(maps.Keys(b.locks), byAge) { // as browsers do
		cookie := b.locks[name]
		if r.URL.Path == cookie.Path || strings.HasPrefix(r.URL.Path, cookie.Path+"/") {
			r.AddCookie(cookie)
		}
	}
	w := httptest.NewRecorder()
	b.site.router.ServeHTTP(w, r)
	for _, cookie := range w.Result().Cookies() {
		b.keep(cookie)
	}
	return w
}

func (b *browser) keep(cookie *http.Cookie) {
	switch gone := cookie.MaxAge < 0; {
	case cookie.Name != b.site.Cookie.CookieName():
		if b.locks == nil {
			b.locks = map[string]*http.Cookie{}
		}
		if b.came == nil {
			b.came = map[string]int{}
		}
		b.came[cookie.Name] = cmp.Or(b.came[cookie.Name], len(b.came)+1)
		b.locks[cookie.Name] = cookie
		if gone {
			delete(b.locks, cookie.Name)
		}
	case gone:
		b.cookie = nil
	default:
		b.cookie = cookie
	}
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
	sendsTo(t, w, "/")
}

func sendsTo(t *testing.T, w *httptest.ResponseRecorder, path string) {
	t.Helper()
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != path {
		t.Fatalf("%d to %q, want 303 to %s: %s", w.Code, w.Header().Get("Location"), path, w.Body)
	}
}
