package app

import (
	"net/http"
	"reflect"
	"slices"
	"testing"
	"time"

	"gatehouse/models"
)

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
