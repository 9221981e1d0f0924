package handlers

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/services/merge"
	"gatehouse/templates"
)

// pageTTL is the lease of a lock that a page takes: a browser without JavaScript cannot extend it
// while its user types. A script makes it shorter at once, and extends it with the typing.
const pageTTL = 15 * time.Minute

func (h *Handlers) registerEditPages(process gin.IRouter) {
	process.POST("/edit", h.handle(h.beginEditing))
	process.GET("/edit", h.handle(h.editPage))
	process.POST("/edit/save", h.handle(h.saveForm))
	process.POST("/edit/resolve", h.handle(h.resolveForm))
	process.POST("/edit/cancel", h.handle(h.cancelForm))
	process.POST("/edit/answer", h.handle(h.answerForm))
	process.POST("/ask", h.handle(h.askForm))
	process.POST("/ask/withdraw", h.handle(h.withdrawForm))
	process.POST("/draft/discard", h.handle(h.discardForm))
}

func processPath(id string) string { return processesRoute + "/" + id }

func editPath(id, lock string) string { return link(processPath(id)+"/edit", "lock", lock) }

// text is what a user typed into the form of a process.
type text struct {
	models.ProcessFields
	base  int64     // the version that it began from
	draft time.Time // when the draft was stored that the form knows of; zero if it knows of none
	// other is when a later draft was stored, of another tab, which this text did not replace. From then
	// on the form knows of that one.
	other time.Time
}

// textOf is the text of a form, as it is stored. ok is false if the form has none.
func textOf(c *gin.Context, form map[string]string) (typed text, ok bool) {
	_, ok = c.Request.PostForm["title"]
	typed.ProcessFields, _ = fieldsOf(form)
	typed.base, _ = strconv.ParseInt(form["base"], 10, 64)
	typed.draft = draftKnown(c)
	return typed, ok && typed.base > 0
}

// draftKnown is when the draft was stored that a form knows of; zero if it knows of none.
func draftKnown(c *gin.Context) time.Time {
	at, _ := time.Parse(time.RFC3339Nano, c.Request.PostForm.Get("draft"))
	return at
}

// beginEditing takes the lock for this tab. A form about a lost lock carries a text, which goes on.
func (h *Handlers) beginEditing(c *gin.Context) error {
	form, err := processForm(c, "lock", "base", "seen", "reason", "takeOver")
	if err != nil {
		return err
	}
	id, err := pathID(c)
	if err != nil {
		return h.noRoute(c)
	}
	typed, carries := textOf(c, form)
	if utf8.RuneCountInString(form["reason"]) > maxReason {
		return h.showProcess(c, http.StatusUnprocessableEntity, id, templates.LockPanel{Note: form["reason"], Error: "Say it in up to 200 characters."})
	}
	kept := carries && h.keepDraft(c, id, &typed)
	lock, err := h.Processes.Lock(c.Request.Context(), signedIn(c).User, id, services.ProcessLockOptions{
		TTL: pageTTL, Reason: form["reason"], TakeOver: form["takeOver"] == "true", Most: h.LocksPerUser, Client: clientOf(c),
	})
	setLocksDegraded(c, lock.Degraded)
	switch {
	case err == nil && (kept || !carries):
		return goTo(c, link(processPath(id)+"/edit", "lock", h.keepLock(c, id, lock), "seen", form["seen"]))
	case err == nil: // the text is in this answer alone
		return h.showHeld(c, http.StatusOK, id, h.keepLock(c, id, lock), lock.Token, typed, nil)
	case errors.Is(err, models.ErrNotAcquired) && carries:
		return h.showLost(c, id, typed, kept, err)
	case errors.Is(err, models.ErrNotFound) && carries:
		return h.showDeleted(c, id, typed)
	case errors.Is(err, models.ErrNotAcquired):
		h.notePageRefusal(c, err)
		return h.showProcess(c, http.StatusLocked, id, templates.LockPanel{Refused: true, Note: form["reason"]})
	}
	return h.orphaned(c, id, err)
}

// editPage shows the form under a lock that this browser has: after a reload, too, with what the
// user had typed.
func (h *Handlers) editPage(c *gin.Context) error {
	id, err := pathID(c)
	if err != nil {
		return h.noRoute(c)
	}
	lock := c.Query("lock")
	token := h.lockToken(c, lock)
	if token == "" {
		return goTo(c, processPath(id))
	}
	editing, err := h.Processes.Editing(c.Request.Context(), signedIn(c).User, id, token)
	var lost *models.NotHeldError
	if errors.As(err, &lost) {
		if isScript(c) { // it looks only: how the lock ended is for the page that its user opens
			return goTo(c, processPath(id))
		}
		why, calm := endInWords(time.Now(), lostLock{lost.Status, lost.EndedBy}, signedIn(c).User)
		flash := middleware.Flash{Text: why, Failed: !calm}
		if lost.EndedBy != nil {
			flash.At = lost.EndedBy.At
		}
		return goWith(c, processPath(id), flash)
	}
	if err != nil {
		return h.orphaned(c, id, err)
	}
	view := h.editView(c, lock, editing)
	h.addAskers(c, &view, editing.Process)
	shown, conflict, err := h.addText(c, &view, editing.Process)
	if err != nil {
		return err
	}
	if conflict != nil {
		return h.showConflict(c, http.StatusOK, *conflict)
	}
	view.Fields, view.Base, view.DraftKnown = templates.ProcessFields(shown.ProcessFields), shown.base, shown.draft
	view.Notices = notices(c)
	html, err := h.Pages.Edit(view)
	return h.page(c, http.StatusOK, html, err)
}

