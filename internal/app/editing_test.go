package app

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
	"gatehouse/services/store"
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

// item is one entry of a history.
type item struct {
	models.HistoryEntry
	Changes   []models.Change
	EndedAt   *time.Time
	LockEnded *struct {
		How string
		By  struct{ UserID, Email string }
		At  time.Time
	}
	RequestID string
}

func (e *editing) history(t *testing.T, who, query string) (items []item, cursor string) {
	t.Helper()
	list := decoded[struct {
		Items      []item
		NextCursor string
	}](t, e.api(who, http.MethodGet, e.process+"/history"+query, ""), http.StatusOK)
	return list.Items, list.NextCursor
}

func TestHistoryOverHTTP(t *testing.T) {
	onEach(t, func(t *testing.T, e *editing) {
		token := e.lock(t, e.alice)
		e.save(e.alice, token, "two")
		e.save(e.alice, token, "three", "X-Request-Id", "saved")
		e.save(e.bob, "forged", "no", "X-Request-Id", "refused")
		w := e.api(e.alice, http.MethodPost, e.process+"/restore", `{"version":1}`, "X-Lock-Token", token)
		if got := decoded[models.Process](t, w, http.StatusOK); got.Title != "one" || got.Status != "draft" || got.Version != 4 || w.Header().Get("ETag") != `"4"` || got.UpdatedBy.Email != "alice@example.com" {
			t.Errorf("restored %+v", got)
		}
		e.api(e.alice, http.MethodDelete, e.process+"/lock", "", "X-Lock-Token", token)
		decoded[models.Process](t, e.api(e.bob, http.MethodPatch, e.process+"/quick-update", `{"status":"paused"}`), http.StatusOK)
		token = e.lock(t, e.bob)

		was := decoded[models.Process](t, e.api(e.viewer, http.MethodGet, e.process+"/versions/3", ""), http.StatusOK)
		if was.Title != "three" || was.Status != "active" || was.Version != 3 || was.UpdatedBy.Email != "alice@example.com" || was.CreatedAt.IsZero() || !was.UpdatedAt.After(was.CreatedAt) || "/processes/"+was.ID != e.process {
			t.Errorf("version 3 was %+v", was)
		}
		for _, row := range []struct{ who, method, path, body, want string }{
			{e.viewer, "GET", e.process + "/versions/6", "", "not-found"},
			{e.viewer, "GET", e.process + "/versions/0", "", "validation n"},
			{e.viewer, "GET", e.process + "/versions/x", "", "validation n"},
			{e.viewer, "GET", e.process + "/versions/99999999999999999999", "", "validation n"},
			{e.viewer, "GET", "/processes/999/versions/1", "", "not-found"},
			{e.viewer, "GET", "/processes/999/history", "", "not-found"},
			{e.viewer, "GET", e.process + "/history?limit=0", "", "validation limit"},
			{e.viewer, "GET", e.process + "/history?cursor=x", "", "validation cursor"},
			{e.viewer, "POST", e.process + "/restore", `{`, "forbidden"},
			{e.bob, "POST", e.process + "/restore", `{}`, "validation version"},
			{e.bob, "POST", e.process + "/restore", `{"version":0}`, "validation version"},
			{e.bob, "POST", "/processes/999/restore", `{"version":1}`, "not-found"},
			{e.bob, "POST", e.process + "/restore", `{"version":6}`, "validation version"},
		} {
			if got := problem(t, e.api(row.who, row.method, row.path, row.body, "X-Lock-Token", token)); got != row.want {
				t.Errorf("%s %s %s: %s, want %s", row.method, row.path, row.body, got, row.want)
			}
		}
		for header, want := range map[string]string{"": "lock-token-required", "forged": "lock-not-held"} {
			if got := problem(t, e.api(e.alice, http.MethodPost, e.process+"/restore", `{"version":1}`, "X-Lock-Token", header, "X-Request-Id", "r"+header)); got != want {
				t.Errorf("restored with the token %q: %s", header, got)
			}
		}
		if got := problem(t, e.api(e.bob, http.MethodPost, e.process+"/restore", `{"version":1}`, "X-Lock-Token", token, "If-Match", `"1"`, "X-Request-Id", "late")); got != "precondition-failed" {
			t.Errorf("restored in place of another version: %s", got)
		}
		if w := e.api(e.bob, http.MethodDelete, e.process, "", "X-Lock-Token", token, "X-Request-Id", "gone"); w.Code != http.StatusNoContent {
			t.Fatal(w.Code, w.Body)
		}

		e.api(e.bob, http.MethodGet, "/refusals/late", "") // what was refused is in the history by now
		all, _ := e.history(t, e.viewer, "")
		var got []string
		for _, i := range all {
			got = append(got, i.How)
		}
		slices.Sort(got) // a refusal is recorded after a while
		if want := []string{"created", "deleted", "edited", "quick-update", "refused", "refused", "refused", "restored"}; !slices.Equal(got, want) {
			t.Fatalf("the history has %q, want %q", got, want)
		}
		of := func(how string) item {
			return all[slices.IndexFunc(all, func(i item) bool { return i.How == how })]
		}
		edited := of("edited")
		if edited.Version != 3 || edited.RequestID != "saved" || edited.Actor.Email != "alice@example.com" || edited.EndedAt == nil || !edited.EndedAt.After(edited.At) ||
			!reflect.DeepEqual(edited.Changes, []models.Change{{Field: "title", From: "one", To: "three"}, {Field: "status", From: "draft", To: "active"}}) {
			t.Errorf("the editing session is %+v", edited)
		}
		for _, how := range []string{"edited", "restored", "quick-update", "deleted"} {
			if i := of(how); (i.Fence == nil) != e.degraded {
				t.Errorf("%s with the fence %v", how, i.Fence)
			}
		}
		for how, want := range map[string]models.LockEnd{
			"edited":   {How: models.LockReleased, By: models.UserRef{Email: "alice@example.com"}},
			"restored": {How: models.LockReleased, By: models.UserRef{Email: "alice@example.com"}},
			"deleted":  {How: models.LockProcessDeleted, By: models.UserRef{Email: "bob@example.com"}},
		} {
			ended := of(how).LockEnded
			if ended == nil || ended.How != want.How || ended.By.Email != want.By.Email || ended.By.UserID == "" || ended.At.IsZero() {
				t.Errorf("%s: the lock ended by %+v", how, ended)
			}
		}
		if made := of("created"); made.RequestID != "made" || made.EndedAt != nil || made.Version != 1 {
			t.Errorf("created: %+v", made)
		}
		if gone := of("deleted"); gone.RequestID != "gone" || gone.Version != 0 || gone.Changes == nil || len(gone.Changes) != 0 || gone.Actor.Email != "bob@example.com" {
			t.Errorf("deleted: %+v", gone)
		}
		var paged []item
		for cursor := ""; ; {
			items, next := e.history(t, e.viewer, "?limit=3"+cursor)
			paged = append(paged, items...)
			if next == "" {
				break
			}
			cursor = "&cursor=" + next
		}
		if !reflect.DeepEqual(paged, all) {
			t.Errorf("in pages: %+v\nat once: %+v", paged, all)
		}
		if again := decoded[models.Process](t, e.api(e.viewer, http.MethodGet, e.process+"/versions/3", ""), http.StatusOK); again != was {
			t.Errorf("version 3 of the deleted process was %+v", again)
		}
	})
}

