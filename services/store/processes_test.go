package store_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/store"
)

func ptr[T any](v T) *T { return &v }

func fields(title string) models.ProcessFields {
	return models.ProcessFields{Title: title, Status: "draft", Description: "about " + title}
}

func TestProcessRoundTrip(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		now := time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)
		s := openWith(t, store.Options{URL: w.url, Now: func() time.Time { return now }})
		user := newUser(t, s, "Ann@Example.com")
		f := models.ProcessFields{Title: "Übergabe 🚪", Status: "active", Description: "line\nline"}
		p := must(s.CreateProcess(t.Context(), user.ID, f))
		want := models.Process{
			ID: p.ID, Title: f.Title, Status: f.Status, Description: f.Description, Version: 1,
			CreatedAt: now.Truncate(time.Microsecond), UpdatedAt: now.Truncate(time.Microsecond),
			UpdatedBy: models.UserRef{ID: user.ID, Email: "ann@example.com"},
		}
		if p != want {
			t.Fatalf("created %+v, want %+v", p, want)
		}
		if got := must(s.Process(t.Context(), p.ID)); got != want {
			t.Fatalf("read %+v, want %+v", got, want)
		}
		for _, id := range badIDs {
			_, err := s.Process(t.Context(), id)
			wantError(t, err, models.ErrNotFound)
			_, err = s.UpdateProcess(t.Context(), id, user.ID, f, models.WriteGuard{GrantedVersion: 1})
			wantError(t, err, models.ErrNotFound)
			wantError(t, s.DeleteProcess(t.Context(), id, user.ID, models.WriteGuard{GrantedVersion: 1}), models.ErrNotFound)
		}
	})
}

func TestTitles(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		want, ids := map[string]string{}, slices.Clone(badIDs)
		for i := range 120 { // several statements, the last of them not full
			p := must(w.s.CreateProcess(t.Context(), "", fields(fmt.Sprint("Order paper ", i))))
			want[p.ID] = p.Title
			ids = append(ids, p.ID)
		}
		check(t, w.s.DeleteProcess(t.Context(), ids[len(ids)-1], "", models.WriteGuard{GrantedVersion: 1}))
		delete(want, ids[len(ids)-1])
		if got, err := w.s.Titles(t.Context(), append(ids, ids[len(badIDs)])); err != nil || !maps.Equal(got, want) {
			t.Errorf("%d titles of %d, %v", len(got), len(want), err)
		}
		if got, err := w.s.Titles(t.Context(), nil); err != nil || len(got) != 0 {
			t.Errorf("of none: %v, %v", got, err)
		}
	})
}

