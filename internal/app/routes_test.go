package app

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gatehouse/services/servicestest"
)

func TestEveryRouteIsDocumented(t *testing.T) {
	t.Parallel()
	a := startApp(t, nil)
	parameter := regexp.MustCompile(`:([a-z]+)`)
	var routes []string
	for _, route := range a.routes("1") {
		if path, ok := strings.CutPrefix(route.pattern, "/api/v1"); ok {
			routes = append(routes, strings.ToLower(route.method)+" "+parameter.ReplaceAllString(path, "{$1}"))
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

	t.Run("in Swagger UI", func(t *testing.T) {
		// Whatever is asked for first, its files stay where they are.
		for path, want := range map[string]int{"/swagger/index.html?x=doc.json": 200, "/swagger/xdoc.json": 404, "/swagger//index.html": 404, "/swagger/x/swagger-ui.css": 404} {
			if w := a.do(http.MethodGet, path, ""); w.Code != want {
				t.Errorf("%s: %d, want %d", path, w.Code, want)
			}
		}
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
	})
}

// Whatever route reads JSON refuses a name that is there twice, and says which.
func TestEveryBodyRefusesANameTwice(t *testing.T) {
	t.Parallel()
	a := startApp(t, nil)
	admin, readers := a.signIn(t, "admin@example.com"), 0
	for _, route := range a.routes("999") {
		path, isAPI := strings.CutPrefix(route.path, "/api/v1")
		if route.isSafe() || !isAPI || route.ends() || a.api(admin, route.method, path, `{`).Code != http.StatusBadRequest {
			continue // it reads no JSON
		}
		readers++
		for body, field := range map[string]string{
			`{"title":"a","title":"b"}`:           "title",
			`{"title":"a","t\u0069tle":"a"}`:      "title",
			`{"roles":[{"x":1,"x":2}]}`:           "roles.x",
			`{"ttl":60,"reason":"","ttl":60}`:     "ttl",
			`{"email":"","email":"","other":"a"}`: "email",
		} {
			w := a.api(admin, route.method, path, body)
			want := `{"field":"` + field + `","message":"must be given once"}`
			if w.Code != http.StatusUnprocessableEntity || !strings.Contains(w.Body.String(), want) {
				t.Errorf("%v %s: %d %s", route, body, w.Code, w.Body)
			}
		}
	}
	if readers != 13 {
		t.Errorf("%d routes read a body, want 13", readers)
	}
}

// No request with a safe method changes anything but when a session was seen last.
func TestSafeMethodsChangeNothing(t *testing.T) {
	t.Parallel()
	a := startApp(t, nil)
	admin := a.signIn(t, "admin@example.com")
	if w := a.api(admin, http.MethodPost, "/processes/1/lock", ""); w.Code != http.StatusCreated {
		t.Fatal(w.Code)
	}
	type locks struct {
		Items []struct{ Resource, Since string }
	}
	state := func() (all []string) {
		for _, path := range []string{"/processes?limit=200", "/users", "/audit?limit=200"} {
			all = append(all, a.api(admin, http.MethodGet, path, "").Body.String())
		}
		for _, l := range decoded[locks](t, a.api(admin, http.MethodGet, "/locks", ""), http.StatusOK).Items {
			all = append(all, l.Resource+" "+l.Since)
		}
		sessions := a.api(admin, http.MethodGet, "/sessions", "").Body.String()
		return append(all, strings.Repeat("a session ", strings.Count(sessions, `"createdAt"`)))
	}
	before := state()
	if len(before) != 5 {
		t.Fatalf("%q", before)
	}
	asked := 0
	for _, route := range a.routes("1") {
		if !route.isSafe() || route.streams() {
			continue
		}
		for _, query := range []string{"", "?reason=x&all=true&end=1"} {
			asked++
			if w := a.do(route.method, route.path+query, `{"title":"x","roles":["viewer"]}`, "Authorization", "Bearer "+admin); w.Code >= 500 {
				t.Errorf("%v: %d", route, w.Code)
			}
		}
	}
	if after := state(); asked < 50 || !slices.Equal(before, after) {
		t.Errorf("after %d requests:\n%q\nbefore:\n%q", asked, after, before)
	}
}

// Behind https no route that changes something takes a request from an http page, also of
// the same host, and each takes the page's own.
func TestEveryUnsafeRouteKnowsItsOrigin(t *testing.T) {
	t.Parallel()
	a := startApp(t, map[string]string{"PUBLIC_URL": "https://gate.example"})
	token, routes := a.signIn(t, "admin@example.com"), 0
	for _, route := range a.routes("999") {
		if route.isSafe() {
			continue
		}
		routes++
		for origin, refused := range map[string]bool{"http://gate.example": true, "https://evil.example": true, "null": true, "https://gate.example": false} {
			if !refused && route.ends() {
				continue // there would be no session for the others
			}
			for _, host := range []string{"gate.example", "10.0.0.1:8080"} {
				r := httptest.NewRequest(route.method, route.path, nil)
				r.Host = host
				r.Header.Set("Origin", origin)
				r.Header.Set("X-Forwarded-Proto", "https")
				r.AddCookie(&http.Cookie{Name: "__Host-gatehouse", Value: token})
				w := httptest.NewRecorder()
				a.server.Handler.ServeHTTP(w, r)
				if crossOrigin := w.Code == http.StatusForbidden; crossOrigin != refused {
					t.Errorf("%v on %s from %s: %d %s", route, host, origin, w.Code, w.Body)
				}
			}
		}
	}
	if routes != 45 {
		t.Errorf("%d routes, want 45", routes)
	}
}

// No route takes a client that left for a fault of the server.
func TestClientThatLeftIsNoFault(t *testing.T) {
	t.Parallel()
	var log servicestest.LogLines
	a := startAppOn(t, &log, map[string]string{"LOG_LEVEL": "info"})
	admin := a.signIn(t, "admin@example.com")
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
	for _, route := range a.routes("1") {
		for _, wait := range []string{"", "wait=5"} {
			r := httptest.NewRequestWithContext(gone, route.method, route.path, strings.NewReader(bodies[route.String()]))
			r.Header.Set("Authorization", "Bearer "+admin)
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Prefer", wait)
			w := httptest.NewRecorder()
			a.server.Handler.ServeHTTP(w, r)
			if w.Code == http.StatusInternalServerError {
				t.Errorf("%v, prefer %q: %s", route, wait, w.Body)
			}
		}
	}
	if failures := log.With("status=5"); len(failures) > 0 {
		t.Errorf("logged as failures:\n%s", failures)
	}
	if n := len(log.With("level=INFO", "status=499")); n < 20 {
		t.Errorf("only %d requests failed because their client had left", n)
	}
	if w := a.api(admin, http.MethodGet, "/processes/1/lock/status", ""); !strings.Contains(w.Body.String(), `"isLocked":false`) {
		t.Errorf("the lock after all have left: %s", w.Body)
	}
}

// Signing out by the API with the page's cookie leaves as little in the browser as
// by the page; other clients are not told.
func TestSignOutClearsTheBrowser(t *testing.T) {
	t.Parallel()
	a := startApp(t, nil)
	for want, headers := range map[string][]string{
		`"cache", "storage"`: {"Cookie", "gatehouse=" + a.signIn(t, "alice@example.com")},
		"":                   {"Authorization", "Bearer " + a.signIn(t, "alice@example.com")},
	} {
		w := a.do(http.MethodPost, "/api/v1/auth/logout", "", headers...)
		if got := w.Header().Get("Clear-Site-Data"); w.Code != http.StatusNoContent || got != want {
			t.Errorf("%d, Clear-Site-Data is %q, want %q", w.Code, got, want)
		}
	}
}
