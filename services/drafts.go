package services

import (
	"context"
	"errors"
	"time"

	"gatehouse/models"
	"gatehouse/services/merge"
)

type draftStore interface {
	Draft(ctx context.Context, processID, userID string) (models.Draft, error)
	SaveDraft(ctx context.Context, processID, userID string, draft models.Draft, unchangedSince time.Time) (models.Draft, error)
	DeleteDraft(ctx context.Context, processID, userID string, unchangedSince time.Time) error
	OrphanedDrafts(ctx context.Context, userID string) ([]models.OrphanedDraft, error)
	OrphanedDraft(ctx context.Context, processID, userID string) (models.Draft, error)
	DeleteOrphanedDraft(ctx context.Context, processID, userID string, savedAt time.Time) error
}

// Draft returns what a user has typed into a process and not saved; models.ErrNotFound if there is
// none. Drafts need no lock and no Redis, and are kept until they are deleted: a save of the
// process leaves them.
func (p *Processes) Draft(ctx context.Context, user models.UserRef, id string) (models.Draft, error) {
	return p.store.Draft(ctx, id, user.ID)
}

// SaveDraft stores a draft in place of the one before, whatever version that began from. The caller
// has validated it. With unchangedSince, which is no condition if it is zero, only if the stored
// one was not saved later. It returns the draft with its SavedAt. Errors:
//
//   - models.ErrNotFound: there is no such process,
//   - *models.ValidationError: the process has no version BaseVersion yet,
//   - *models.DraftConflictError: the draft was saved after unchangedSince.
func (p *Processes) SaveDraft(ctx context.Context, user models.UserRef, id string, draft models.Draft, unchangedSince time.Time) (models.Draft, error) {
	return p.store.SaveDraft(ctx, id, user.ID, draft, unchangedSince)
}

// DeleteDraft deletes a draft, under the same condition as SaveDraft. Errors are models.ErrNotFound
// if there is none, and *models.DraftConflictError.
func (p *Processes) DeleteDraft(ctx context.Context, user models.UserRef, id string, unchangedSince time.Time) error {
	return p.store.DeleteDraft(ctx, id, user.ID, unchangedSince)
}

// SettleDraft deletes a user's draft after its text was saved: the draft that was stored at known
// or before, zero for a page that knows of none, and one that has the saved text. A later one with
// another text is of another tab: it stays, and other is true.
func (p *Processes) SettleDraft(ctx context.Context, user models.UserRef, id string, saved models.ProcessFields, known time.Time) (other bool, err error) {
	if known.IsZero() {
		known = time.Unix(0, 0) // the zero time is no condition
	}
	err = p.store.DeleteDraft(ctx, id, user.ID, known)
	var later *models.DraftConflictError
	if errors.As(err, &later) && merge.Changes(merge.Clean(saved), merge.Clean(later.Current.Fields())) == nil {
		err = p.store.DeleteDraft(ctx, id, user.ID, later.Current.SavedAt)
	}
	switch {
	case errors.As(err, &later):
		return true, nil
	case errors.Is(err, models.ErrNotFound):
		return false, nil
	}
	return false, err
}

// OrphanedDrafts returns a user's drafts of processes that were deleted, the latest 20 of those that
// had another text than the process.
func (p *Processes) OrphanedDrafts(ctx context.Context, user models.UserRef) ([]models.OrphanedDraft, error) {
	return p.store.OrphanedDrafts(ctx, user.ID)
}

// OrphanedDraft returns one of OrphanedDrafts; models.ErrNotFound if there is none.
func (p *Processes) OrphanedDraft(ctx context.Context, user models.UserRef, id string) (models.Draft, error) {
	return p.store.OrphanedDraft(ctx, id, user.ID)
}

// DeleteOrphanedDraft deletes one of OrphanedDrafts, as it was saved at savedAt; models.ErrNotFound if
// there is no such one.
func (p *Processes) DeleteOrphanedDraft(ctx context.Context, user models.UserRef, id string, savedAt time.Time) error {
	return p.store.DeleteOrphanedDraft(ctx, id, user.ID, savedAt)
}

// SettleOrphanedDraft deletes one of OrphanedDrafts after its text has become a new process, under the
// condition of SettleDraft.
func (p *Processes) SettleOrphanedDraft(ctx context.Context, user models.UserRef, id string, saved models.ProcessFields, known time.Time) error {
	draft, err := p.store.OrphanedDraft(ctx, id, user.ID)
	if err == nil && (!draft.SavedAt.After(known) || merge.Changes(merge.Clean(saved), merge.Clean(draft.Fields())) == nil) {
		err = p.store.DeleteOrphanedDraft(ctx, id, user.ID, draft.SavedAt)
	}
	if errors.Is(err, models.ErrNotFound) {
		return nil
	}
	return err
}
