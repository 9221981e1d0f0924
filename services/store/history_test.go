package store_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/store"
)

// entries writes a page of the history as a transcript, newest first.
func entries(list models.List[models.HistoryEntry]) string {
	var lines []string
	for _, e := range list.Items {
		line := fmt.Sprintf("%s %s", e.Actor.Email, e.How)
		if e.Version > 0 {
			line += fmt.Sprint(" v", e.Version)
		}
		if e.Fence != nil {
			line += fmt.Sprint(" #", *e.Fence)
		}
		for _, c := range e.Changes {
			line += fmt.Sprintf(" %s:%s>%s", c.Field, c.From, c.To)
		}
		if e.LockEnded != nil {
			line += fmt.Sprintf(" [%s %s %s]", e.LockEnded.How, e.LockEnded.By.Email, e.LockEnded.Reason)
		}
		lines = append(lines, line+" ("+e.RequestID+")")
	}
	return strings.Join(lines, "\n")
}

func TestHistory(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		d := newDrafting(t, w)
		version := func(user models.User, request, title string, g models.WriteGuard) {
			t.Helper()
			d.now = d.now.Add(time.Second)
			ctx := models.WithRequestID(t.Context(), request)
			f := models.ProcessFields{Title: title, Status: d.process.Status, Description: d.process.Description}
			g.GrantedVersion = d.process.Version
			d.process = must(d.UpdateProcess(ctx, d.process.ID, user.ID, f, g))
		}
		d.process = must(d.CreateProcess(models.WithRequestID(t.Context(), "r1"), d.ann.ID, models.ProcessFields{Title: "a", Status: "draft"}))
		mine := models.WriteGuard{Grant: "mine", Fence: new(int64(7))}
		version(d.ann, "r2", "b", mine)
		began := d.now
		version(d.ann, "r3", "c", mine)
		version(d.ann, "r4", "d", mine)
		ended := d.now
		version(d.bob, "r5", "e", models.WriteGuard{Grant: "bob's", How: models.HowQuickUpdate, Fence: new(int64(8))})
		version(d.bob, "r6", "b", models.WriteGuard{Grant: "bob's next", How: models.HowRestored})
		version(d.bob, "r7", "f", models.WriteGuard{Grant: "bob's next"})
		version(d.bob, "r8", "g", models.WriteGuard{}) // without a lock, as an instance without Redis may write
		version(d.bob, "r9", "h", models.WriteGuard{})
		check(t, d.AddRefusals(t.Context(), []models.Refusal{
			{RequestID: "r10", User: models.UserRef{ID: d.ann.ID, Email: d.ann.Email}, At: d.now, Status: 409, Type: "lock-not-held", Resource: "process:" + d.process.ID, Save: true},
			{RequestID: "r11", User: models.UserRef{ID: d.ann.ID, Email: d.ann.Email}, At: d.now, Status: 423, Type: "locked", Resource: "process:" + d.process.ID},
		}))
		version(d.bob, "r12", "i", models.WriteGuard{Grant: "last"})
		check(t, d.AddRefusals(t.Context(), []models.Refusal{
			{RequestID: "r13", User: models.UserRef{ID: d.ann.ID, Email: d.ann.Email}, At: d.now, Status: 412, Type: "precondition-failed", Resource: "process:" + d.process.ID, Save: true},
		}))
		version(d.bob, "r14", "i", models.WriteGuard{Grant: "last"}) // another's refused save does not end a session
		wantError(t, errorOf(d.UpdateProcess(t.Context(), d.process.ID, d.ann.ID, fields("x"), models.WriteGuard{GrantedVersion: 1})), models.ErrVersionConflict)
		id := d.process.ID
		wantError(t, d.DeleteProcess(t.Context(), id, d.ann.ID, models.WriteGuard{GrantedVersion: 1}), models.ErrVersionConflict)
		check(t, d.DeleteProcess(models.WithRequestID(t.Context(), "r15"), id, d.ann.ID, models.WriteGuard{GrantedVersion: d.process.Version, Fence: new(int64(9))}))
		must(d.CreateProcess(t.Context(), d.ann.ID, fields("another")))
		end := func(grant, how string, by models.User, reason string) {
			t.Helper()
			end := models.LockEnd{How: how, By: models.UserRef{ID: by.ID, Email: by.Email}, Reason: reason, At: d.now}
			check(t, d.AddLockEnds(t.Context(), models.EndedLock{Grant: grant, Resource: "process:" + id, End: end}))
		}
		end("mine", models.LockExpired, models.User{}, "")
		end("bob's next", models.LockExpired, models.User{}, "")
		end("bob's next", models.LockForced, d.ann, "why") // it had been brought back
		end("another grant", models.LockForced, d.ann, "")

		want := strings.Join([]string{
			"ann@example.com deleted #9 (r15)",
			"ann@example.com refused (r13)",
			"bob@example.com edited v11 title:h>i (r14)",
			"ann@example.com refused (r10)",
			"bob@example.com edited v9 title:g>h (r9)",
			"bob@example.com edited v8 title:f>g (r8)",
			"bob@example.com edited v7 title:b>f [forced ann@example.com why] (r7)",
			"bob@example.com restored v6 title:e>b [forced ann@example.com why] (r6)",
			"bob@example.com quick-update v5 #8 title:d>e (r5)",
			"ann@example.com edited v4 #7 title:a>d [expired  ] (r4)",
			"ann@example.com created v1 title:>a status:>draft (r1)",
		}, "\n")
		all := must(d.History(t.Context(), id, models.Page{}))
		if got := entries(all); got != want || all.NextCursor != nil {
			t.Errorf("the history is\n%s\nwant\n%s", got, want)
		}
		if session := all.Items[9]; !session.At.Equal(began) || !session.EndedAt.Equal(ended) || session.Actor.ID != d.ann.ID {
			t.Errorf("the session is %+v", session)
		}
		if one := all.Items[8]; !one.EndedAt.IsZero() {
			t.Errorf("one save ended at %v", one.EndedAt)
		}

		var paged []string
		for page := (models.Page{Limit: 4}); ; {
			list := must(d.History(t.Context(), id, page))
			paged = append(paged, entries(list))
			if list.NextCursor == nil {
				break
			}
			page.Cursor = *list.NextCursor
		}
		if got := strings.Join(paged, "\n"); got != want || len(paged) != 3 {
			t.Errorf("in %d pages:\n%s", len(paged), got)
		}
		must(d.CleanUp(t.Context(), start.Add(25*time.Hour), 100))
		wantError(t, errorOf(d.LockEnd(t.Context(), "mine")), models.ErrNotFound)
		if got := entries(must(d.History(t.Context(), id, models.Page{}))); strings.Count(got, "forced") != 2 || strings.Count(got, "expired") != 1 {
			t.Errorf("a day later it does not know how locks ended:\n%s", got)
		}
	})
}

