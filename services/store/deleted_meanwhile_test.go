package store_test

import (
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// A write that refers to a process waits for the deletion of it that is under way, and then answers
// that there is none.
func TestProcessDeletedMeanwhile(t *testing.T) {
	w := keptPostgres.emptied(t)
	ann := newUser(t, w.s, "ann@example.com")
	for name, write := range map[string]func(process string) error{
		"SaveDraft": func(process string) error {
			return errorOf(w.s.SaveDraft(t.Context(), process, ann.ID, draftFrom(1, "x"), time.Time{}))
		},
		"AskForLock": func(process string) error {
			_, _, err := w.s.AskForLock(t.Context(), models.LockRequest{ID: "r", ProcessID: process, By: models.UserRef{ID: ann.ID}, At: start, AnswerBy: start})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := must(w.s.CreateProcess(t.Context(), ann.ID, fields("one")))
			tx := must(w.raw.BeginTx(t.Context(), nil))
			defer tx.Rollback() // without effect after Commit
			_, err := tx.ExecContext(t.Context(), `DELETE FROM processes WHERE id = $1`, p.ID)
			check(t, err)
			written := make(chan error, 1)
			go func() { written <- write(p.ID) }()
			w.untilOneWaits(t, name+" does not wait for the deletion")
			check(t, tx.Commit())
			wantError(t, <-written, models.ErrNotFound)
		})
	}
}

// untilOneWaits waits until a connection waits for a lock of the database.
func (w world) untilOneWaits(t *testing.T, msg string) {
	t.Helper()
	servicestest.Eventually(t, func() (waits bool) {
		check(t, w.raw.QueryRowContext(t.Context(), `SELECT EXISTS (SELECT 1 FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock')`).Scan(&waits))
		return waits
	}, msg)
}

// A draft that is being stored while its process is deleted is kept as it becomes.
func TestDraftStoredMeanwhile(t *testing.T) {
	w := keptPostgres.emptied(t)
	ann := newUser(t, w.s, "ann@example.com")
	p := must(w.s.CreateProcess(t.Context(), ann.ID, fields("one")))
	asItIs := models.Draft{Title: p.Title, Status: p.Status, Description: p.Description, BaseVersion: 1}
	must(w.s.SaveDraft(t.Context(), p.ID, ann.ID, asItIs, time.Time{}))
	tx := must(w.raw.BeginTx(t.Context(), nil))
	defer tx.Rollback() // without effect after Commit
	_, err := tx.ExecContext(t.Context(), `UPDATE drafts SET title = 'last' WHERE process_id = $1`, p.ID)
	check(t, err)
	gone := make(chan error, 1)
	go func() { gone <- w.s.DeleteProcess(t.Context(), p.ID, ann.ID, models.WriteGuard{GrantedVersion: 1}) }()
	w.untilOneWaits(t, "the deletion does not wait for the draft")
	check(t, tx.Commit())
	check(t, <-gone)
	if got := must(w.s.OrphanedDraft(t.Context(), p.ID, ann.ID)); got.Title != "last" {
		t.Errorf("kept is %q", got.Title)
	}
}

func TestDraftOfAUserWhoIsGone(t *testing.T) {
	onBoth(t, func(t *testing.T, w world) {
		d := newDrafting(t, w)
		check(t, d.DeleteUser(t.Context(), d.bob.ID))
		wantError(t, errorOf(d.save(t, d.bob, draftFrom(2, "late"), time.Time{})), models.ErrNotFound)
	})
}
