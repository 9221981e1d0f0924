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

// draftOf is what a user has typed and not saved; nil if there is nothing but what is stored.
func (h *Handlers) draftOf(ctx context.Context, user models.UserRef, process models.Process) (*models.Draft, error) {
	draft, err := h.Processes.Draft(ctx, user, process.ID)
	switch {
	case errors.Is(err, models.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	case merge.Changes(models.ProcessPatch{}.Apply(process), draftFields(draft)) == nil:
		return nil, nil
	}
	return &draft, nil
}

func draftFields(draft models.Draft) models.ProcessFields {
	return models.ProcessFields{Title: draft.Title, Status: draft.Status, Description: draft.Description}
}

// keepDraft keeps a text that could not be saved, and reports whether it did: a text that no
// process can have, such as one of 200,000 characters, is in the page alone.
func (h *Handlers) keepDraft(c *gin.Context, id string, typed text) bool {
	draft := models.Draft{Title: typed.Title, Status: typed.Status, Description: typed.Description, BaseVersion: typed.base}
	if draft.Validate() != nil {
		return false
	}
	if _, err := h.Processes.SaveDraft(c.Request.Context(), signedIn(c).User, id, draft, time.Time{}); err != nil {
		_ = c.Error(err)
		return false
	}
	return true
}

// forgetDraft deletes the reader's draft after a text that is what is stored.
func (h *Handlers) forgetDraft(c *gin.Context, id string) {
	err := h.Processes.DeleteDraft(c.Request.Context(), signedIn(c).User, id, time.Time{})
	if err != nil && !errors.Is(err, models.ErrNotFound) {
		_ = c.Error(err) // the user finds it again, and can discard it
	}
}

// discardForm deletes the reader's draft. With a lock it goes back to the form.
func (h *Handlers) discardForm(c *gin.Context) error {
	form, err := formValues(c, "lock")
	if err != nil {
		return err
	}
	id, err := pathID(c)
	if err != nil {
		return h.noRoute(c)
	}
	if _, err := h.Processes.Process(c.Request.Context(), id); err != nil {
		return err
	}
	err = h.Processes.DeleteDraft(c.Request.Context(), signedIn(c).User, id, time.Time{})
	if err != nil && !errors.Is(err, models.ErrNotFound) {
		return err
	}
	next := processPath(id)
	if h.lockToken(c, form["lock"]) != "" {
		next = editPath(id, form["lock"])
	}
	return goWith(c, next, middleware.Flash{Text: "Your unsaved changes are discarded."})
}