// editView is the page around the text.
func (h *Handlers) editView(c *gin.Context, lock string, editing services.Editing) templates.Edit {
	process := editing.Process
	view := templates.Edit{
		Frame: h.frame(c, "Edit “"+process.Title+"”"), ID: process.ID, UserID: signedIn(c).User.ID, Heading: process.Title, Statuses: models.Statuses[:],
		Lock: templates.EditLock{ID: lock, Since: editing.Status.Holder.Since, ExpiresAt: editing.Status.ExpiresAt, Waiting: editing.Status.Waiting},
	}
	if isAdmin(c) {
		view.Lock.Technical = technical(view.Now, editing.Status)
	}
	view.Banner = h.partialBanner(editing.Degraded, editorPartial)
	setLocksDegraded(c, editing.Degraded)
	return view
}

// addAskers says who asks for the lock. The text is more important: where that cannot be found out,
// the form is shown without.
func (h *Handlers) addAskers(c *gin.Context, view *templates.Edit, process models.Process) {
	status, err := h.Processes.LockStatusOf(c.Request.Context(), signedIn(c).User, process)
	if err != nil {
		return
	}
	view.Lock.Waiting = status.Waiting
	for _, r := range status.Requests {
		view.Requests = append(view.Requests, templates.LockRequest{ID: r.ID, By: nameOf(r.By), Message: r.Message, At: r.At, AnswerBy: r.AnswerBy, Later: r.State == models.RequestLater})
	}
}

// addText is the text to show: what is stored, or what the user had typed, with what others saved
// since. If both changed a field it is a conflict.
func (h *Handlers) addText(c *gin.Context, view *templates.Edit, process models.Process) (shown text, _ *conflict, err error) {
	ctx, me := c.Request.Context(), signedIn(c).User
	current := models.ProcessPatch{}.Apply(process)
	draft, known, err := h.draftOf(ctx, me, process)
	if err != nil {
		return shown, nil, err
	}
	if draft == nil {
		if seen, err := strconv.ParseInt(c.Query("seen"), 10, 64); err == nil {
			view.Changed, err = h.changedSince(ctx, process, seen, me)
			if err != nil {
				return shown, nil, err
			}
		}
		return text{ProcessFields: current, base: process.Version, draft: known}, nil, nil
	}
	view.Draft = draft.SavedAt
	if draft.BaseVersion == process.Version {
		return text{ProcessFields: draft.Fields(), base: process.Version, draft: known}, nil, nil
	}
	merged, err := h.merge(ctx, process, text{ProcessFields: draft.Fields(), base: draft.BaseVersion, draft: known})
	if err != nil {
		return shown, nil, err
	}
	if merged.Conflicts() {
		return shown, &conflict{process: process, lock: view.Lock.ID, merged: merged, began: draft.BaseVersion, kept: true, draft: known}, nil
	}
	if view.Changed, err = h.changedSince(ctx, process, draft.BaseVersion, me); view.Changed != nil {
		view.Changed.Merged = true
	}
	return text{ProcessFields: merged.Result(), base: process.Version, draft: known}, nil, err
}

// changedSince is what others changed since a version, and who did so last; nil if nobody did, or if
// it is not known.
func (h *Handlers) changedSince(ctx context.Context, process models.Process, version int64, me models.UserRef) (*templates.ChangedMeanwhile, error) {
	if version >= process.Version {
		return nil, nil
	}
	was, err := h.Processes.Version(ctx, process.ID, version)
	if errors.Is(err, models.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	history, err := h.Processes.History(ctx, process.ID, models.Page{Limit: historyPerPage})
	if err != nil {
		return nil, err
	}
	changed := templates.ChangedMeanwhile{Changes: shownChanges(models.ProcessPatch{}.Apply(was), models.ProcessPatch{}.Apply(process))}
	last := map[string]models.HistoryEntry{} // that changed a field
	for _, entry := range slices.Backward(history.Items) {
		for _, change := range entry.Changes {
			last[change.Field] = entry
		}
	}
	changed.Changes = slices.DeleteFunc(changed.Changes, func(c templates.FieldChange) bool { return last[c.Field].Actor.ID == me.ID })
	var latest models.HistoryEntry
	for _, change := range changed.Changes {
		if entry := last[change.Field]; entry.Version > max(version, latest.Version) {
			latest = entry
		}
	}
	if latest.Version == 0 {
		return nil, nil
	}
	changed.By, changed.At = nameOf(latest.Actor), cmp.Or(latest.EndedAt, latest.At)
	return &changed, nil
}

// merge merges a text with the process as it is now.
func (h *Handlers) merge(ctx context.Context, process models.Process, typed text) (merge.Merged, error) {
	was, err := h.Processes.Version(ctx, process.ID, typed.base)
	var base *models.ProcessFields
	switch {
	case err == nil:
		fields := models.ProcessPatch{}.Apply(was)
		base = &fields
	case !errors.Is(err, models.ErrNotFound):
		return merge.Merged{}, err
	}
	return merge.ThreeWay(base, typed.ProcessFields, models.ProcessPatch{}.Apply(process)), nil
}