// The rows of the database rule: what a process looks like (version 3, last
// written under the grant "mine" or by somebody without a lock) and what each
// write is answered.
func TestDatabaseRule(t *testing.T) {
	rows := []struct {
		name      string
		lastGrant string
		guard     models.WriteGuard
		want      error
	}{
		{"granted version is current", "", models.WriteGuard{Grant: "mine", GrantedVersion: 3}, nil},
		{"without a lock, version is current", "", models.WriteGuard{GrantedVersion: 3}, nil},
		{"my own second write", "mine", models.WriteGuard{Grant: "mine", GrantedVersion: 1}, nil},
		{"somebody wrote in between", "theirs", models.WriteGuard{Grant: "mine", GrantedVersion: 2}, models.ErrVersionConflict},
		{"somebody without a lock wrote in between", "", models.WriteGuard{Grant: "mine", GrantedVersion: 2}, models.ErrVersionConflict},
		{"two without a lock", "", models.WriteGuard{GrantedVersion: 2}, models.ErrVersionConflict},
		{"If-Match holds", "", models.WriteGuard{Grant: "mine", GrantedVersion: 3, IfMatch: ptr(int64(3))}, nil},
		{"only If-Match fails", "", models.WriteGuard{Grant: "mine", GrantedVersion: 3, IfMatch: ptr(int64(2))}, models.ErrPreconditionFailed},
		{"only If-Match fails, own grant", "mine", models.WriteGuard{Grant: "mine", GrantedVersion: 1, IfMatch: ptr(int64(1))}, models.ErrPreconditionFailed},
		{"both fail", "theirs", models.WriteGuard{Grant: "mine", GrantedVersion: 2, IfMatch: ptr(int64(2))}, models.ErrPreconditionFailed},
		{"only the rule fails", "theirs", models.WriteGuard{Grant: "mine", GrantedVersion: 2, IfMatch: ptr(int64(3))}, models.ErrVersionConflict},
	}
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		user := newUser(t, s, "ann@example.com")
		prepare := func(lastGrant string) models.Process {
			p := must(s.CreateProcess(t.Context(), user.ID, fields("one")))
			p = must(s.UpdateProcess(t.Context(), p.ID, user.ID, fields("two"), models.WriteGuard{Grant: "older", GrantedVersion: 1}))
			return must(s.UpdateProcess(t.Context(), p.ID, user.ID, fields("three"), models.WriteGuard{Grant: lastGrant, GrantedVersion: 2}))
		}
		for _, row := range rows {
			t.Run(row.name, func(t *testing.T) {
				p := prepare(row.lastGrant)
				got, err := s.UpdateProcess(t.Context(), p.ID, user.ID, fields("four"), row.guard)
				if row.want == nil {
					check(t, err)
					if got.Version != 4 || got.Title != "four" || got != must(s.Process(t.Context(), p.ID)) {
						t.Fatalf("wrote %+v", got)
					}
				} else {
					wantConflict(t, err, row.want, p)
				}

				p = prepare(row.lastGrant)
				err = s.DeleteProcess(t.Context(), p.ID, user.ID, row.guard)
				if row.want != nil {
					wantConflict(t, err, row.want, p)
					return
				}
				check(t, err)
				_, err = s.Process(t.Context(), p.ID)
				wantError(t, err, models.ErrNotFound)
				next := must(s.CreateProcess(t.Context(), user.ID, fields("next")))
				if next.ID == p.ID {
					t.Fatal("an id was used again")
				}
			})
		}
	})
}

// wantConflict also checks that nothing was written.
func wantConflict(t *testing.T, err, reason error, current models.Process) {
	t.Helper()
	var conflict *models.ConflictError
	if !errors.As(err, &conflict) || !errors.Is(conflict.Reason, reason) || conflict.Current != current {
		t.Fatalf("error is %v, want %v with the process %+v", err, reason, current)
	}
}

func TestWriteWithoutLockEndsTheGrant(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		p := must(s.CreateProcess(t.Context(), "", fields("one")))
		mine := models.WriteGuard{Grant: "mine", GrantedVersion: 1}
		must(s.UpdateProcess(t.Context(), p.ID, "", fields("two"), mine))
		must(s.UpdateProcess(t.Context(), p.ID, "", fields("three"), models.WriteGuard{GrantedVersion: 2}))
		_, err := s.UpdateProcess(t.Context(), p.ID, "", fields("four"), mine)
		wantError(t, err, models.ErrVersionConflict)
	})
}

// Many writers that all read version 1: exactly one of each round writes.
func TestConcurrentWritersLoseNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		a, b := w.s, w.other // two instances
		for round := range 3 {
			p := must(a.CreateProcess(t.Context(), "", fields("start")))
			var wrote atomic.Int32
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					s := []*store.Store{a, b}[i%2]
					_, err := s.UpdateProcess(t.Context(), p.ID, "", fields(fmt.Sprint(i)), models.WriteGuard{Grant: fmt.Sprint("g", i), GrantedVersion: 1})
					switch {
					case err == nil:
						wrote.Add(1)
					case !errors.Is(err, models.ErrVersionConflict):
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if n := wrote.Load(); n != 1 {
				t.Fatalf("round %d: %d writers succeeded, want 1", round, n)
			}
			if got := must(a.Process(t.Context(), p.ID)); got.Version != 2 {
				t.Fatalf("version is %d, want 2", got.Version)
			}
		}
	})
}

