package handlers

import (
	"context"
	"errors"
	"time"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
	"gatehouse/services/merge"
)

// draftOf is what a user has typed and not saved; nil if there is nothing but what is stored. known
// is when the draft was stored, in either case; zero if there is none.
func (h *Handlers) draftOf(ctx context.Context, user models.UserRef, process models.Process) (unsaved *models.Draft, known time.Time, err error) {
	draft, err := h.Processes.Draft(ctx, user, process.ID)
	switch {
	case errors.Is(err, models.ErrNotFound):
		return nil, time.Time{}, nil
	case err != nil:
		return nil, time.Time{}, err
	case merge.Changes(models.ProcessPatch{}.Apply(process), draft.Fields()) == nil:
		return nil, draft.SavedAt, nil
	}
	return &draft, draft.SavedAt, nil
}

// keepDraft is storeDraft, unless nothing of the text is its user's: then there is nothing to keep.
func (h *Handlers) keepDraft(c *gin.Context, id string, typed *text) bool {
	process, err := h.Processes.Process(c.Request.Context(), id)
	if err == nil && h.untouched(c, process, *typed) {
		h.settleDraft(c, id, *typed)
		return true
	}
	return h.storeDraft(c, id, typed)
}

// storeDraft keeps a text that could not be saved, notes in it when, and reports whether it did: a
// text that no process can have, such as one of 200,000 characters, is in the page alone. So is one
// that would replace what its user typed in another tab since.
func (h *Handlers) storeDraft(c *gin.Context, id string, typed *text) bool {
	draft := models.Draft{Title: typed.Title, Status: typed.Status, Description: typed.Description, BaseVersion: typed.base}
	if draft.Validate() != nil || !typed.other.IsZero() {
		return false
	}
	known := typed.draft
	if known.IsZero() {
		known = time.Unix(0, 0) // the zero time is no condition
	}
	saved, err := h.Processes.SaveDraft(c.Request.Context(), signedIn(c).User, id, draft, known)
	var later *models.DraftConflictError
	switch {
	case err == nil:
		typed.draft = saved.SavedAt
		return true
	case errors.As(err, &later):
		typed.draft = later.Current.SavedAt
		if merge.Changes(draft.Fields(), later.Current.Fields()) == nil {
			return true
		}
		typed.other = typed.draft
	default:
		_ = c.Error(err)
	}
	return false
}

// untouched reports whether nothing of a text is its user's: what is different from the process as
// it is now, others have saved since. It is false if that cannot be found out.
func (h *Handlers) untouched(c *gin.Context, process models.Process, typed text) bool {
	merged, err := h.merge(c.Request.Context(), process, typed)
	return err == nil && !merged.ChangedBy(merge.Mine)
}

// settleDraft deletes the reader's draft of a text that is what is stored. other: the reader has
// typed another one since, in another tab; it stays.
func (h *Handlers) settleDraft(c *gin.Context, id string, stored text) (other bool) {
	other, err := h.Processes.SettleDraft(c.Request.Context(), signedIn(c).User, id, stored.ProcessFields, stored.draft)
	if err != nil {
		_ = c.Error(err) // the user finds it again, and can discard it
	}
	return other
}

// discardForm deletes the reader's draft, as the page showed it: one that another tab stored since
// stays. With a lock it goes back to the form.
func (h *Handlers) discardForm(c *gin.Context) error {
	form, err := formValues(c, "lock")
	if err != nil {
		return err
	}
	if isOtherUsers(c) {
		return errOtherUser
	}
	id, err := pathID(c)
	if err != nil {
		return h.noRoute(c)
	}
	ctx, me := c.Request.Context(), signedIn(c).User
	flash := middleware.Flash{Text: "Your unsaved changes are discarded."}
	other := middleware.Flash{Text: "Nothing was discarded: you typed something else since, in another tab.", Failed: true}
	_, err = h.Processes.Process(ctx, id)
	if errors.Is(err, models.ErrNotFound) {
		err = h.Processes.DeleteOrphanedDraft(ctx, me, id, draftKnown(c))
		if errors.Is(err, models.ErrNotFound) {
			_, err = h.Processes.OrphanedDraft(ctx, me, id)
			flash = other
		}
		if err != nil {
			return err
		}
		return goWith(c, processesRoute, flash)
	}
	if err != nil {
		return err
	}
	err = h.Processes.DeleteDraft(ctx, me, id, draftKnown(c))
	var later *models.DraftConflictError
	switch {
	case errors.As(err, &later):
		flash = other
	case err != nil && !errors.Is(err, models.ErrNotFound):
		return err
	}
	next := processPath(id)
	if h.lockToken(c, form["lock"]) != "" {
		next = editPath(id, form["lock"])
	}
	return goWith(c, next, flash)
}
