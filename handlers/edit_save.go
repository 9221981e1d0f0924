package handlers

import (
	"context"
	"errors"
	"net/http"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/services/merge"
)

func (h *Handlers) saveForm(c *gin.Context) error {
	form, err := processForm(c, "lock", "base", "then")
	if err != nil {
		return err
	}
	id, err := pathID(c)
	if err != nil {
		return h.noRoute(c)
	}
	typed, ok := textOf(c, form)
	if !ok {
		return models.Invalid("base", "must be the version that the text began from")
	}
	if wrong := wrongFields(typed.ProcessFields); wrong != nil {
		return h.showText(c, id, form["lock"], typed, wrong)
	}
	return h.save(c, id, form["lock"], typed, saving{leave: form["then"] == "close"})
}

// saving says how a page saves.
type saving struct {
	leave bool // the user has finished, so that the lock is given back
	again bool // the text is what the user decided in a conflict
	// merged is how often the text was merged with what others saved while it was being saved, and
	// with is who saved last.
	merged int
	with   string
	// typed is the text as the form had it, before that.
	typed models.ProcessFields
}

// mostMerges is how often a text is merged by itself in one save. More often its user decides.
const mostMerges = 3

// words say that the text was saved. other: the user typed another one in another tab.
func (how saving) words(other bool) string {
	words := "Your changes are saved"
	if how.with != "" {
		words += ", together with what " + how.with + " saved meanwhile"
	}
	words += "."
	switch {
	case other && how.leave:
		words += " What you typed in another tab is kept, and not saved yet."
	case other:
		words += " What you typed in another tab is below, and not saved yet."
	case !how.leave:
		words += " You can go on."
	}
	return words
}

// save saves, and sends the browser on; or it shows what stood in the way, with the text.
func (h *Handlers) save(c *gin.Context, id, lock string, typed text, how saving) error {
	ctx, me := c.Request.Context(), signedIn(c).User
	token := h.lockToken(c, lock)
	if how.merged == 0 {
		how.typed = typed.ProcessFields
	}
	saved, err := h.Processes.Save(ctx, me, id, token, typed.ProcessFields, services.SaveOptions{Base: typed.base, TTL: pageTTL, Most: h.LocksPerUser, Client: clientOf(c)})
	setLocksDegraded(c, saved.Degraded)
	var refused *models.ConflictError
	switch {
	case errors.As(err, &refused):
		merged, failed := h.merge(ctx, refused.Current, typed)
		if failed != nil {
			return failed
		}
		if !merged.ChangedBy(merge.Mine) { // it is stored already, as when the button was pressed twice
			break
		}
		if !merged.Conflicts() && how.merged < mostMerges {
			how.merged, how.with = how.merged+1, ""
			if refused.Current.UpdatedBy.ID != me.ID {
				how.with = nameOf(refused.Current.UpdatedBy)
			}
			return h.save(c, id, lock, text{ProcessFields: merged.Result(), base: refused.Current.Version, draft: typed.draft}, how)
		}
		kept := h.storeDraft(c, id, &typed)
		h.notePageRefusal(c, err)
		return h.showConflict(c, http.StatusConflict, conflict{
			process: refused.Current, lock: lock, merged: merged, began: typed.base, kept: kept, draft: typed.draft, other: typed.other, again: how.again,
		})
	case errors.Is(err, models.ErrNotFound):
		return h.showDeleted(c, id, typed)
	case errors.Is(err, models.ErrLockTokenRequired), errors.Is(err, models.ErrNotHeld), errors.Is(err, models.ErrNotAcquired):
		kept := h.keepDraft(c, id, &typed)
		return h.showLost(c, id, typed, kept, err)
	case err != nil:
		return err
	}
	other := h.settleDraft(c, id, text{ProcessFields: how.typed, base: typed.base, draft: typed.draft})
	if saved.Lock != nil {
		h.dropLock(c, id, lock)
		lock, token = h.keepLock(c, id, *saved.Lock), saved.Lock.Token
	}
	if how.leave {
		h.giveBack(c, id, token)
		return goWith(c, processPath(id), middleware.Flash{Text: how.words(other)})
	}
	return goWith(c, editPath(id, lock), middleware.Flash{Text: how.words(other)})
}

// giveBack releases a lock that this browser has, whether or not it waits for the answer. If the
// lock is over already, so much the better. The browser keeps the cookie: it may have a second tab
// of the same lock, which hears from it that its user stopped, and can go on.
func (h *Handlers) giveBack(c *gin.Context, id, token string) {
	degraded, err := h.Processes.Unlock(context.WithoutCancel(c.Request.Context()), signedIn(c).User, id, token)
	setLocksDegraded(c, degraded)
	if err != nil && !errors.Is(err, models.ErrNotHeld) && !errors.Is(err, models.ErrNotFound) {
		_ = c.Error(err) // it runs out
	}
}

// cancelForm gives the lock back. What was typed is kept as a draft. If it is what is stored, there
// is no draft any more: the form had shown it.
func (h *Handlers) cancelForm(c *gin.Context) error {
	form, err := conflictForm(c, "title", "status", "description")
	if err != nil {
		return err
	}
	id, err := pathID(c)
	if err != nil {
		return h.noRoute(c)
	}
	typed, ok := textOf(c, form)
	if !ok { // what was chosen is not saved: theirs can be chosen again, one's own text is in this form only
		typed, ok = undecided(c, form)
	}
	process, err := h.Processes.Process(c.Request.Context(), id)
	if errors.Is(err, models.ErrNotFound) && ok {
		return h.showDeleted(c, id, typed)
	}
	if err != nil {
		return err
	}
	flash := middleware.Flash{Text: "You have stopped editing."}
	switch {
	case !ok:
	case h.untouched(c, process, typed):
		h.settleDraft(c, id, typed)
	default:
		flash.Text += " What you typed is kept, and not saved yet."
		if !h.storeDraft(c, id, &typed) { // it is far too long, or another one is there
			return h.showText(c, id, form["lock"], typed, wrongFields(typed.ProcessFields))
		}
	}
	if token := h.lockToken(c, form["lock"]); token != "" {
		h.giveBack(c, id, token)
	}
	return goWith(c, processPath(id), flash)
}