func TestVersions(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		d := newDrafting(t, w)
		first, second := d.process, d.process
		first.Title, first.Description, first.Version, first.UpdatedAt = "one", "about one", 1, first.CreatedAt
		for deleted := range 2 {
			if got := must(d.Version(t.Context(), d.process.ID, 1)); got != first {
				t.Errorf("%d: version 1 is %+v, want %+v", deleted, got, first)
			}
			if got := must(d.Version(t.Context(), d.process.ID, 2)); got != second {
				t.Errorf("%d: version 2 is %+v, want %+v", deleted, got, second)
			}
			for _, n := range []int64{-1, 0, 3, 1 << 62} {
				wantError(t, errorOf(d.Version(t.Context(), d.process.ID, n)), models.ErrNotFound)
			}
			if deleted == 0 {
				check(t, d.DeleteProcess(t.Context(), d.process.ID, d.ann.ID, models.WriteGuard{GrantedVersion: 2}))
			}
		}
		for _, id := range badIDs {
			wantError(t, errorOf(d.Version(t.Context(), id, 1)), models.ErrNotFound)
			wantError(t, errorOf(d.History(t.Context(), id, models.Page{})), models.ErrNotFound)
		}
		other := must(d.Processes(t.Context(), models.ProcessFilter{}, models.Page{Limit: 1}))
		for _, cursor := range []string{"x", "\xff", strings.Repeat("A", 1000)} {
			wantError(t, errorOf(d.History(t.Context(), d.process.ID, models.Page{Cursor: cursor})), models.ErrBadCursor)
		}
		if other.NextCursor != nil {
			t.Error("the deleted process is listed")
		}
	})
}

