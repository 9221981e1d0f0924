package app

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// editing is the application with a process, whose ID is below the API's path, and those who edit it.
type editing struct {
	*app
	process                   string
	alice, bob, admin, viewer string // tokens
	degraded                  bool
}

// onEach runs a test with each database, with Redis and without.
func onEach(t *testing.T, test func(t *testing.T, e *editing)) {
	t.Parallel()
	for name, start := range map[string]func(t *testing.T) *app{
		"SQLite":             func(t *testing.T) *app { return startApp(t, nil) },
		"SQLite, Redis gone": func(t *testing.T) *app { return startCutOff(t, nil) },
		"PostgreSQL": func(t *testing.T) *app {
			return startApp(t, map[string]string{"DATABASE_URL": servicestest.StartPostgres(t), "REDIS_URL": "redis://" + servicestest.StartRedis(t).Addr})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := start(t)
			e := &editing{app: a, degraded: name == "SQLite, Redis gone"}
			e.alice, e.bob = a.signIn(t, "alice@example.com"), a.signIn(t, "bob@example.com")
			e.admin, e.viewer = a.signIn(t, "admin@example.com"), a.signIn(t, "viewer@example.com")
			made := decoded[models.Process](t, a.api(e.alice, http.MethodPost, "/processes", `{"title":"one"}`, "X-Request-Id", "made"), http.StatusCreated)
			e.process = "/processes/" + made.ID
			test(t, e)
		})
	}
}

// onTwo runs a test with two instances that share a Redis and a database, and with one that has no
// Redis, and is both.
func onTwo(t *testing.T, test func(t *testing.T, a, other *app)) {
	t.Parallel()
	for name, start := range map[string]func(t *testing.T) (a, other *app){
		"two instances": func(t *testing.T) (a, other *app) {
			env := map[string]string{"REDIS_URL": "redis://" + servicestest.StartRedis(t).Addr, "DATABASE_URL": newDatabase(t)}
			return startApp(t, env), startApp(t, env)
		},
		"Redis gone": func(t *testing.T) (a, other *app) {
			a = startCutOff(t, nil)
			return a, a
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, other := start(t)
			test(t, a, other)
		})
	}
}

// lock is a lock of a user on the process.
func (e *editing) lock(t *testing.T, token string) (lockToken string) {
	t.Helper()
	return decoded[grant](t, e.api(token, http.MethodPost, e.process+"/lock", ""), http.StatusCreated).LockToken
}

// save writes a title under a lock.
func (e *editing) save(token, lockToken, title string, headers ...string) *httptest.ResponseRecorder {
	return e.api(token, http.MethodPut, e.process, `{"title":"`+title+`","status":"active","description":""}`, append(headers, "X-Lock-Token", lockToken)...)
}

// problem is the name of a problem, and the fields in it.
func problem(t *testing.T, w *httptest.ResponseRecorder) string {
	t.Helper()
	doc := decoded[struct {
		Type   string
		Errors []models.FieldError
	}](t, w, w.Code)
	name := strings.TrimPrefix(doc.Type, "/problems/")
	for _, e := range doc.Errors {
		name += " " + e.Field
	}
	return name
}

const unfinished = `{"title":"","status":"active","description":"half a","baseVersion":1}`

