package app

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/store"
)

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
