package store_test

import (
	"errors"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/store"
)

const orphanedListed = 20 // as the store lists

func draftFrom(base int64, title string) models.Draft {
	return models.Draft{Title: title, Status: "active", Description: "line\nline 🚪", BaseVersion: base}
}

// drafting is a process of two versions, two users, and a clock.
type drafting struct {
	*store.Store
	now      time.Time
	ann, bob models.User
	process  models.Process
}

func newDrafting(t *testing.T, w world) *drafting {
	t.Helper()
	d := &drafting{now: start}
	d.Store = openWith(t, store.Options{URL: w.url, Now: func() time.Time { return d.now }})
	d.ann, d.bob = newUser(t, d.Store, "ann@example.com"), newUser(t, d.Store, "bob@example.com")
	d.process = must(d.CreateProcess(t.Context(), d.ann.ID, fields("one")))
	d.process = must(d.UpdateProcess(t.Context(), d.process.ID, d.ann.ID, fields("two"), models.WriteGuard{GrantedVersion: 1}))
	return d
}

func (d *drafting) save(t *testing.T, user models.User, draft models.Draft, unchangedSince time.Time) (models.Draft, error) {
	t.Helper()
	return d.SaveDraft(t.Context(), d.process.ID, user.ID, draft, unchangedSince)
}

func TestDrafts(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		d := newDrafting(t, w)
		id := d.process.ID
		wantError(t, errorOf(d.Draft(t.Context(), id, d.ann.ID)), models.ErrNotFound)

		want := draftFrom(2, "Übergabe")
		want.SavedAt = d.now
		if got := must(d.save(t, d.ann, want, time.Time{})); got != want {
			t.Fatalf("saved %+v, want %+v", got, want)
		}
		d.now = d.now.Add(time.Minute)
		older := draftFrom(1, "") // it began from an older version, and is unfinished
		older.SavedAt = d.now
		if got := must(d.save(t, d.ann, older, time.Time{})); got != older {
			t.Fatalf("saved %+v, want %+v", got, older)
		}
		if got := must(d.Draft(t.Context(), id, d.ann.ID)); got != older {
			t.Fatalf("read %+v, want %+v", got, older)
		}
		wantError(t, errorOf(d.Draft(t.Context(), id, d.bob.ID)), models.ErrNotFound)
		d.now = d.now.Add(time.Minute)
		must(d.save(t, d.bob, draftFrom(2, "bob's"), time.Time{}))

		of := []models.DraftRef{{UserID: d.bob.ID, Email: d.bob.Email, SavedAt: d.now}, {UserID: d.ann.ID, Email: d.ann.Email, SavedAt: older.SavedAt}}
		if got := must(d.Drafts(t.Context(), id)); len(got) != 2 || got[0] != of[0] || got[1] != of[1] {
			t.Errorf("drafts are %+v, want %+v", got, of)
		}
		process, refs, err := d.ProcessWithDrafts(t.Context(), id)
		check(t, err)
		if process != d.process || len(refs) != 2 || refs[0] != of[0] || refs[1] != of[1] {
			t.Errorf("%+v with drafts %+v", process, refs)
		}

		check(t, d.DeleteDraft(t.Context(), id, d.ann.ID, time.Time{}))
		wantError(t, d.DeleteDraft(t.Context(), id, d.ann.ID, time.Time{}), models.ErrNotFound)
		if got := must(d.Drafts(t.Context(), id)); len(got) != 1 || got[0] != of[0] {
			t.Errorf("drafts are %+v, want bob's", got)
		}
		check(t, d.DeleteUser(t.Context(), d.bob.ID))
		if _, refs, err := d.ProcessWithDrafts(t.Context(), id); err != nil || refs == nil || len(refs) != 0 {
			t.Errorf("drafts of a user who was deleted: %+v, %v", refs, err)
		}
	})
}

