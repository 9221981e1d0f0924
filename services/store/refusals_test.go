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
// order, or others about the same processes: neither waits for the other in a circle.
func TestRefusalsInAnyOrder(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		d := newDrafting(t, w)
		var refusals []models.Refusal
		for i := range 100 {
			if i%20 == 0 {
				d.process = must(d.CreateProcess(t.Context(), d.ann.ID, fields("another")))
			}
			refusals = append(refusals, d.refusedSave(fmt.Sprint("r-", i), d.ann, start))
		}
		reversed := slices.Clone(refusals)
		slices.Reverse(reversed)
		others := slices.Clone(reversed)
		for i := range others {
			others[i].RequestID = fmt.Sprint("other-", i)
		}
		for _, second := range [][]models.Refusal{reversed, others} {
			var writes errgroup.Group
			for range 10 {
				writes.Go(func() error { return w.s.AddRefusals(t.Context(), refusals) })
				writes.Go(func() error { return w.other.AddRefusals(t.Context(), second) })
			}
			check(t, writes.Wait())
		}
	})
}

func (d *drafting) refusedSave(request string, user models.User, at time.Time) models.Refusal {
	return models.Refusal{
		RequestID: request, User: models.UserRef{ID: user.ID, Email: user.Email}, At: at, Status: 412, Type: "precondition-failed",
		Resource: "process:" + d.process.ID, Save: true,
	}
}

// A client that repeats a save does not fill the history: it has one entry for all in a row, and
// still each request can be asked about.
func TestRefusedSavesInARow(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		d := newDrafting(t, w)
		save := func() {
			t.Helper()
			guard := models.WriteGuard{Grant: "held", GrantedVersion: d.process.Version}
			d.process = must(d.UpdateProcess(t.Context(), d.process.ID, d.ann.ID, fields(fmt.Sprint(d.process.Version)), guard))
		}
		save()
		var batch []models.Refusal
		for i := range 100 {
			batch = append(batch, d.refusedSave(fmt.Sprint("r", i), d.ann, start.Add(time.Duration(i)*time.Second)))
		}
		check(t, d.AddRefusals(t.Context(), batch[:60]))
		check(t, d.AddRefusals(t.Context(), batch[60:]))
		save() // of the same session, whose entry began before
		check(t, d.AddRefusals(t.Context(), []models.Refusal{d.refusedSave("r100", d.ann, start), d.refusedSave("r101", d.bob, start), d.refusedSave("r102", d.ann, start)}))
		must(d.UpdateProcess(t.Context(), d.process.ID, d.bob.ID, fields("last"), models.WriteGuard{GrantedVersion: d.process.Version}))

		want := "bob@example.com edited v5 title:3>last description:about 3>about last ()\n" +
			"ann@example.com refused (r102)\nbob@example.com refused (r101)\nann@example.com refused (r100)\nann@example.com refused (r99)\n" +
			"ann@example.com edited v4 title:two>3 description:about two>about 3 ()\nann@example.com edited v2 title:one>two description:about one>about two ()\n" +
			"ann@example.com created v1 title:>one status:>draft description:>about one ()"
		list := must(d.History(t.Context(), d.process.ID, models.Page{}))
		if got := entries(list); got != want {
			t.Errorf("the history is\n%s\nwant\n%s", got, want)
		}
		if at := list.Items[4].At; !at.Equal(batch[99].At) {
			t.Errorf("the entry of many says %v, want the last, %v", at, batch[99].At)
		}
		for i := range 103 {
			must(d.Refusal(t.Context(), "", fmt.Sprint("r", i), start))
		}
	})
}

// Refusals go after a day, from the history, too; drafts and versions stay.
func TestCleanUpOfRefusals(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		d := newDrafting(t, w)
		must(d.save(t, d.ann, draftFrom(1, "kept"), time.Time{}))
		refuse := func(request string, user models.User, at time.Time) {
			t.Helper()
			check(t, d.AddRefusals(t.Context(), []models.Refusal{d.refusedSave(request, user, at)}))
		}
		refuse("a", d.ann, start)
		refuse("b", d.bob, start)
		refuse("new", d.ann, start.Add(2*time.Hour))
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