func TestDraftsOverHTTP(t *testing.T) {
	onEach(t, func(t *testing.T, e *editing) {
		path := e.process + "/draft"
		long := strings.Repeat("ü", models.MaxDraftDescription)
		for _, row := range []struct{ who, method, path, body, want string }{
			{e.alice, "GET", path, "", "not-found"},
			{e.alice, "DELETE", path, "", "not-found"},
			{e.viewer, "GET", path, "", "forbidden"},
			{e.viewer, "PUT", path, `{`, "forbidden"},
			{e.viewer, "DELETE", path, "", "forbidden"},
			{e.alice, "PUT", path, `{}`, "validation title status description baseVersion"},
			{e.alice, "PUT", path, `{"title":"\u0000","status":"draft","description":"` + long + `x","baseVersion":0}`, "validation title description baseVersion"},
			{e.alice, "PUT", path, `{"title":"` + long[:2*models.MaxDraftTitle] + `x","status":"no","description":"","baseVersion":-1}`, "validation title status baseVersion"},
			{e.alice, "PUT", path, `{"title":"","status":"draft","description":"","baseVersion":2}`, "validation baseVersion"},
			{e.alice, "PUT", path, `{"title":"","status":"draft","description":"","baseVersion":"1"}`, "validation baseVersion"},
			{e.alice, "PUT", path, `{"title":"","status":"draft","description":"","baseVersion":1.5}`, "validation baseVersion"},
			{e.alice, "PUT", path, `{"savedAt":"2026-01-01T00:00:00Z"}`, "validation savedAt"},
			{e.alice, "PUT", "/processes/999/draft", `{}`, "validation title status description baseVersion"},
			{e.alice, "PUT", "/processes/999/draft", unfinished, "not-found"},
			{e.alice, "GET", "/processes/999/draft", "", "not-found"},
			{e.alice, "DELETE", "/processes/999/draft", "", "not-found"},
			{e.alice, "GET", path + "?x=1", "", "validation x"},
			{e.alice, "GET", path + "?user=x", "", "forbidden"}, // a page that another user has left open
			{e.alice, "PUT", path + "?user=x", unfinished, "forbidden"},
			{e.alice, "PUT", path + "?user=", unfinished, "forbidden"},
			{e.alice, "DELETE", path + "?user=x", "", "forbidden"},
			{e.alice, "GET", "/processes/!/draft", "", "validation id"},
		} {
			if got := problem(t, e.api(row.who, row.method, row.path, row.body)); got != row.want {
				t.Errorf("%s %s %.90s: %s, want %s", row.method, row.path, row.body, got, row.want)
			}
		}

		w := e.api(e.alice, http.MethodPut, path, unfinished)
		saved := decoded[models.Draft](t, w, http.StatusOK)
		if saved.Title != "" || saved.Status != "active" || saved.Description != "half a" || saved.BaseVersion != 1 || time.Since(saved.SavedAt).Abs() > time.Hour {
			t.Errorf("saved %+v", saved)
		}
		if w := e.api(e.alice, http.MethodGet, path, ""); w.Header().Get("Last-Modified") != saved.SavedAt.Format(http.TimeFormat) || decoded[models.Draft](t, w, http.StatusOK) != saved {
			t.Errorf("read %v %s", w.Header(), w.Body)
		}
		if got := problem(t, e.api(e.bob, http.MethodGet, path, "")); got != "not-found" {
			t.Errorf("bob reads alice's draft: %s", got)
		}
		if w := e.api(e.alice, http.MethodPut, path, `{"title":"","status":"draft","description":"`+long+`","baseVersion":1}`); w.Code != http.StatusOK {
			t.Errorf("a text that is too long for the process: %d", w.Code)
		}
		token := e.lock(t, e.alice)
		decoded[models.Process](t, e.save(e.alice, token, "two"), http.StatusOK)
		decoded[models.Draft](t, e.api(e.alice, http.MethodGet, path, ""), http.StatusOK) // a save of the process leaves it
		if w := e.api(e.alice, http.MethodDelete, path, ""); w.Code != http.StatusNoContent {
			t.Errorf("deleted: %d %s", w.Code, w.Body)
		}
		if got := problem(t, e.api(e.alice, http.MethodGet, path, "")); got != "not-found" {
			t.Errorf("read after its deletion: %s", got)
		}
	})
}

