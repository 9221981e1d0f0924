package store_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"gatehouse/models"
	"gatehouse/services/store"
)

func TestRefusals(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		d := newDrafting(t, w)
		ann, bob := models.UserRef{ID: d.ann.ID, Email: d.ann.Email}, models.UserRef{ID: d.bob.ID, Email: d.bob.Email}
		full := models.Refusal{
			RequestID: "r-1", User: ann, At: start, Status: 409, Type: "lock-not-held", Resource: "process:" + d.process.ID, Version: 2,
			Detail: "Übergabe \x00 \xff", Holder: json.RawMessage(`{"userId":"7"}`), EndedBy: json.RawMessage(`{"how":"forced"}`),
		}
		plain := models.Refusal{RequestID: "r-2", User: bob, At: start, Status: 428, Type: "lock-token-required", Resource: "process:99", Save: true}
		same := models.Refusal{RequestID: "r-1", User: bob, At: start.Add(time.Second), Status: 423, Type: "locked", Resource: "process:1"}
		check(t, d.AddRefusals(t.Context(), []models.Refusal{plain, full}))
		check(t, d.AddRefusals(t.Context(), []models.Refusal{{RequestID: "r-1", User: bob, At: start, Status: 412, Type: "precondition-failed", Resource: "process:1"}, same}))
		full.Detail = "Übergabe \x00 \uFFFD"

		for _, row := range []struct {
			user, request string
			since         time.Time
			want          models.Refusal
		}{
			{ann.ID, "r-1", start, full},
			{bob.ID, "r-2", start, plain},
			{bob.ID, "r-1", start, same}, // the later one of the same request
			{"", "r-1", start, same},     // of anybody's the latest
			{"", "r-2", start.Add(-time.Hour), plain},
		} {
			row.want.User.Email, row.want.Save = "", false // not kept
			if got := must(d.Refusal(t.Context(), row.user, row.request, row.since)); !reflect.DeepEqual(got, row.want) {
				t.Errorf("refusal %s of %q is\n%+v, want\n%+v", row.request, row.user, got, row.want)
			}
		}
		for _, row := range [][2]string{{ann.ID, "r-2"}, {ann.ID, ""}, {"x", "r-1"}, {"", "r-3"}, {"", "\x00"}, {"", strings.Repeat("r", 10_000)}} {
			wantError(t, errorOf(d.Refusal(t.Context(), row[0], row[1], start)), models.ErrNotFound)
		}
		wantError(t, errorOf(d.Refusal(t.Context(), ann.ID, "r-1", start.Add(time.Microsecond))), models.ErrNotFound)
		// There never was a process 99, so it has no history.
		wantError(t, errorOf(d.History(t.Context(), "99", models.Page{})), models.ErrNotFound)
	})
}

// Clients choose the ids of their requests, and so two instances may store the same ones, in any
// order: neither waits for the other in a circle.
func TestRefusalsInAnyOrder(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		ann := newUser(t, w.s, "ann@example.com")
		refusals := make([]models.Refusal, 100)
		for i := range refusals {
			refusals[i] = models.Refusal{RequestID: fmt.Sprint("r-", i), User: models.UserRef{ID: ann.ID}, At: start, Status: 423, Type: "locked", Resource: "process:1"}
		}
		var writes errgroup.Group
		for _, s := range []*store.Store{w.s, w.other} {
			batch := slices.Clone(refusals)
			for range 20 {
				writes.Go(func() error { return s.AddRefusals(t.Context(), batch) })
			}
			slices.Reverse(refusals)
		}
		check(t, writes.Wait())
	})
}

// Refusals go after a day, from the history, too; drafts and versions stay.
func TestCleanUpOfRefusals(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		d := newDrafting(t, w)
		must(d.save(t, d.ann, draftFrom(1, "kept"), time.Time{}))
		refuse := func(request string, at time.Time) {
			t.Helper()
			check(t, d.AddRefusals(t.Context(), []models.Refusal{{
				RequestID: request, User: models.UserRef{ID: d.ann.ID, Email: d.ann.Email}, At: at, Status: 412, Resource: "process:" + d.process.ID, Save: true,
			}}))
		}
		refuse("a", start)
		refuse("b", start)
		refuse("new", start.Add(2*time.Hour))
		removed := func(limit int) int {
			t.Helper()
			return must(d.CleanUp(t.Context(), start.Add(25*time.Hour), limit))
		}
		if a, b, c := removed(1), removed(1), removed(10); a != 2 || b != 2 || c != 0 {
			t.Errorf("removed %d, %d and %d rows, want 2, 2 and 0", a, b, c)
		}
		if got := must(d.Refusal(t.Context(), "", "new", start)); got.RequestID != "new" {
			t.Errorf("%+v", got)
		}
		want := "ann@example.com refused (new)\nann@example.com edited v2 title:one>two description:about one>about two ()\n" +
			"ann@example.com created v1 title:>one status:>draft description:>about one ()"
		if got := entries(must(d.History(t.Context(), d.process.ID, models.Page{}))); got != want {
			t.Errorf("the history is\n%s", got)
		}
		must(d.Draft(t.Context(), d.process.ID, d.ann.ID))
	})
}