func TestUpdatedByOutlivesTheUser(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		user := newUser(t, s, "gone@example.com")
		p := must(s.CreateProcess(t.Context(), user.ID, fields("kept")))
		check(t, s.DeleteUser(t.Context(), user.ID))
		if got := must(s.Process(t.Context(), p.ID)); got.UpdatedBy != (models.UserRef{ID: user.ID, Email: user.Email}) {
			t.Fatalf("updated by %+v", got.UpdatedBy)
		}
	})
}

func titles(list models.List[models.Process]) string {
	var names []string
	for _, p := range list.Items {
		names = append(names, p.Title)
	}
	return strings.Join(names, " ")
}

func TestProcessSearch(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		for _, title := range []string{"ÄRGER", "50%_off", `back\slash`, "Straße", "ΣΊΣΥΦΟΣ", "plain"} {
			must(s.CreateProcess(t.Context(), "", fields(title)))
		}
		must(s.CreateProcess(t.Context(), "", models.ProcessFields{Title: "plain too", Status: "active"}))
		for _, row := range []struct{ status, query, want string }{
			{"", "ärger", "ÄRGER"},
			{"", "RGE", "ÄRGER"},
			{"", "%", "50%_off"},
			{"", "_", "50%_off"},
			{"", "%_O", "50%_off"},
			{"", `\`, `back\slash`},
			{"", "STRAẞE", "Straße"},
			{"", "σίσυφος", "ΣΊΣΥΦΟΣ"},
			{"", "PLAIN", "plain too plain"},
			{"active", "plain", "plain too"},
			{"active", "", "plain too"},
			{"archived", "", ""},
			{"nonsense\x00", "", ""},
			{"", "' OR 1=1 --", ""},
			{"", "\xff\x00", ""},
			{"", strings.Repeat("x", 100_000), ""},
		} {
			got := titles(must(s.Processes(t.Context(), models.ProcessFilter{Status: row.status, Query: row.query}, models.Page{})))
			if got != row.want {
				t.Errorf("status %q, query %.20q: got %q, want %q", row.status, row.query, got, row.want)
			}
		}
	})
}

func TestProcessPages(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		// Several changes fall on the same microsecond.
		tick := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		count := 0
		s := openWith(t, store.Options{URL: w.url, Now: func() time.Time {
			count++
			return tick.Add(time.Duration(count/3) * time.Microsecond)
		}})
		for i := range 10 {
			must(s.CreateProcess(t.Context(), "", fields(fmt.Sprint(i))))
		}
		first := must(s.Processes(t.Context(), models.ProcessFilter{}, models.Page{})).Items[9]
		must(s.UpdateProcess(t.Context(), first.ID, "", fields("changed"), models.WriteGuard{GrantedVersion: 1}))

		var pages []string
		page := models.Page{Limit: 4}
		for {
			list := must(s.Processes(t.Context(), models.ProcessFilter{}, page))
			pages = append(pages, titles(list))
			if list.NextCursor == nil {
				break
			}
			page.Cursor = *list.NextCursor
		}
		if got := strings.Join(pages, " | "); got != "9 8 changed 7 | 6 5 4 3 | 2 1" {
			t.Fatalf("pages are %q", got)
		}
		if list := must(s.Processes(t.Context(), models.ProcessFilter{}, models.Page{Limit: 10})); list.NextCursor != nil {
			t.Fatal("a full last page has a next one")
		}
		if list := must(s.Processes(t.Context(), models.ProcessFilter{Status: "paused"}, models.Page{})); list.Items == nil {
			t.Fatal("an empty page has nil items, which is null in JSON")
		}
	})
}

func TestProcessesByTitle(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		for _, title := range []string{"beta", "Alpha", "gamma", "ALPHA", "a:b", "Delta", "alpha"} {
			must(s.CreateProcess(t.Context(), "", fields(title)))
		}
		must(s.CreateProcess(t.Context(), "", models.ProcessFields{Title: "other", Status: "active"}))
		for filter, want := range map[models.ProcessFilter]string{
			{Order: models.OrderTitle}:                                      "a:b Alpha ALPHA | alpha beta Delta | gamma other",
			{Order: models.OrderTitle, Query: "ALPH"}:                       "Alpha ALPHA alpha",
			{Order: models.OrderTitle, Status: "active"}:                    "other",
			{Order: models.OrderTitle, Query: "x"}:                          "",
			{Order: models.OrderTitle, Query: strings.Repeat("x", 100_000)}: "",
		} {
			var pages []string
			page := models.Page{Limit: 3}
			for {
				list := must(s.Processes(t.Context(), filter, page))
				pages = append(pages, titles(list))
				if list.NextCursor == nil {
					break
				}
				page.Cursor = *list.NextCursor
			}
			if got := strings.Join(pages, " | "); got != want {
				t.Errorf("%.40v: %q, want %q", filter, got, want)
			}
		}
		// What was deleted meanwhile is no reason to lose the place.
		page := must(s.Processes(t.Context(), models.ProcessFilter{Order: models.OrderTitle}, models.Page{Limit: 3}))
		check(t, s.DeleteProcess(t.Context(), page.Items[2].ID, "", models.WriteGuard{GrantedVersion: 1}))
		next := must(s.Processes(t.Context(), models.ProcessFilter{Order: models.OrderTitle}, models.Page{Limit: 3, Cursor: *page.NextCursor}))
		if got := titles(next); got != "alpha beta Delta" {
			t.Errorf("after a deletion the next page is %q", got)
		}
	})
}

func TestBadCursors(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		s := w.s
		for i := range 3 {
			newUser(t, s, fmt.Sprintf("u%d@example.com", i))
			must(s.CreateProcess(t.Context(), "", fields("x")))
			check(t, s.AddAudit(t.Context(), models.AuditEntry{At: time.Now(), Action: models.AuditSignIn}))
		}
		one := models.Page{Limit: 1}
		cursors := map[string]string{
			"processes": *must(s.Processes(t.Context(), models.ProcessFilter{}, one)).NextCursor,
			"by title":  *must(s.Processes(t.Context(), models.ProcessFilter{Order: models.OrderTitle}, one)).NextCursor,
			"users":     *must(s.Users(t.Context(), one)).NextCursor,
			"audit":     *must(s.Audit(t.Context(), "", one)).NextCursor,
		}
		lists := map[string]func(cursor string) error{
			"processes": func(c string) error {
				_, err := s.Processes(t.Context(), models.ProcessFilter{}, models.Page{Cursor: c})
				return err
			},
			"by title": func(c string) error {
				_, err := s.Processes(t.Context(), models.ProcessFilter{Order: models.OrderTitle}, models.Page{Cursor: c})
				return err
			},
			"users": func(c string) error { _, err := s.Users(t.Context(), models.Page{Cursor: c}); return err },
			"audit": func(c string) error { _, err := s.Audit(t.Context(), "", models.Page{Cursor: c}); return err },
		}
		bad := []string{"x", "!", "\x00", "cHJvY2Vzc2Vz", cursors["users"] + "=", cursors["users"][1:], strings.Repeat("A", 10_000), "\xff"}
		for list, read := range lists {
			check(t, read(cursors[list]))
			for other, cursor := range cursors {
				if other != list {
					wantError(t, read(cursor), models.ErrBadCursor)
				}
			}
			for _, cursor := range bad {
				wantError(t, read(cursor), models.ErrBadCursor)
			}
		}
	})
}
