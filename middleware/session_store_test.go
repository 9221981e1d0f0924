package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-contrib/sessions"
	"github.com/gin-contrib/sessions/tester"
	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/session"
	"gatehouse/services/store"
)

func contains(w *httptest.ResponseRecorder, text string) bool {
	return strings.Contains(w.Body.String(), text)
}

// realSessions is the session cache on a database, without Redis.
func realSessions(t *testing.T) *session.Cache {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	db, err := store.Open(t.Context(), store.Options{URL: filepath.Join(t.TempDir(), "sessions.db"), Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	rdb := redis.New(redis.Options{Disabled: true, Logger: quiet})
	cache, err := session.NewCache(rdb, db, session.Options{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.Background()
		if err := errors.Join(cache.Close(ctx), rdb.Close(ctx), db.Close()); err != nil {
			t.Error(err)
		}
	})
	return cache
}

// The suite that gin-contrib holds its own stores to.
func TestSessionStorePassesTheSuiteOfGinContrib(t *testing.T) {
	gin.SetMode(gin.TestMode)
	backends := map[string]func(*testing.T) middleware.SessionBackend{
		"memory":   func(*testing.T) middleware.SessionBackend { return newFakeSessions() },
		"database": func(t *testing.T) middleware.SessionBackend { return realSessions(t) },
	}
	for name, backend := range backends {
		newStore := func(t *testing.T) sessions.Store {
			return middleware.NewSessionStore(backend(t), middleware.SessionStoreOptions{})
		}
		t.Run(name, func(t *testing.T) {
			t.Run("GetSet", func(t *testing.T) { tester.GetSet(t, newStore) })
			t.Run("DeleteKey", func(t *testing.T) { tester.DeleteKey(t, newStore) })
			t.Run("Flashes", func(t *testing.T) { tester.Flashes(t, newStore) })
			t.Run("Clear", func(t *testing.T) { tester.Clear(t, newStore) })
			t.Run("Options", func(t *testing.T) { tester.Options(t, newStore) })
			t.Run("Many", func(t *testing.T) { tester.Many(t, newStore) })
		})
	}
}

// storeApp sets, reads and ends values of one session.
func storeApp(mount func(string, sessions.Store) gin.HandlerFunc, store *middleware.SessionStore) *gin.Engine {
	gin.SetMode(gin.TestMode)
	app := gin.New()
	app.Use(gin.CustomRecoveryWithWriter(io.Discard, func(c *gin.Context, _ any) { c.AbortWithStatus(500) }))
	app.Use(mount(store.CookieName(), store))
	app.GET("/get", func(c *gin.Context) { c.String(200, "%v", sessions.Default(c).Get(c.Query("key"))) })
	app.GET("/set", func(c *gin.Context) {
		current := sessions.Default(c)
		current.Set(c.Query("key"), c.Query("value"))
		if err := current.Save(); err != nil {
			c.String(409, "%v", err)
		}
	})
	app.GET("/end", func(c *gin.Context) {
		current := sessions.Default(c)
		current.Options(sessions.Options{Path: "/", MaxAge: -1})
		if err := current.Save(); err != nil {
			c.String(500, "%v", err)
		}
	})
	return app
}

func cookieOf(t *testing.T, w *httptest.ResponseRecorder) *http.Cookie {
	t.Helper()
	cookies := w.Result().Cookies()
	if len(cookies) != 1 {
		t.Fatalf("%d cookies: %v", len(cookies), w.Header()["Set-Cookie"])
	}
	return cookies[0]
}

func TestSessionStoreCookie(t *testing.T) { synctest.Test(t, testSessionStoreCookie) }

func testSessionStoreCookie(t *testing.T) {
	store := middleware.NewSessionStore(newFakeSessions(), middleware.SessionStoreOptions{Name: "gatehouse", Secure: true})
	cookie := cookieOf(t, ask(storeApp(middleware.Sessions, store), "/set?key=a&value=b"))
	if cookie.Name != "__Host-gatehouse" || cookie.Path != "/" || !cookie.Secure || !cookie.HttpOnly || cookie.SameSite != http.SameSiteLaxMode || cookie.Domain != "" {
		t.Errorf("cookie = %v", cookie)
	}
	w := httptest.NewRecorder()
	store.SetCookie(w, "secret", time.Now().Add(time.Hour))
	if c := cookieOf(t, w); c.Name != "__Host-gatehouse" || c.Value != "secret" || c.MaxAge != 3600 || !c.Secure || !c.HttpOnly || c.Path != "/" {
		t.Errorf("set: %v", c)
	}
	w = httptest.NewRecorder()
	store.ClearCookie(w)
	if c := cookieOf(t, w); c.MaxAge >= 0 || c.Value != "" || c.Name != "__Host-gatehouse" {
		t.Errorf("clear: %v", c)
	}
	if name := middleware.NewSessionStore(newFakeSessions(), middleware.SessionStoreOptions{Name: "gatehouse"}).CookieName(); name != "gatehouse" {
		t.Errorf("name without https = %q", name)
	}
}

func TestSessionStoreKeepsValuesInTheSignIn(t *testing.T) {
	fake := newFakeSessions()
	store := middleware.NewSessionStore(fake, middleware.SessionStoreOptions{})
	app := storeApp(middleware.Sessions, store)
	token := fake.signIn(models.RoleViewer)
	w := ask(app, "/set?key=a&value=b", "Cookie", "session="+token)
	if w.Code != 200 || len(w.Result().Cookies()) != 0 || fake.count() != 1 {
		t.Errorf("%d, cookies %v, %d sessions", w.Code, w.Result().Cookies(), fake.count())
	}
	if w := ask(app, "/get?key=a", "Cookie", "session="+token); w.Body.String() != "b" {
		t.Errorf("get = %s", w.Body)
	}
	w = ask(app, "/end", "Cookie", "session="+token)
	if c := cookieOf(t, w); c.MaxAge >= 0 || fake.count() != 0 {
		t.Errorf("cookie %v, %d sessions left", c, fake.count())
	}
}

func TestSessionStoreDoesNotBeginAnEmptySession(t *testing.T) {
	fake := newFakeSessions()
	app := storeApp(middleware.Sessions, middleware.NewSessionStore(fake, middleware.SessionStoreOptions{}))
	if w := ask(app, "/get?key=a", "Cookie", "session=unknown"); w.Code != 200 || fake.count() != 0 || len(w.Result().Cookies()) != 0 {
		t.Errorf("%d %s, %d sessions", w.Code, w.Body, fake.count())
	}
}

func TestSessionStoreNeverRevives(t *testing.T) {
	fake := newFakeSessions()
	store := middleware.NewSessionStore(fake, middleware.SessionStoreOptions{})
	token := fake.signIn(models.RoleViewer)
	gin.SetMode(gin.TestMode)
	app := gin.New()
	app.Use(middleware.Sessions(store.CookieName(), store))
	app.GET("/", func(c *gin.Context) {
		current := sessions.Default(c)
		current.Set("a", "b")
		_ = fake.Delete(t.Context(), token) // signed out elsewhere in between
		if err := current.Save(); !errors.Is(err, models.ErrNotFound) {
			t.Errorf("save: %v", err)
		}
	})
	w := ask(app, "/", "Cookie", "session="+token)
	if fake.count() != 0 || len(w.Result().Cookies()) != 0 {
		t.Errorf("%d sessions, cookies %v", fake.count(), w.Result().Cookies())
	}
}

func TestSessionStoreWhenTheBackendFails(t *testing.T) {
	fake := newFakeSessions()
	store := middleware.NewSessionStore(fake, middleware.SessionStoreOptions{})
	token := fake.signIn(models.RoleViewer)
	fake.gone = true
	w := ask(storeApp(middleware.Sessions, store), "/get?key=a", "Cookie", "session="+token)
	if w.Code != 503 || !contains(w, `"/problems/unavailable"`) || w.Header().Get("Retry-After") == "" {
		t.Errorf("ours: %d %s", w.Code, w.Body)
	}
	// The original cannot answer 503, but it must not hand over an empty session.
	for _, path := range []string{"/get?key=a", "/set?key=a&value=b", "/end"} {
		if w := ask(storeApp(sessions.Sessions, store), path, "Cookie", "session="+token); w.Code != 500 {
			t.Errorf("original, %s: %d %s", path, w.Code, w.Body)
		}
	}
}

// Concurrent writers of one session, each of a value of its own: each value is kept, or its request
// gets 409. A Save is refused only if 10 others came in between, one for each of its tries.
func TestSessionStoreConcurrentWriters(t *testing.T) {
	const tries = 10
	backends := map[string]middleware.SessionBackend{"memory": newFakeSessions(), "database": realSessions(t)}
	for name, backend := range backends {
		app := storeApp(middleware.Sessions, middleware.NewSessionStore(backend, middleware.SessionStoreOptions{}))
		for _, writers := range []int{tries, 40} {
			t.Run(fmt.Sprintf("%s, %d writers", name, writers), func(t *testing.T) {
				cookie := "session=" + cookieOf(t, ask(app, "/set?key=first&value=1")).Value
				get := func(key string) string { return ask(app, "/get?key="+key, "Cookie", cookie).Body.String() }
				var wg sync.WaitGroup
				refused := make([]bool, writers)
				for n := range refused {
					wg.Go(func() {
						refused[n] = ask(app, fmt.Sprintf("/set?key=k%d&value=v", n), "Cookie", cookie).Code == 409
					})
				}
				wg.Wait()
				kept := 0
				for n := range refused {
					got := get(fmt.Sprintf("k%d", n))
					if (got == "v") == refused[n] {
						t.Errorf("writer %d: refused %v, value %q", n, refused[n], got)
					}
					if got == "v" {
						kept++
					}
				}
				if kept < tries || get("first") != "1" {
					t.Errorf("%d kept, want %d at least; or the first value lost", kept, tries)
				}
			})
		}
	}
}

func TestSessionStoreMergesByKey(t *testing.T) {
	fake := newFakeSessions()
	store := middleware.NewSessionStore(fake, middleware.SessionStoreOptions{})
	app := storeApp(middleware.Sessions, store)
	cookie := "session=" + cookieOf(t, ask(app, "/set?key=a&value=1")).Value
	race := func(mine func(sessions.Session), theirs string) error {
		var err error
		both := gin.New()
		both.Use(middleware.Sessions(store.CookieName(), store))
		both.GET("/", func(c *gin.Context) {
			current := sessions.Default(c)
			mine(current)
			ask(app, theirs, "Cookie", cookie)
			err = current.Save()
		})
		ask(both, "/", "Cookie", cookie)
		return err
	}
	get := func(key string) string { return ask(app, "/get?key="+key, "Cookie", cookie).Body.String() }

	if err := race(func(s sessions.Session) { s.Set("b", "2") }, "/set?key=c&value=3"); err != nil || get("a")+get("b")+get("c") != "123" {
		t.Errorf("different keys: %v, %s%s%s", err, get("a"), get("b"), get("c"))
	}
	if err := race(func(s sessions.Session) { s.Set("a", "mine") }, "/set?key=a&value=theirs"); !errors.Is(err, models.ErrStale) || get("a") != "theirs" {
		t.Errorf("same key: %v, %s", err, get("a"))
	}
	if err := race(func(s sessions.Session) { s.Set("a", "same") }, "/set?key=a&value=same"); err != nil || get("a") != "same" {
		t.Errorf("same key, same value: %v, %s", err, get("a"))
	}
	if err := race(func(s sessions.Session) { s.Delete("a") }, "/set?key=d&value=4"); err != nil || get("a") != "<nil>" || get("d") != "4" {
		t.Errorf("deleted key: %v, %s %s", err, get("a"), get("d"))
	}
}

// overtaken is a backend in which another request stores between a write and what SaveData reads
// back of it.
type overtaken struct {
	*fakeSessions
	other func(saved models.Session) models.Session
}

func (o *overtaken) SaveData(ctx context.Context, s models.Session, data []byte) (models.Session, error) {
	saved, err := o.fakeSessions.SaveData(ctx, s, data)
	if other := o.other; err == nil && other != nil {
		o.other = nil
		saved = other(saved)
	}
	return saved, err
}

// What another request stored after the first Save is not lost in the second one of a request.
func TestSessionStoreSavesTwice(t *testing.T) {
	backend := &overtaken{fakeSessions: newFakeSessions()}
	store := middleware.NewSessionStore(backend, middleware.SessionStoreOptions{})
	app := storeApp(middleware.Sessions, store)
	cookie := "session=" + cookieOf(t, ask(app, "/set?key=first&value=0")).Value
	app.GET("/twice", func(c *gin.Context) {
		current := sessions.Default(c)
		for _, key := range []string{"a", "c"} {
			current.Set(key, key)
			if err := current.Save(); err != nil {
				t.Errorf("save %s: %v", key, err)
			}
		}
	})
	backend.other = func(saved models.Session) models.Session {
		ask(app, "/set?key=b&value=b", "Cookie", cookie)
		return backend.sessions[saved.Hash]
	}
	ask(app, "/twice", "Cookie", cookie)
	get := func(key string) string { return ask(app, "/get?key="+key, "Cookie", cookie).Body.String() }
	if got := get("first") + get("a") + get("b") + get("c"); got != "0abc" {
		t.Errorf("stored are %s", got)
	}
}

func TestSessionStoreRefusesWhatItCannotKeep(t *testing.T) {
	store := middleware.NewSessionStore(newFakeSessions(), middleware.SessionStoreOptions{})
	gin.SetMode(gin.TestMode)
	app := gin.New()
	app.Use(middleware.Sessions(store.CookieName(), store))
	app.GET("/", func(c *gin.Context) {
		for name, value := range map[string]any{"too large": strings.Repeat("x", 70_000), "not registered": struct{ A int }{1}} {
			current := sessions.Default(c)
			current.Clear()
			current.Set("key", value)
			if err := current.Save(); err == nil {
				t.Errorf("%s: saved", name)
			}
		}
	})
	ask(app, "/")
}