// What was typed into a process outlives it, and its writer's account does not.
func TestOrphanedDrafts(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		d := newDrafting(t, w)
		id := d.process.ID
		typed := must(d.save(t, d.ann, draftFrom(1, "typed"), time.Time{}))
		asItIs := models.Draft{Title: d.process.Title, Status: d.process.Status, Description: d.process.Description, BaseVersion: 2}
		must(d.save(t, d.bob, asItIs, time.Time{}))

		var refused *models.ConflictError
		if err := d.DeleteProcess(t.Context(), id, d.bob.ID, models.WriteGuard{GrantedVersion: 1}); !errors.As(err, &refused) {
			t.Fatal(err)
		}
		if got := must(d.OrphanedDrafts(t.Context(), d.ann.ID)); len(got) != 0 {
			t.Errorf("of a process that is still there: %+v", got)
		}
		check(t, d.DeleteProcess(t.Context(), id, d.bob.ID, models.WriteGuard{GrantedVersion: 2}))
		want := models.OrphanedDraft{ProcessID: id, Title: "typed", SavedAt: typed.SavedAt}
		if got := must(d.OrphanedDrafts(t.Context(), d.ann.ID)); len(got) != 1 || got[0] != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		if got := must(d.OrphanedDraft(t.Context(), id, d.ann.ID)); got != typed {
			t.Errorf("%+v, want %+v", got, typed)
		}
		if got := must(d.OrphanedDrafts(t.Context(), d.bob.ID)); len(got) != 0 {
			t.Errorf("a text that is lost to nobody: %+v", got)
		}
		wantError(t, errorOf(d.Draft(t.Context(), id, d.ann.ID)), models.ErrNotFound)
		wantError(t, errorOf(d.OrphanedDraft(t.Context(), id, d.bob.ID)), models.ErrNotFound)
		wantError(t, d.DeleteOrphanedDraft(t.Context(), id, d.bob.ID, typed.SavedAt), models.ErrNotFound)
		wantError(t, d.DeleteOrphanedDraft(t.Context(), id, d.ann.ID, typed.SavedAt.Add(-time.Second)), models.ErrNotFound)
		check(t, d.DeleteOrphanedDraft(t.Context(), id, d.ann.ID, typed.SavedAt))
		wantError(t, d.DeleteOrphanedDraft(t.Context(), id, d.ann.ID, typed.SavedAt), models.ErrNotFound)

		for range orphanedListed + 1 { // the account goes with as many as there are
			d.process = must(d.CreateProcess(t.Context(), d.ann.ID, fields("one")))
			d.now = d.now.Add(time.Minute)
			must(d.save(t, d.ann, draftFrom(1, d.process.ID), time.Time{}))
			check(t, d.DeleteProcess(t.Context(), d.process.ID, d.bob.ID, models.WriteGuard{GrantedVersion: 1}))
		}
		if got := must(d.OrphanedDrafts(t.Context(), d.ann.ID)); len(got) != orphanedListed || got[0].Title != d.process.ID {
			t.Errorf("%d are listed: %+v", len(got), got)
		}
		check(t, d.DeleteUser(t.Context(), d.ann.ID))
		if got := must(d.OrphanedDrafts(t.Context(), d.ann.ID)); len(got) != 0 {
			t.Errorf("of a user who was deleted: %+v", got)
		}
		for _, bad := range badIDs {
			if got := must(d.OrphanedDrafts(t.Context(), bad)); len(got) != 0 {
				t.Errorf("of the user %q: %+v", bad, got)
			}
			wantError(t, errorOf(d.OrphanedDraft(t.Context(), bad, d.bob.ID)), models.ErrNotFound)
			wantError(t, d.DeleteOrphanedDraft(t.Context(), bad, d.bob.ID, start), models.ErrNotFound)
		}
	})
}

func TestDraftOfNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		d := newDrafting(t, w)
		gone := must(d.CreateProcess(t.Context(), d.ann.ID, fields("gone")))
		must(d.SaveDraft(t.Context(), gone.ID, d.ann.ID, draftFrom(1, "x"), time.Time{}))
		check(t, d.DeleteProcess(t.Context(), gone.ID, d.ann.ID, models.WriteGuard{GrantedVersion: 1}))
		for _, id := range append([]string{gone.ID}, badIDs...) {
			wantError(t, errorOf(d.Draft(t.Context(), id, d.ann.ID)), models.ErrNotFound)
			wantError(t, errorOf(d.SaveDraft(t.Context(), id, d.ann.ID, draftFrom(1, "x"), time.Time{})), models.ErrNotFound)
			wantError(t, d.DeleteDraft(t.Context(), id, d.ann.ID, time.Time{}), models.ErrNotFound)
			if got, err := d.Drafts(t.Context(), id); err != nil || len(got) != 0 {
				t.Errorf("drafts of %q: %+v, %v", id, got, err)
			}
			_, _, err := d.ProcessWithDrafts(t.Context(), id)
			wantError(t, err, models.ErrNotFound)
		}
		var invalid *models.ValidationError
		if _, err := d.save(t, d.ann, draftFrom(3, "x"), time.Time{}); !errors.As(err, &invalid) || invalid.Errors[0].Field != "baseVersion" {
			t.Errorf("a draft of a version that is still to come: %v", err)
		}
	})
}

// Two windows of one user: a draft is only replaced or deleted by who knows the one that is stored.
func TestDraftUnchangedSince(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		d := newDrafting(t, w)
		first := must(d.save(t, d.ann, draftFrom(2, "first"), start.Add(-time.Hour))) // there was none to be changed
		d.now = d.now.Add(time.Microsecond)
		second := must(d.save(t, d.ann, draftFrom(2, "second"), first.SavedAt))
		latest := second
		refused := func(err error) {
			t.Helper()
			var conflict *models.DraftConflictError
			if !errors.As(err, &conflict) || conflict.Current != latest || !errors.Is(err, models.ErrPreconditionFailed) {
				t.Errorf("error is %v, want a conflict with %+v", err, latest)
			}
		}
		refused(errorOf(d.save(t, d.ann, draftFrom(2, "late"), first.SavedAt)))
		refused(d.DeleteDraft(t.Context(), d.process.ID, d.ann.ID, first.SavedAt))
		if got := must(d.Draft(t.Context(), d.process.ID, d.ann.ID)); got != second {
			t.Errorf("the draft is %+v, want %+v", got, second)
		}
		// The clock of another instance is behind, and so is one that was set back.
		d.now = d.now.Add(-2 * time.Second)
		latest = must(d.save(t, d.ann, draftFrom(2, "third"), time.Time{}))
		refused(errorOf(d.save(t, d.ann, draftFrom(2, "late"), second.SavedAt)))
		refused(d.DeleteDraft(t.Context(), d.process.ID, d.ann.ID, second.SavedAt))
		check(t, d.DeleteDraft(t.Context(), d.process.ID, d.ann.ID, latest.SavedAt))
	})
}
