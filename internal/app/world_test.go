package app

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"gatehouse/internal/config"
	"gatehouse/models"
	"gatehouse/services/servicestest"
	"gatehouse/services/store"
)

// startApp is the whole application in this process with its demo, embedded, without a socket:
// requests go straight to its handler. env changes the configuration.
func startApp(t testing.TB, env map[string]string) *app {
	t.Helper()
	return startAppOn(t, io.Discard, env)
}

// startAppOn is startApp with the application's log and greeting.
func startAppOn(t testing.TB, stdout io.Writer, env map[string]string) *app {
	t.Helper()
	a := begin(t, stdout, env)
	if env["REDIS_ENABLED"] != "false" {
		a.available(t, true)
	}
	return a
}

// startCutOff is startApp with a Redis that is not there.
func startCutOff(t testing.TB, env map[string]string) *app {
	t.Helper()
	cutOff := map[string]string{"REDIS_URL": "redis://" + servicestest.FreeAddr(t)}
	maps.Copy(cutOff, env)
	return begin(t, io.Discard, cutOff)
}

// begin starts the application with timeouts that no busy machine reaches.
func begin(t testing.TB, stdout io.Writer, env map[string]string) *app {
	t.Helper()
	servicestest.MeasureDisk()
	all := map[string]string{
		"ADDR": "127.0.0.1:0", "LOG_LEVEL": "error", "RATE_LIMIT_MAX": "1000000", "LOGIN_RATE_LIMIT_MAX": "1000000",
		"DATABASE_TIMEOUT": "1m", "REDIS_TIMEOUT": "1m",
	}
	if env["DATABASE_URL"] == "" {
		all["DATABASE_URL"] = newDatabase(t)
	}
	maps.Copy(all, env)
	a, err := start(t.Context(), stdout, all)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = a.listener.Close()
		if err := a.close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

func start(ctx context.Context, stdout io.Writer, env map[string]string) (*app, error) {
	cfg, err := config.Load(func(name string) string { return env[name] }, "")
	if err != nil {
		return nil, err
	}
	return newApp(ctx, cfg, stdout)
}

// newDatabase is a database of this test with the demo in it, as a first start leaves it. The
// passwords get hashes that are checked quickly, until their user signs in.
var newDatabase = servicestest.Copies(func(path string) error {
	a, err := start(context.Background(), io.Discard, map[string]string{"ADDR": "127.0.0.1:0", "DATABASE_URL": path, "DATABASE_TIMEOUT": "1m"})
	if err != nil {
		return err
	}
	hash, db := servicestest.QuickHash(demoPassword), a.handlers.Database.(*store.Store)
	for _, user := range demoUsers() {
		known, err := db.Credentials(context.Background(), user.email)
		if err == nil {
			_, err = db.UpdateUser(context.Background(), known.ID, models.UserPatch{PasswordHash: &hash})
		}
		if err != nil {
			return err
		}
	}
	return a.close()
})

func (a *app) do(method, path, body string, headers ...string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(method, "http://127.0.0.1/", strings.NewReader(body))
	// Any bytes, where a client would refuse them.
	r.RequestURI = path
	r.URL.Path, r.URL.RawQuery, _ = strings.Cut(path, "?")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	a.server.Handler.ServeHTTP(w, r)
	return w
}

// api sends JSON to a route of the API, as who has the token.
func (a *app) api(token, method, path, body string, headers ...string) *httptest.ResponseRecorder {
	return a.do(method, "/api/v1"+path, body, append([]string{"Authorization", "Bearer " + token, "Content-Type", "application/json"}, headers...)...)
}

// decoded is a JSON answer, which must have the status.
func decoded[T any](t testing.TB, w *httptest.ResponseRecorder, status int) (answer T) {
	t.Helper()
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != status {
		t.Fatalf("%d %s, %v; want %d", w.Code, w.Body, err, status)
	}
	return answer
}

// signIn begins a session of a user without the work of checking a password.
func (a *app) signIn(t testing.TB, email string) (token string) {
	t.Helper()
	user, err := a.handlers.Database.(*store.Store).Credentials(t.Context(), email)
	if err != nil {
		t.Fatal(err)
	}
	token, _, err = a.handlers.Sessions.Create(t.Context(), models.Session{
		User: models.UserRef{ID: user.ID, Email: user.Email}, Roles: user.Roles, Epoch: user.Epoch, UserAgent: "test", IP: "192.0.2.1",
	})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// login signs in with the password of the demo, or another.
func (a *app) login(email, password string, headers ...string) *httptest.ResponseRecorder {
	body := `{"email":"` + email + `","password":"` + password + `"}`
	return a.do(http.MethodPost, "/api/v1/auth/login", body, append([]string{"Content-Type", "application/json"}, headers...)...)
}

// waits returns when one request waits for the lock of a process.
func (a *app) waits(t testing.TB, token, id string) {
	t.Helper()
	servicestest.Eventually(t, func() bool {
		return decoded[struct{ Waiting int }](t, a.api(token, http.MethodGet, "/processes/"+id+"/lock/status", ""), http.StatusOK).Waiting == 1
	}, "nobody waits for process "+id)
}

// available waits until the application uses Redis, or does without.
func (a *app) available(t testing.TB, want bool) {
	t.Helper()
	servicestest.Eventually(t, func() bool { return a.handlers.Redis.Available() == want }, "Redis counts as available, or not, for ever")
}

// route is a registered route, and a path that it serves.
type route struct{ method, pattern, path string }

func (r route) String() string { return r.method + " " + r.pattern }

// isSafe reports whether a request may change nothing (RFC 9110).
func (r route) isSafe() bool { return r.method == http.MethodGet || r.method == http.MethodHead }

// ends reports whether the route ends the session that it is called with.
func (r route) ends() bool { return strings.HasSuffix(r.pattern, "/logout") }

// streams reports whether the route answers until the client leaves.
func (r route) streams() bool { return strings.HasSuffix(r.pattern, "/events") }

// routes are all routes. Each parameter of a path is id.
func (a *app) routes(id string) (all []route) {
	parameter := regexp.MustCompile(`[:*][a-z]+`)
	for _, r := range a.server.Handler.(*gin.Engine).Routes() {
		all = append(all, route{r.Method, r.Path, parameter.ReplaceAllString(r.Path, id)})
	}
	return all
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