// Each refusal of a write or a lock can be read again, as it was answered, by who was refused and by
// administrators; all else leaves nothing.
func TestRefusalsOverHTTP(t *testing.T) {
	onEach(t, func(t *testing.T, e *editing) {
		token := e.lock(t, e.bob)
		id := strings.TrimPrefix(e.process, "/processes/")
		const put = `{"title":"t","status":"draft","description":""}`
		type row struct {
			name, who, method, path, body string
			headers                       []string
			want                          string // "" is not recorded
		}
		rows := []row{
			{"held", e.alice, "POST", e.process + "/lock", "", nil, "locked"},
			{"quick", e.alice, "PATCH", e.process + "/quick-update", `{"title":"t"}`, []string{"Prefer", "wait=0"}, "locked"},
			{"forged", e.alice, "PUT", e.process, put, []string{"X-Lock-Token", "forged"}, "lock-not-held"},
			{"forged.delete", e.alice, "DELETE", e.process, "", []string{"X-Lock-Token", "forged"}, "lock-not-held"},
			{"extended", e.alice, "POST", e.process + "/lock/extend", "", []string{"X-Lock-Token", "forged"}, "lock-not-held"},
			{"released", e.alice, "DELETE", e.process + "/lock", "", []string{"X-Lock-Token", "forged"}, "lock-not-held"},
			{"without", e.alice, "PUT", e.process, put, nil, "lock-token-required"},
			{"match", e.bob, "PUT", e.process, put, []string{"X-Lock-Token", token, "If-Match", `"9"`}, "precondition-failed"},
			{"fence", e.admin, "DELETE", "/locks/process:" + id + "?reason=r&fence=1", "", nil, "lock-not-held"},
			{"invalid", e.bob, "PUT", e.process, `{}`, []string{"X-Lock-Token", token}, ""},
			{"missing", e.bob, "PUT", "/processes/999", put, []string{"X-Lock-Token", token}, ""},
			{"role", e.viewer, "PUT", e.process, put, nil, ""},
			{"draft", e.bob, "PUT", e.process + "/draft", unfinished, []string{"If-Unmodified-Since", "Mon, 01 Jan 2024 00:00:00 GMT"}, ""},
			{"taken", e.admin, "POST", "/users", `{"email":"bob@example.com","password":"long enough for it","roles":["viewer"]}`, nil, ""},
			{"done", e.bob, "POST", e.process + "/lock/extend", "", []string{"X-Lock-Token", token}, ""},
			{"late", e.bob, "PUT", e.process, put, []string{"X-Lock-Token", token}, "version-conflict"},
			{"forced", e.bob, "PUT", e.process, put, []string{"X-Lock-Token", token}, "lock-not-held"},
		}
		if e.degraded {
			rows = slices.DeleteFunc(rows, func(r row) bool { return r.name == "fence" }) // it has none
		}
		e.api(e.bob, http.MethodPut, e.process+"/draft", unfinished)
		for _, row := range rows {
			if row.name == "forced" {
				e.api(e.admin, http.MethodDelete, "/locks/process:"+id+"?reason=why", "")
			}
			if row.name == "late" { // another instance without Redis writes in between
				behind := models.ProcessFields{Title: "in between", Status: "draft"}
				if _, err := e.handlers.Database.(*store.Store).UpdateProcess(t.Context(), id, "", behind, models.WriteGuard{GrantedVersion: 1}); err != nil {
					t.Fatal(err)
				}
			}
			w := e.api(row.who, row.method, row.path, row.body, append(row.headers, "X-Request-Id", row.name)...)
			read := func(who string) *httptest.ResponseRecorder {
				return e.api(who, http.MethodGet, "/refusals/"+row.name, "")
			}
			if row.want == "" {
				if got := read(e.admin); got.Code != http.StatusNotFound {
					t.Errorf("%s: recorded %s", row.name, got.Body)
				}
				continue
			}
			if got := problem(t, w); got != row.want {
				t.Fatalf("%s: %s, want %s", row.name, got, row.want)
			}
			want := decoded[map[string]any](t, w, w.Code)
			maps.DeleteFunc(want, func(member string, _ any) bool {
				return !slices.Contains([]string{"status", "type", "detail", "holder", "endedBy", "current"}, member)
			})
			if (row.name == "forced") != (want["endedBy"] != nil) {
				t.Errorf("%s: %s", row.name, w.Body)
			}
			want["resource"] = "process:" + id
			for _, who := range []string{row.who, e.admin} {
				got := decoded[map[string]any](t, read(who), http.StatusOK)
				at, err := time.Parse(time.RFC3339Nano, got["at"].(string))
				delete(got, "at")
				if err != nil || time.Since(at).Abs() > time.Hour || !reflect.DeepEqual(got, want) {
					t.Errorf("%s: %v at %v, %v, want what was answered: %v", row.name, got, at, err, want)
				}
			}
			if got := read(e.viewer); got.Code != http.StatusNotFound {
				t.Errorf("%s: another user reads %s", row.name, got.Body)
			}
		}
		if got := problem(t, e.api(e.bob, http.MethodGet, "/refusals/"+strings.Repeat("x", 65), "")); got != "validation requestId" {
			t.Error(got)
		}
		if got := problem(t, e.api(e.bob, http.MethodGet, "/refusals/x?all=1", "")); got != "validation all" {
			t.Error(got)
		}
	})
}