// Of many writers at once each that is acknowledged has its version, and no other has one.
func TestVersionsOfConcurrentWriters(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		p := must(w.s.CreateProcess(t.Context(), "", fields("start")))
		var mu sync.Mutex
		want := []string{"start"}
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() {
				s, title := []*store.Store{w.s, w.other}[i%2], fmt.Sprint(i)
				for version := int64(1); ; {
					got, err := s.UpdateProcess(t.Context(), p.ID, "", fields(title), models.WriteGuard{GrantedVersion: version})
					var conflict *models.ConflictError
					if errors.As(err, &conflict) {
						version = conflict.Current.Version
						continue
					}
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					defer mu.Unlock()
					want = slices.Grow(want, int(got.Version))[:max(len(want), int(got.Version))]
					want[got.Version-1] = title
					return
				}
			})
		}
		wg.Wait()
		for i, title := range want {
			if got := must(w.s.Version(t.Context(), p.ID, int64(i+1))); got.Title != title {
				t.Errorf("version %d is %q, want %q", i+1, got.Title, title)
			}
		}
		if len(want) != 7 {
			t.Errorf("%d versions", len(want))
		}
	})
}

// A process from before there was a history begins with its present version.
func TestHistoryBeginsWithWhatIsThere(t *testing.T) {
	onNew(t, func(t *testing.T, url string) {
		s := open(t, url)
		fresh := must(s.CreateProcess(t.Context(), "", fields("fresh")))
		old := must(s.CreateProcess(t.Context(), "", fields("old")))
		old = must(s.UpdateProcess(t.Context(), old.ID, "", fields("as it is"), models.WriteGuard{Grant: "g", GrantedVersion: 1}))
		check(t, s.Close())
		behind(t, url, append(beforeEditing(url), `DELETE FROM goose_db_version WHERE version_id >= 5`)...)
		s = open(t, url)
		must(s.UpdateProcess(t.Context(), old.ID, "", fields("later"), models.WriteGuard{Grant: "g", GrantedVersion: 2}))
		if got := entries(must(s.History(t.Context(), fresh.ID, models.Page{}))); got != " created v1 title:>fresh status:>draft description:>about fresh ()" {
			t.Errorf("the history of a process of one version is\n%s", got)
		}
		if got := entries(must(s.History(t.Context(), old.ID, models.Page{}))); got != " edited v3 ()" {
			t.Errorf("the history of a process that had versions before is\n%s", got)
		}
		if got := must(s.Version(t.Context(), old.ID, 2)); got != old {
			t.Errorf("the version that was there is %+v, want %+v", got, old)
		}
	})
}

// A page of long texts ends early, and nothing is left out between two pages.
func TestHistoryPagesAreBounded(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		d := newDrafting(t, w)
		d.process = must(d.CreateProcess(t.Context(), d.ann.ID, models.ProcessFields{Title: "long", Status: "draft"}))
		const saves, length = 16, 40_000
		for i := range saves {
			f := models.ProcessFields{Title: "long", Status: "draft", Description: strings.Repeat(string(rune('a'+i%26)), length)}
			d.process = must(d.UpdateProcess(t.Context(), d.process.ID, d.ann.ID, f, models.WriteGuard{GrantedVersion: d.process.Version}))
		}
		var versions []int64
		pages := 0
		for page := (models.Page{Limit: 200}); ; pages++ {
			list := must(d.History(t.Context(), d.process.ID, page))
			size := 0
			for _, e := range list.Items {
				versions = append(versions, e.Version)
				for _, c := range e.Changes {
					size += len(c.From) + len(c.To)
				}
			}
			if size > 1<<20+2*length || list.NextCursor != nil && size < 1<<20 {
				t.Errorf("page %d: %d entries with %d bytes", pages, len(list.Items), size)
			}
			if list.NextCursor == nil {
				break
			}
			page.Cursor = *list.NextCursor
		}
		for i, version := range versions {
			if version != saves+1-int64(i) {
				t.Fatalf("versions %v", versions)
			}
		}
		if len(versions) != saves+1 || pages < 1 {
			t.Errorf("%d entries on %d pages more than one", len(versions), pages)
		}
		if list := must(d.History(t.Context(), d.process.ID, models.Page{Limit: 3})); len(list.Items) != 3 || list.NextCursor == nil {
			t.Errorf("%d entries of 3", len(list.Items))
		}
	})
}
