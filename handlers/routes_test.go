package handlers_test

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// callers are those who may send a request. Each may do what those before may do.
const (
	anyone = iota
	signedIn
	viewer
	editor
	administrator
)

// leastCaller says for every route who may call it.
func leastCaller() map[string]int {
	least := map[string]int{}
	for caller, routes := range []string{
		anyone: `GET /healthz, HEAD /healthz, GET /readyz, HEAD /readyz, GET /metrics, GET /static/:name, HEAD /static/:name,
			GET /, GET /problems, GET /problems/:name, GET /login, POST /login, POST /logout, POST /api/v1/auth/login`,
		signedIn: `GET /dashboard/locks, GET /account, GET /password, POST /password, POST /sessions/end, POST /sessions/end-others,
			GET /api/v1/auth/session, POST /api/v1/auth/logout, POST /api/v1/auth/refresh, POST /api/v1/auth/password,
			GET /api/v1/sessions, DELETE /api/v1/sessions, DELETE /api/v1/sessions/:id`,
		viewer: `GET /processes, GET /processes/:id, GET /processes/:id/history, GET /refusals, GET /api/v1/processes, GET /api/v1/processes/:id, GET /api/v1/processes/:id/lock/status,
			GET /api/v1/processes/:id/history, GET /api/v1/processes/:id/versions/:n, GET /api/v1/refusals/:id,
			GET /api/v1/locks, GET /api/v1/locks/events, GET /api/v1/locks/:resource`,
		editor: `GET /processes/new, POST /processes/new, GET /processes/:id/edit, POST /processes/:id/edit, POST /processes/:id/edit/save,
			POST /processes/:id/edit/resolve, POST /processes/:id/edit/cancel, GET /processes/:id/edit/state, POST /processes/:id/edit/extend,
			POST /processes/:id/edit/release, POST /processes/:id/edit/answer, POST /processes/:id/ask, POST /processes/:id/ask/withdraw, POST /processes/:id/draft/discard, POST /processes/:id/restore, POST /api/v1/processes, PUT /api/v1/processes/:id, DELETE /api/v1/processes/:id, PATCH /api/v1/processes/:id/quick-update,
			GET /api/v1/processes/:id/draft, PUT /api/v1/processes/:id/draft, DELETE /api/v1/processes/:id/draft, POST /api/v1/processes/:id/restore,
			POST /api/v1/processes/:id/lock/requests, GET /api/v1/processes/:id/lock/requests/:request, DELETE /api/v1/processes/:id/lock/requests/:request,
			POST /api/v1/processes/:id/lock/requests/:request/answer, POST /api/v1/processes/:id/lock, DELETE /api/v1/processes/:id/lock, POST /api/v1/processes/:id/lock/extend`,
		administrator: `GET /locks/force, POST /locks/force, GET /users, GET /users/sessions, POST /users/end-sessions, POST /users/end-everybody,
			DELETE /api/v1/locks/:resource, POST /api/v1/sessions/end-all, GET /api/v1/audit, GET /api/v1/users, POST /api/v1/users,
			GET /api/v1/users/:id, PATCH /api/v1/users/:id, DELETE /api/v1/users/:id, GET /api/v1/users/:id/sessions, DELETE /api/v1/users/:id/sessions`,
	} {
		for route := range strings.SplitSeq(routes, ",") {
			least[strings.TrimSpace(route)] = caller
		}
	}
	return least
}

// callers are browsers in which callers have signed in.
type callers struct {
	*site
	browsers map[int]*browser
}

// as sends a request of a caller.
func (c callers) as(t *testing.T, caller int, route string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	b, known := c.browsers[caller]
	switch {
	case known:
	case caller == anyone:
		b = c.browser(t)
	default:
		b = c.signedIn(t, [...]string{signedIn: "none@example.com", viewer: "vic@example.com", editor: "ann@example.com", administrator: "admin@example.com"}[caller])
	}
	c.browsers[caller] = b
	method, path, _ := strings.Cut(route, " ")
	path = regexp.MustCompile(`:[a-z]+`).ReplaceAllString(path, "999")
	w := b.send(httptest.NewRequest(method, path, nil), append([]string{"Sec-Fetch-Site", "same-origin"}, headers...)...)
	if method != http.MethodGet && w.Code < 400 {
		clear(c.browsers) // it may have ended any session
	}
	return w
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	s := callers{newSiteWithoutRedis(t), map[int]*browser{}}
	s.handlers.Drain()                                                         // or the stream of events would not end
	_, err := s.db.CreateUser(t.Context(), "none@example.com", "", []string{}) // as no route would
	check(t, err)
	least := leastCaller()
	var registered []string
	for _, route := range s.router.Routes() {
		registered = append(registered, route.Method+" "+route.Path)
	}
	slices.Sort(registered)
	if listed := slices.Sorted(maps.Keys(least)); !slices.Equal(registered, listed) {
		t.Fatalf("registered:\n%q\nlisted with who may call it:\n%q", registered, listed)
	}

	t.Run("each admits those with its role and no others", func(t *testing.T) {
		for _, route := range registered {
			for caller := anyone; caller <= administrator; caller++ {
				want := 0 // any answer but these
				switch {
				case caller >= least[route]:
				case caller == anyone:
					want = http.StatusUnauthorized
				default:
					want = http.StatusForbidden
				}
				w := s.as(t, caller, route)
				if refused := w.Code == http.StatusUnauthorized || w.Code == http.StatusForbidden; refused != (want > 0) || refused && w.Code != want {
					t.Errorf("%s for caller %d: %d, want %d: %s", route, caller, w.Code, want, w.Body)
				}
			}
		}
	})
	t.Run("what the API answers is never stored", func(t *testing.T) {
		answers := 0
		for _, route := range registered {
			if !strings.Contains(route, " /api/") {
				continue
			}
			w := s.as(t, administrator, route)
			if w.Code < 300 {
				answers++
			}
			if got := w.Header().Get("Cache-Control"); got != "no-store" && (got != "no-store, no-transform" || !strings.HasSuffix(route, "/locks/events")) {
				t.Errorf("%s: %d with Cache-Control %q", route, w.Code, got)
			}
		}
		if answers < 10 { // problems would be no-store anyway
			t.Errorf("only %d routes answered without a problem", answers)
		}
	})
	t.Run("a page that names another user is refused", func(t *testing.T) {
		for _, route := range []string{"GET /api/v1/processes/:id/draft", "DELETE /api/v1/processes/:id/draft", "GET /api/v1/locks/events"} {
			w := s.as(t, editor, route+"?user=another")
			if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "/problems/forbidden") {
				t.Errorf("%s for another user: %d %s", route, w.Code, w.Body)
			}
		}
	})
	t.Run("a page without an origin cannot use the cookie to change anything", func(t *testing.T) {
		for _, route := range registered {
			if strings.HasPrefix(route, "GET ") || strings.HasPrefix(route, "HEAD ") {
				continue
			}
			w := s.as(t, administrator, route, "Sec-Fetch-Site", "", "Origin", "null")
			if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "another origin") {
				t.Errorf("%s from the origin null: %d %s", route, w.Code, w.Body)
			}
		}
	})
}
