package middleware_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/redis/rueidis"

	"gatehouse/middleware"
	"gatehouse/models"
	"gatehouse/services/lock"
	"gatehouse/services/redis"
	"gatehouse/services/servicestest"
)

// lockApp is another application's route under a lock, on a real Redis.
type lockApp struct {
	*gin.Engine
	server *servicestest.RedisServer
	locks  *lock.Locker
	tokens *lock.Tokens
	ran    int // how often the handler did
}

// newLockApp takes the user from a header, as if it had signed in.
func newLockApp(t *testing.T, onRedisDown models.OnRedisDown) *lockApp {
	t.Helper()
	app := &lockApp{Engine: gin.New(), server: servicestest.StartRedis(t)}
	rdb := redis.New(redis.Options{
		Client: rueidis.ClientOption{InitAddress: []string{app.server.Addr}}, Timeout: servicestest.Patience, Logger: slog.New(slog.DiscardHandler),
	})
	t.Cleanup(func() { _ = rdb.Close(context.Background()) })
	rdb.WaitReady(t.Context())
	app.locks = lock.New(rdb, lock.Options{OnRedisDown: onRedisDown})
	signer, err := lock.NewTokenSigner([]string{strings.Repeat("s", 32)})
	if err != nil {
		t.Fatal(err)
	}
	app.tokens = lock.NewTokens(app.locks, signer)
	app.PUT("/orders/:id", middleware.RequireLock(app.tokens, middleware.LockOptions{
		Resource: func(c *gin.Context) string { return "order:" + c.Param("id") },
		User:     func(c *gin.Context) string { return c.GetHeader("User") },
	}), func(c *gin.Context) {
		app.ran++
		held, ok := middleware.LockFrom(c)
		if !ok || held.Fence == nil {
			t.Errorf("the handler got %+v, %t", held, ok)
			return
		}
		c.String(http.StatusOK, "%s %d", held.Resource, *held.Fence)
	})
	return app
}

