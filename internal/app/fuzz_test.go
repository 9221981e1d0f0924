package app

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// fuzzed is the application with somebody of every role signed in.
type fuzzed struct {
	*app
	token string // an administrator's
}

func newFuzzed(f *testing.F) fuzzed {
	f.Helper()
	a := startApp(f, nil)
	return fuzzed{a, a.signIn(f, "admin@example.com")}
}

// never checks what no input may cause: a 5xx (a panic is one too), or an error
// that is not a problem document.
func (z fuzzed) never(t *testing.T, method, path, body string, headers ...string) {
	t.Helper()
	headers = append([]string{"Authorization", "Bearer " + z.token, "Content-Type", "application/json"}, headers...)
	w := z.do(method, path, body, headers...)
	if w.Code >= http.StatusInternalServerError {
		t.Errorf("%s %q %q: %d %s", method, path, body, w.Code, w.Body)
	}
	if w.Code >= http.StatusBadRequest && w.Header().Get("Content-Type") != "application/problem+json" {
		t.Errorf("%s %q %q: %d is %s", method, path, body, w.Code, w.Header().Get("Content-Type"))
	}
}

func FuzzBodies(f *testing.F) {
	z := newFuzzed(f)
	routes := []struct{ method, path string }{
		{http.MethodPost, "/api/v1/auth/login"}, {http.MethodPost, "/api/v1/auth/password"},
		{http.MethodPost, "/api/v1/processes"}, {http.MethodPut, "/api/v1/processes/1"},
		{http.MethodPatch, "/api/v1/processes/1/quick-update"}, {http.MethodPost, "/api/v1/processes/1/lock"},
		{http.MethodPost, "/api/v1/processes/1/lock/extend"}, {http.MethodPost, "/api/v1/users"}, {http.MethodPatch, "/api/v1/users/4"},
	}
	for route := range routes {
		for _, body := range []string{
			``, `{`, `{}`, `null`, `[]`, `"x"`, `0`, `{"title":"x","status":"draft","description":""}`, `{"title":"\u0000"}`, `{"title":"\ud800"}`,
			`{"ttl":1}`, `{"ttl":0}`, `{"ttl":-1}`, `{"ttl":1e400}`, `{"ttl":9223372036854775808}`, `{"reason":"` + strings.Repeat("ä", 201) + `"}`,
			`{"email":"a@b.c","password":"123456789012","roles":["viewer"]}`, `{"email":"\u0000","password":"\u0000"}`, `{"roles":[]}`, `{"roles":[null]}`,
			`{"disabled":false}`, `{"currentPassword":"x","newPassword":"123456789012"}`, `{"title":{"a":1}}`, `{"a":1,"\u0061":{"a":1,"a":2}}`, "{\"title\":\"\xff\"}", `{"a":` + strings.Repeat("[", 20000),
		} {
			f.Add(uint8(route), body)
		}
	}
	f.Fuzz(func(t *testing.T, route uint8, body string) {
		r := routes[int(route)%len(routes)]
		z.never(t, r.method, r.path, body, "X-Lock-Token", "x", "Prefer", "wait=0")
	})
}

func FuzzHeaders(f *testing.F) {
	z := newFuzzed(f)
	lock := z.do(http.MethodPost, "/api/v1/processes/1/lock", "", "Authorization", "Bearer "+z.token).Body.String()
	_, token, _ := strings.Cut(lock, `"lockToken":"`)
	token, _, _ = strings.Cut(token, `"`)
	for _, value := range []string{"", " ", "x", "*", `"1"`, `W/"1"`, `"1", "2"`, "wait=1", "wait=99999999999999999999", token, token[:len(token)/2], "Bearer", "Bearer ", "bearer x", strings.Repeat("A", 5000), "\x00", "\xff"} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		for _, header := range []string{"X-Lock-Token", "If-Match", "If-None-Match", "Prefer", "Idempotency-Key", "Authorization", "Cookie", "X-Request-Id", "Content-Type", "X-Forwarded-For", "Origin"} {
			if header == "Prefer" && strings.Contains(strings.ToLower(value), "wait") {
				continue // it would really wait
			}
			z.never(t, http.MethodGet, "/api/v1/processes/2", "", header, value)
			z.never(t, http.MethodPut, "/api/v1/processes/1", `{"title":"x","status":"draft","description":""}`, "X-Lock-Token", token, header, value)
			z.never(t, http.MethodPost, "/api/v1/processes/1/lock", "", header, value)
			z.never(t, http.MethodDelete, "/api/v1/processes/1/lock", "", "X-Lock-Token", "x", header, value)
		}
	})
}

func FuzzQuery(f *testing.F) {
	z := newFuzzed(f)
	for _, value := range []string{"", "0", "1", "200", "201", "-1", "x", "draft", "\x00", "\xff", "%", "_", "e30", "eyJ0IjoxfQ", strings.Repeat("A", 5000), "a b", "ä"} {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, value string) {
		for _, path := range []string{"/api/v1/processes", "/api/v1/locks", "/api/v1/users", "/api/v1/audit"} {
			for _, name := range []string{"limit", "cursor", "status", "q", "action", value} {
				z.never(t, http.MethodGet, path+"?"+url.QueryEscape(name)+"="+url.QueryEscape(value), "")
				z.never(t, http.MethodGet, path+"?"+name+"="+value, "")
			}
		}
		z.never(t, http.MethodDelete, "/api/v1/locks/process:3?reason="+url.QueryEscape(value)+"&fence="+url.QueryEscape(value), "")
		z.never(t, http.MethodDelete, "/api/v1/sessions?all="+url.QueryEscape(value)+"x", "")
	})
}

func FuzzPaths(f *testing.F) {
	z := newFuzzed(f)
	for _, id := range []string{"", "1", "0", "-1", "01", "99999999999999999999", "abc", "a b", "%2F", "..", ".", "/", "\x00", "\xff", "process:1", "ä", strings.Repeat("1", 65), strings.Repeat("9", 64)} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		for _, r := range []struct{ method, path string }{
			{http.MethodGet, "/api/v1/processes/" + id}, {http.MethodGet, "/api/v1/processes/" + id + "/lock/status"},
			{http.MethodPost, "/api/v1/processes/" + id + "/lock/extend"}, {http.MethodDelete, "/api/v1/processes/" + id + "/lock"},
			{http.MethodGet, "/api/v1/users/" + id}, {http.MethodGet, "/api/v1/users/" + id + "/sessions"},
			{http.MethodDelete, "/api/v1/locks/" + id + "?reason=x"}, {http.MethodDelete, "/api/v1/sessions/x" + id},
		} {
			if strings.Contains(id, "?") {
				r.path = strings.ReplaceAll(r.path, "?", "")
			}
			z.never(t, r.method, r.path, "")
		}
	})
}
