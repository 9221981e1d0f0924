package app

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"gatehouse/internal/config"
)

// startApp is the whole application in this process, embedded, without a socket:
// requests go straight to its handler. env changes the configuration.
func startApp(t testing.TB, env map[string]string) *app {
	t.Helper()
	return startAppOn(t, io.Discard, env)
}

// startAppOn is startApp with the application's log and greeting.
func startAppOn(t testing.TB, stdout io.Writer, env map[string]string) *app {
	t.Helper()
	all := map[string]string{
		"ADDR": "127.0.0.1:0", "DATABASE_URL": filepath.Join(t.TempDir(), "test.db"), "LOG_LEVEL": "error",
		"RATE_LIMIT_MAX": "1000000", "LOGIN_RATE_LIMIT_MAX": "1000000",
	}
	for name, value := range env {
		all[name] = value
	}
	cfg, err := config.Load(func(name string) string { return all[name] }, "")
	if err != nil {
		t.Fatal(err)
	}
	a, err := newApp(t.Context(), cfg, stdout)
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

func (a *app) signIn(t testing.TB, email string) string {
	t.Helper()
	w := a.do(http.MethodPost, "/api/v1/auth/login", `{"email":"`+email+`","password":"`+demoPassword+`"}`, "Content-Type", "application/json")
	var answer struct{ Token string }
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != http.StatusOK {
		t.Fatalf("sign in as %s: %d %s", email, w.Code, w.Body)
	}
	return answer.Token
}

// waiting is how many wait for the lock of a process.
func (a *app) waiting(t testing.TB, token, id string) int {
	t.Helper()
	w := a.do(http.MethodGet, "/api/v1/processes/"+id+"/lock/status", "", "Authorization", "Bearer "+token)
	var answer struct{ Waiting int }
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != http.StatusOK {
		t.Fatalf("status of process %s: %d %s", id, w.Code, w.Body)
	}
	return answer.Waiting
}

func TestEveryRouteIsDocumentedAndNothingElse(t *testing.T) {
	a := startApp(t, nil)
	parameter := regexp.MustCompile(`:([a-z]+)`)
	var routes []string
	for _, route := range a.server.Handler.(*gin.Engine).Routes() {
		if path, ok := strings.CutPrefix(route.Path, "/api/v1"); ok {
			routes = append(routes, strings.ToLower(route.Method)+" "+parameter.ReplaceAllString(path, "{$1}"))
		}
	}
	text, err := os.ReadFile("../../docs/swagger.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]struct {
			Security []map[string]any
			Summary  string
		}
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	var documented []string
	for path, methods := range doc.Paths {
		for method, operation := range methods {
			documented = append(documented, method+" "+path)
			if operation.Summary == "" || (len(operation.Security) == 0 && path != "/auth/login") {
				t.Errorf("%s %s: no summary or no security scheme", method, path)
			}
		}
	}
	slices.Sort(routes)
	slices.Sort(documented)
	if !slices.Equal(routes, documented) {
		t.Errorf("routes:\n%s\ndocumented:\n%s", strings.Join(routes, "\n"), strings.Join(documented, "\n"))
	}
}

// Whatever route reads JSON refuses a name that is there twice, and says which.
func TestEveryBodyRefusesANameTwice(t *testing.T) {
	a := startApp(t, nil)
	headers := []string{"Authorization", "Bearer " + a.signIn(t, "admin@example.com"), "Content-Type", "application/json"}
	parameter, found := regexp.MustCompile(`[:*][a-z]+`), 0
	for _, route := range a.server.Handler.(*gin.Engine).Routes() {
		path := parameter.ReplaceAllString(route.Path, "999")
		if route.Method == http.MethodGet || !strings.HasPrefix(path, "/api/") || strings.HasSuffix(path, "/logout") {
			continue
		}
		if w := a.do(route.Method, path, `{`, headers...); w.Code != http.StatusBadRequest {
			continue // it reads no body
		}
		found++
		for body, field := range map[string]string{
			`{"title":"a","title":"b"}`:           "title",
			`{"title":"a","t\u0069tle":"a"}`:      "title",
			`{"roles":[{"x":1,"x":2}]}`:           "roles.x",
			`{"ttl":60,"reason":"","ttl":60}`:     "ttl",
			`{"email":"","email":"","other":"a"}`: "email",
		} {
			w := a.do(route.Method, path, body, headers...)
			want := `{"field":"` + field + `","message":"must be given once"}`
			if w.Code != http.StatusUnprocessableEntity || !strings.Contains(w.Body.String(), want) {
				t.Errorf("%s %s %s: %d %s", route.Method, path, body, w.Code, w.Body)
			}
		}
	}
	if found < 9 {
		t.Errorf("only %d routes read a body", found)
	}
}

// No route takes a client that left for a fault of the server.
func TestClientThatLeftIsNoFault(t *testing.T) {
	var lines strings.Builder
	a := startAppOn(t, &lines, nil)
	token := a.signIn(t, "admin@example.com")
	bodies := map[string]string{
		"POST /api/v1/auth/login":                  `{"email": "bob@example.com", "password": "` + demoPassword + `"}`,
		"POST /api/v1/auth/password":               `{"currentPassword": "` + demoPassword + `", "newPassword": "long enough for it"}`,
		"POST /api/v1/processes":                   `{"title": "t", "status": "active", "description": ""}`,
		"PUT /api/v1/processes/:id":                `{"title": "t", "status": "active", "description": ""}`,
		"PATCH /api/v1/processes/:id/quick-update": `{"status": "completed"}`,
		"POST /api/v1/users":                       `{"email": "x@example.com", "password": "long enough for it", "roles": ["viewer"]}`,
		"PATCH /api/v1/users/:id":                  `{"roles": ["admin"]}`,
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	parameter := regexp.MustCompile(`[:*][a-z]+`)
	for _, route := range a.server.Handler.(*gin.Engine).Routes() {
		for _, wait := range []string{"", "wait=5"} {
			r := httptest.NewRequestWithContext(gone, route.Method, parameter.ReplaceAllString(route.Path, "1"), strings.NewReader(bodies[route.Method+" "+route.Path]))
			r.Header.Set("Authorization", "Bearer "+token)
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Prefer", wait)
			w := httptest.NewRecorder()
			a.server.Handler.ServeHTTP(w, r)
			if w.Code == http.StatusInternalServerError {
				t.Errorf("%s %s, prefer %q: %s", route.Method, route.Path, wait, w.Body)
			}
		}
	}
	if strings.Contains(lines.String(), "status=5") {
		t.Errorf("logged as a failure:\n%s", lines.String())
	}
	w := a.do(http.MethodGet, "/api/v1/processes/1/lock/status", "", "Authorization", "Bearer "+token)
	if !strings.Contains(w.Body.String(), `"isLocked":false`) {
		t.Errorf("the lock after all have left: %s", w.Body)
	}
}

func TestSwaggerUIIsServed(t *testing.T) {
	a := startApp(t, nil)
	for _, path := range []string{"/swagger/index.html", "/swagger/doc.json", "/swagger/swagger-ui-bundle.js"} {
		if w := a.do(http.MethodGet, path, ""); w.Code != http.StatusOK {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	if w := a.do(http.MethodGet, "/swagger/", ""); w.Code != http.StatusFound || w.Header().Get("Location") != "/swagger/index.html" {
		t.Errorf("/swagger/: %d to %q", w.Code, w.Header().Get("Location"))
	}
	if w := a.do(http.MethodGet, "/swagger/doc.json", ""); !strings.Contains(w.Body.String(), "type: Bearer TOKEN") {
		t.Error("the Authorize box does not say what to type")
	}
}

// Who asks first is told before it sends a body that is too large.
func TestTooLargeIsToldBeforeItIsSent(t *testing.T) {
	a := startApp(t, nil)
	server := httptest.NewServer(a.server.Handler)
	defer server.Close()
	for size, want := range map[int]string{1<<20 + 1: "HTTP/1.1 413 ", 1 << 20: "HTTP/1.1 100 "} {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, err = fmt.Fprintf(conn, "POST /api/v1/auth/login HTTP/1.1\r\nHost: gatehouse\r\nContent-Type: application/json\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", size)
		if err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || !strings.HasPrefix(line, want) {
			t.Errorf("to %d bytes: %q, %v, want %q", size, line, err, want)
		}
	}
}

func TestLockEventsAreStreamed(t *testing.T) {
	a := startApp(t, nil)
	server := httptest.NewServer(a.server.Handler)
	defer server.Close()
	admin, alice := a.signIn(t, "admin@example.com"), a.signIn(t, "alice@example.com")
	open := func() *bufio.Scanner {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/api/v1/locks/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+alice)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = answer.Body.Close() })
		if answer.StatusCode != http.StatusOK || answer.Header.Get("Content-Type") != "text/event-stream" || answer.Header.Get("X-Accel-Buffering") != "no" {
			t.Fatalf("%d %v", answer.StatusCode, answer.Header)
		}
		return bufio.NewScanner(answer.Body)
	}
	stream := open()
	stream.Scan() // retry
	if w := a.do(http.MethodPost, "/api/v1/processes/1/lock", "", "Authorization", "Bearer "+alice); w.Code != http.StatusCreated {
		t.Fatal(w.Code)
	}
	if w := a.do(http.MethodDelete, "/api/v1/locks/process:1?reason=x", "", "Authorization", "Bearer "+admin); w.Code != http.StatusNoContent {
		t.Fatal(w.Code)
	}
	for _, want := range []string{"event: acquired", `"resource":"process:1","holder":{"userId":"2","email":"alice@example.com"},"fence":`, "event: forced"} {
		for stream.Scan() && !strings.Contains(stream.Text(), want) {
			if strings.HasPrefix(stream.Text(), "event: ") {
				t.Errorf("%q, want %q", stream.Text(), want)
			}
		}
	}
	// It ends with the session, and with the server.
	if w := a.do(http.MethodPost, "/api/v1/auth/logout", "", "Authorization", "Bearer "+alice); w.Code != http.StatusNoContent {
		t.Fatal(w.Code)
	}
	for stream.Scan() {
	}
	alice = a.signIn(t, "alice@example.com")
	stream = open()
	a.handlers.Drain()
	for stream.Scan() {
	}
}
