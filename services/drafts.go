package services

import (
	"context"
	"time"

	"gatehouse/models"
)

type draftStore interface {
	Draft(ctx context.Context, processID, userID string) (models.Draft, error)
	SaveDraft(ctx context.Context, processID, userID string, draft models.Draft, unchangedSince time.Time) (models.Draft, error)
	DeleteDraft(ctx context.Context, processID, userID string, unchangedSince time.Time) error
}

// Draft returns what a user has typed into a process and not saved; models.ErrNotFound if there is
// none. Drafts need no lock and no Redis, and are kept until they are deleted: a save of the
// process leaves them.
func (p *Processes) Draft(ctx context.Context, user models.UserRef, id string) (models.Draft, error) {
	return p.store.Draft(ctx, id, user.ID)
}

// SaveDraft stores a draft in place of the one before, whatever version that began from. The caller
// has validated it. With unchangedSince, which is no condition if it is zero, only if the stored one
// was not saved later. It returns the draft with its SavedAt. Errors:
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