// lock takes a lock for a user, and its token.
func (app *lockApp) lock(t *testing.T, resource, user string) (lock.Lock, string) {
	t.Helper()
	held, err := app.locks.TryAcquire(t.Context(), lock.Request{Resource: resource, Holder: models.Holder{UserID: user, Email: user + "@example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	token, err := app.tokens.Sign(held, user, 0)
	if err != nil {
		t.Fatal(err)
	}
	return held, token
}

func (app *lockApp) put(path, user, token string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPut, path, nil)
	r.Header.Set("User", user)
	if token != "" {
		r.Header.Set("X-Lock-Token", token)
	}
	w := httptest.NewRecorder()
	app.ServeHTTP(w, r)
	return w
}

// wantProblem checks the answer and returns its members.
func wantProblem(t *testing.T, w *httptest.ResponseRecorder, status int, name string) map[string]any {
	t.Helper()
	var got map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != status || got["type"] != "/problems/"+name {
		t.Fatalf("%d %s, want %d %s", w.Code, w.Body, status, name)
	}
	return got
}

func TestRequireLock(t *testing.T) {
	app := newLockApp(t, models.OnRedisDownClosed)
	held, token := app.lock(t, "order:1", "alice")
	for range 2 { // it is no ticket for one request
		if w := app.put("/orders/1", "alice", token); w.Code != http.StatusOK || w.Body.String() != fmt.Sprintf("order:1 %d", *held.Fence) {
			t.Fatalf("the holder: %d %s", w.Code, w.Body)
		}
	}
	_, others := app.lock(t, "order:2", "alice")
	app.ran = 0
	wantProblem(t, app.put("/orders/1", "alice", ""), http.StatusPreconditionRequired, "lock-token-required")
	for name, w := range map[string]*httptest.ResponseRecorder{
		"another user":           app.put("/orders/1", "bob", token),
		"no user":                app.put("/orders/1", "", token),
		"another resource's":     app.put("/orders/1", "alice", others),
		"forged":                 app.put("/orders/1", "alice", token[:len(token)-1]+"!"),
		"the grant's own secret": app.put("/orders/1", "alice", held.Token),
	} {
		t.Run(name, func(t *testing.T) {
			got := wantProblem(t, w, http.StatusConflict, "lock-not-held")
			holder, _ := got["holder"].(map[string]any)
			if got["isLocked"] != true || holder["email"] != "alice@example.com" {
				t.Errorf("%v", got)
			}
		})
	}
	if got := wantProblem(t, app.put("/orders/3", "alice", token), http.StatusConflict, "lock-not-held"); got["isLocked"] != false || got["holder"] != nil {
		t.Errorf("the lock is free: %v", got)
	}

	if _, err := app.locks.Release(t.Context(), held.Claim); err != nil {
		t.Fatal(err)
	}
	if got := wantProblem(t, app.put("/orders/1", "alice", token), http.StatusConflict, "lock-not-held"); got["isLocked"] != false {
		t.Errorf("after the release: %v", got)
	}
	app.lock(t, "order:1", "bob")
	got := wantProblem(t, app.put("/orders/1", "alice", token), http.StatusConflict, "lock-not-held")
	if holder, _ := got["holder"].(map[string]any); got["isLocked"] != true || holder["userId"] != "bob" {
		t.Errorf("after the next one took it: %v", got)
	}
	if app.ran != 0 {
		t.Errorf("the handler ran %d times", app.ran)
	}
}

func TestRequireLockWithoutRedis(t *testing.T) {
	for _, row := range []struct {
		policy models.OnRedisDown
		check  func(t *testing.T, w *httptest.ResponseRecorder)
	}{
		{models.OnRedisDownClosed, func(t *testing.T, w *httptest.ResponseRecorder) {
			wantProblem(t, w, http.StatusServiceUnavailable, "unavailable")
			if w.Header().Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
		}},
		{models.OnRedisDownOpen, func(t *testing.T, w *httptest.ResponseRecorder) {
			if w.Code != http.StatusOK || w.Header().Get("X-Degraded") != "locks" {
				t.Errorf("%d %s %v", w.Code, w.Body, w.Header())
			}
		}},
	} {
		t.Run(string(row.policy), func(t *testing.T) {
			app := newLockApp(t, row.policy)
			_, token := app.lock(t, "order:1", "alice")
			app.server.Kill()
			row.check(t, app.put("/orders/1", "alice", token))
			wantProblem(t, app.put("/orders/1", "alice", ""), http.StatusPreconditionRequired, "lock-token-required")
			if row.policy == models.OnRedisDownOpen {
				w := app.put("/orders/1", "bob", token)
				wantProblem(t, w, http.StatusConflict, "lock-not-held")
				if w.Header().Get("X-Degraded") != "locks" {
					t.Error("refused without Redis, and does not say so")
				}
			}
		})
	}
}

// TestRequireLockOfTheSession: the user is the signed-in one if nothing else is said.
func TestRequireLockOfTheSession(t *testing.T) {
	app := newLockApp(t, models.OnRedisDownClosed)
	fake := newFakeSessions()
	other := gin.New()
	other.GET("/", middleware.LoadSession(fake, "gatehouse"), middleware.RequireLock(app.tokens, middleware.LockOptions{
		Resource: func(*gin.Context) string { return "order:1" },
	}), func(c *gin.Context) { c.Status(http.StatusNoContent) })
	_, token := app.lock(t, "order:1", "7") // whom the fake signs in
	bearer := "Bearer " + fake.signIn(models.RoleEditor)
	if w := ask(other, "/", "Authorization", bearer, "X-Lock-Token", token); w.Code != http.StatusNoContent {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	wantProblem(t, ask(other, "/", "X-Lock-Token", token), http.StatusConflict, "lock-not-held")
}

// A lock that another user holds is refused as on the routes of gatehouse: with its holder,
// and the time left.
func TestRefuseLockThatAnotherHolds(t *testing.T) {
	status := models.LockStatus{
		Resource: "order:1", Held: true, Degraded: true, TTL: 2500 * time.Millisecond, Holder: models.Holder{UserID: "7", Email: "bob@example.com"},
	}
	app := gin.New()
	app.GET("/", func(c *gin.Context) {
		middleware.RefuseLock(c, fmt.Errorf("acquire: %w", &models.NotAcquiredError{Status: status}))
	})
	w := ask(app, "/")
	got := wantProblem(t, w, http.StatusLocked, "locked")
	holder, _ := got["holder"].(map[string]any)
	if holder["email"] != "bob@example.com" || got["expiresIn"] != 3.0 {
		t.Errorf("%v", got)
	}
	wantHeaders(t, w, map[string]string{"Retry-After": "2", "X-Degraded": "locks"})
}

func TestRefuseLock(t *testing.T) {
	for _, row := range []struct {
		err    error
		status int
		name   string
	}{
		{fmt.Errorf("admit a write: %w", models.ErrNotHeld), http.StatusConflict, "lock-not-held"},
		{fmt.Errorf("admit a write: %w", models.ErrUnavailable), http.StatusServiceUnavailable, "unavailable"},
		{errors.New("whatever"), http.StatusServiceUnavailable, "unavailable"},
		{&models.NotAcquiredError{Status: models.LockStatus{TTL: time.Second}}, http.StatusLocked, "locked"},
	} {
		app := gin.New()
		app.GET("/", func(c *gin.Context) {
			if _, ok := middleware.LockFrom(c); ok {
				t.Error("a lock without RequireLock")
			}
			middleware.RefuseLock(c, row.err)
		})
		if got := wantProblem(t, ask(app, "/"), row.status, row.name); got["isLocked"] != nil || strings.Contains(fmt.Sprint(got), row.err.Error()) {
			t.Errorf("%v: %v", row.err, got)
		}
	}
}