// Two windows of one user: the one that is late is told, and by a whole second it is not late.
func TestDraftIfUnmodifiedSince(t *testing.T) {
	onEach(t, func(t *testing.T, e *editing) {
		path := e.process + "/draft"
		put := func(since string) *httptest.ResponseRecorder {
			return e.api(e.alice, http.MethodPut, path, unfinished, "If-Unmodified-Since", since)
		}
		first := decoded[models.Draft](t, put("Mon, 01 Jan 2024 00:00:00 GMT"), http.StatusOK) // there was none
		second := decoded[models.Draft](t, put(first.SavedAt.Format(time.RFC3339Nano)), http.StatusOK)
		for _, row := range []struct {
			since string
			late  bool
		}{
			{first.SavedAt.Format(time.RFC3339Nano), true},
			{second.SavedAt.Add(-time.Second).Format(http.TimeFormat), true},
			{"0001-01-01T00:00:00Z", true},
			{second.SavedAt.Format(time.RFC3339Nano), false},
		} {
			for _, method := range []string{http.MethodPut, http.MethodDelete} {
				if !row.late && method == http.MethodDelete {
					continue
				}
				w := e.api(e.alice, method, path, unfinished, "If-Unmodified-Since", row.since)
				if !row.late {
					second = decoded[models.Draft](t, w, http.StatusOK)
				} else if got := decoded[struct{ Current models.Draft }](t, w, http.StatusPreconditionFailed); got.Current != second || problem(t, w) != "precondition-failed" {
					t.Errorf("%s since %s: %s, want the draft %+v", method, row.since, w.Body, second)
				}
			}
		}
		second = decoded[models.Draft](t, put(second.SavedAt.Format(http.TimeFormat)), http.StatusOK)
		decoded[models.Draft](t, put("yesterday"), http.StatusOK) // is ignored
		if w := e.api(e.alice, http.MethodDelete, path, "", "If-Unmodified-Since", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)); w.Code != http.StatusNoContent {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}

// Editors see who has a draft, and not what is in it. A 304 never stands for an answer with other
// drafts than the client has.
func TestProcessNamesDraftsForEditors(t *testing.T) {
	onEach(t, func(t *testing.T, e *editing) {
		read := func(who string, code int, headers ...string) (drafts string) {
			t.Helper()
			w := e.api(who, http.MethodGet, e.process, "", headers...)
			if w.Code != code || w.Header().Get("ETag") != `"1"` {
				t.Fatalf("%d, ETag %s: %s", w.Code, w.Header().Get("ETag"), w.Body)
			}
			caching, vary := "private, no-cache", "Authorization, Cookie"
			if strings.Contains(w.Body.String(), `"drafts":[{`) {
				caching, vary = "no-store", ""
			}
			if w.Header().Get("Cache-Control") != caching || w.Header().Get("Vary") != vary {
				t.Errorf("Cache-Control %q, Vary %q: %s", w.Header().Get("Cache-Control"), w.Header().Get("Vary"), w.Body)
			}
			if code == http.StatusNotModified {
				return ""
			}
			return string(decoded[struct{ Drafts json.RawMessage }](t, w, code).Drafts)
		}
		known := []string{"If-None-Match", `"1"`}
		if got := read(e.bob, 200); got != "[]" {
			t.Errorf("drafts before: %s", got)
		}
		read(e.bob, 304, known...)

		saved := decoded[models.Draft](t, e.api(e.alice, http.MethodPut, e.process+"/draft", unfinished), http.StatusOK)
		for _, who := range []string{e.alice, e.bob, e.admin} {
			var refs []models.DraftRef
			got := read(who, 200, known...)
			if err := json.Unmarshal([]byte(got), &refs); err != nil || len(refs) != 1 || refs[0].Email != "alice@example.com" || refs[0].UserID == "" || !refs[0].SavedAt.Equal(saved.SavedAt) || strings.Contains(got, "half") {
				t.Errorf("drafts: %s, %v", got, err)
			}
		}
		if got := read(e.viewer, 200); got != "" {
			t.Errorf("a viewer sees drafts: %s", got)
		}
		read(e.viewer, 304, known...)

		e.api(e.alice, http.MethodDelete, e.process+"/draft", "")
		read(e.bob, 304, known...)
	})
}
