package handlers

import (
	"context"
	"errors"
	"net/http"
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
	process.POST("/draft/discard", h.handle(h.discardForm))
}

func processPath(id string) string { return processesRoute + "/" + id }

func editPath(id, lock string) string { return link(processPath(id)+"/edit", "lock", lock) }

// text is what a user typed into the form of a process, and the version that it began from.
type text struct {
	models.ProcessFields
	base int64
}

// textOf is the text of a form, as it is stored. ok is false if the form has none.
func textOf(c *gin.Context, form map[string]string) (typed text, ok bool) {
	_, ok = c.Request.PostForm["title"]
	typed.ProcessFields, _ = fieldsOf(form)
	typed.base, _ = strconv.ParseInt(form["base"], 10, 64)
	return typed, ok && typed.base > 0
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
	kept := carries && h.keepDraft(c, id, typed)
	lock, err := h.Processes.Lock(c.Request.Context(), signedIn(c).User, id, services.ProcessLockOptions{
		TTL: pageTTL, Reason: form["reason"], Most: h.LocksPerUser,
	})
	setLocksDegraded(c, lock.Degraded)
	switch {
	case err == nil && (kept || !carries):
		return goTo(c, link(processPath(id)+"/edit", "lock", h.keepLock(c, id, lock), "seen", form["seen"]))
	case err == nil: // the text is in this answer alone
		return h.showHeld(c, http.StatusOK, id, h.keepLock(c, id, lock), lock.Token, typed, nil)
	case errors.Is(err, models.ErrNotAcquired) && carries:
		return h.showLost(c, id, typed, kept, err)
	case errors.Is(err, models.ErrNotAcquired):
		h.notePageRefusal(c, err)
		return h.showProcess(c, http.StatusLocked, id, templates.LockPanel{Refused: true})
	}
	return err
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
		h.dropLock(c, id, lock)
		why, calm := endInWords(lost.Status, signedIn(c).User)
		return goWith(c, processPath(id), middleware.Flash{Text: why, Failed: !calm})
	}
	if err != nil {
		return err
	}
	view := h.editView(c, lock, editing)
	shown, conflict, err := h.addText(c, &view, editing.Process)
	if err != nil {
		return err
	}
	if conflict != nil {
		return h.showConflict(c, http.StatusOK, *conflict)
	}
	view.Fields, view.Base = templates.ProcessFields(shown.ProcessFields), shown.base
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
	view.Banner = h.redisBanner(editing.Degraded)
	setLocksDegraded(c, editing.Degraded)
	return view
}

// addText is the text to show: what is stored, or what the user had typed, with what others saved
// since. If both changed a field it is a conflict.
func (h *Handlers) addText(c *gin.Context, view *templates.Edit, process models.Process) (shown text, _ *conflict, err error) {
	ctx, me := c.Request.Context(), signedIn(c).User
	current := models.ProcessPatch{}.Apply(process)
	draft, err := h.draftOf(ctx, me, process)
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
		return text{current, process.Version}, nil, nil
	}
	view.Draft = draft.SavedAt
	if draft.BaseVersion == process.Version {
		return text{draftFields(*draft), process.Version}, nil, nil
	}
	merged, err := h.merge(ctx, process, text{draftFields(*draft), draft.BaseVersion})
	if err != nil {
		return shown, nil, err
	}
	if merged.Conflicts() {
		return shown, &conflict{process: process, lock: view.Lock.ID, merged: merged, began: draft.BaseVersion, kept: true}, nil
	}
	if view.Changed, err = h.changedSince(ctx, process, draft.BaseVersion, me); view.Changed != nil {
		view.Changed.Merged = true
	}
	return text{merged.Result(), process.Version}, nil, err
}

// changedSince is what others changed since a version; nil if nobody did, or if it is not known.
func (h *Handlers) changedSince(ctx context.Context, process models.Process, version int64, me models.UserRef) (*templates.ChangedMeanwhile, error) {
	if version >= process.Version || process.UpdatedBy.ID == me.ID {
		return nil, nil
	}
	was, err := h.Processes.Version(ctx, process.ID, version)
	if errors.Is(err, models.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	changes := shownChanges(models.ProcessPatch{}.Apply(was), models.ProcessPatch{}.Apply(process))
	if changes == nil {
		return nil, nil
	}
	return &templates.ChangedMeanwhile{By: nameOf(process.UpdatedBy), At: process.UpdatedAt, Changes: changes}, nil
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
		return h.showText(c, http.StatusUnprocessableEntity, id, form["lock"], typed, wrong)
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
}

// mostMerges is how often a text is merged by itself in one save. More often its user decides.
const mostMerges = 3

func (how saving) words() string {
	words := "Your changes are saved"
	if how.merged > 0 {
		words += ", beside what " + how.with + " saved meanwhile"
	}
	return words + "."
}

// save saves, and sends the browser on; or it shows what stood in the way, with the text.
func (h *Handlers) save(c *gin.Context, id, lock string, typed text, how saving) error {
	ctx, me := c.Request.Context(), signedIn(c).User
	token := h.lockToken(c, lock)
	saved, err := h.Processes.Save(ctx, me, id, token, typed.ProcessFields, services.SaveOptions{Base: typed.base, TTL: pageTTL, Most: h.LocksPerUser})
	setLocksDegraded(c, saved.Degraded)
	var refused *models.ConflictError
	switch {
	case errors.As(err, &refused):
		merged, failed := h.merge(ctx, refused.Current, typed)
		if failed != nil {
			return failed
		}
		if !merged.Conflicts() && how.merged < mostMerges {
			how.merged, how.with = how.merged+1, nameOf(refused.Current.UpdatedBy)
			return h.save(c, id, lock, text{merged.Result(), refused.Current.Version}, how)
		}
		kept := h.keepDraft(c, id, typed)
		h.notePageRefusal(c, err)
		return h.showConflict(c, http.StatusConflict, conflict{
			process: refused.Current, lock: lock, merged: merged, began: typed.base, kept: kept, again: how.again,
		})
	case errors.Is(err, models.ErrNotFound):
		return h.showDeleted(c, id, typed)
	case errors.Is(err, models.ErrLockTokenRequired), errors.Is(err, models.ErrNotHeld), errors.Is(err, models.ErrNotAcquired):
		return h.showLost(c, id, typed, h.keepDraft(c, id, typed), err)
	case err != nil:
		return err
	}
	if err := h.Processes.DeleteDraft(ctx, me, id, time.Time{}); err != nil && !errors.Is(err, models.ErrNotFound) {
		_ = c.Error(err) // it is as what is stored now, so that it is not shown
	}
	if saved.Lock != nil {
		h.dropLock(c, id, lock)
		lock, token = h.keepLock(c, id, *saved.Lock), saved.Lock.Token
	}
	if how.leave {
		h.giveBack(c, id, lock, token)
		return goWith(c, processPath(id), middleware.Flash{Text: how.words()})
	}
	return goWith(c, editPath(id, lock), middleware.Flash{Text: how.words() + " You can go on."})
}

// giveBack releases a lock that this browser has. If it is over already, so much the better.
func (h *Handlers) giveBack(c *gin.Context, id, lock, token string) {
	h.dropLock(c, id, lock)
	degraded, err := h.Processes.Unlock(c.Request.Context(), signedIn(c).User, id, token)
	setLocksDegraded(c, degraded)
	if err != nil && !errors.Is(err, models.ErrNotHeld) && !errors.Is(err, models.ErrNotFound) {
		_ = c.Error(err) // it runs out
	}
}

// showText shows a text again that could not be saved as it is. Without the lock it says so.
func (h *Handlers) showText(c *gin.Context, status int, id, lock string, typed text, wrong templates.FieldErrors) error {
	return h.showHeld(c, status, id, lock, h.lockToken(c, lock), typed, wrong)
}

func (h *Handlers) showHeld(c *gin.Context, status int, id, lock, token string, typed text, wrong templates.FieldErrors) error {
	editing, err := h.Processes.Editing(c.Request.Context(), signedIn(c).User, id, token)
	if errors.Is(err, models.ErrLockTokenRequired) || errors.Is(err, models.ErrNotHeld) {
		return h.showLost(c, id, typed, h.keepDraft(c, id, typed), err)
	}
	if errors.Is(err, models.ErrNotFound) {
		return h.showDeleted(c, id, typed)
	}
	if err != nil {
		return err
	}
	view := h.editView(c, lock, editing)
	if wrong != nil {
		view.Title = "Error: " + view.Title
	}
	view.Fields, view.Base, view.Errors = templates.ProcessFields(typed.ProcessFields), typed.base, wrong
	html, err := h.Pages.Edit(view)
	return h.page(c, status, html, err)
}

// showLost shows the text of a user who does not have the lock any more, and how to go on. kept:
// the text is kept as a draft, too.
func (h *Handlers) showLost(c *gin.Context, id string, typed text, kept bool, why error) error {
	process, err := h.Processes.Process(c.Request.Context(), id)
	if err != nil {
		return err
	}
	view := h.unsavedView(c, id, process.Title, typed)
	h.notePageRefusal(c, why)
	view.RequestID = middleware.RequestIDFrom(c)
	view.Lost = &templates.Lost{Kept: kept}
	status := h.addLock(c, id, view.Now, &view.Lost.Panel)
	view.Banner = h.redisBanner(status.Degraded || view.Lost.Panel.Unknown)
	if was, ok := lostStatus(why); ok {
		status = was
	}
	view.Lost.Text, view.Lost.Calm = endInWords(status, signedIn(c).User)
	html, err := h.Pages.Edit(view)
	return h.page(c, http.StatusConflict, html, err)
}

// showDeleted shows the text of a user whose process is not there any more.
func (h *Handlers) showDeleted(c *gin.Context, id string, typed text) error {
	view := h.unsavedView(c, id, typed.Title, typed)
	view.Lost = &templates.Lost{Text: "The process was deleted.", Deleted: true}
	html, err := h.Pages.Edit(view)
	return h.page(c, http.StatusNotFound, html, err)
}

// unsavedView is the form with a text that was not saved.
func (h *Handlers) unsavedView(c *gin.Context, id, title string, typed text) templates.Edit {
	return templates.Edit{
		Frame: h.frame(c, "Not saved: “"+title+"”"), ID: id, UserID: signedIn(c).User.ID, Heading: title,
		Fields: templates.ProcessFields(typed.ProcessFields), Base: typed.base, Statuses: models.Statuses[:],
	}
}

// survives reports whether the text of a refused form is to be shown again. Of clients who were
// never signed in no body is read.
func (h *Handlers) survives(c *gin.Context, p models.Problem) bool {
	if path := c.FullPath(); c.Request.Method != http.MethodPost || (path != processesRoute+"/new" && path != processesRoute+"/:id/edit/save") {
		return false
	}
	_, signedIn := middleware.SessionFrom(c)
	_, err := c.Request.Cookie(h.Cookie.CookieName())
	switch p.Status {
	case http.StatusUnauthorized, http.StatusServiceUnavailable:
		return err == nil
	case http.StatusTooManyRequests, http.StatusInternalServerError:
		return signedIn
	}
	return false
}

// showUnsaved answers a problem that has nothing to do with the text of a form, such as a session
// that has ended, with the form: the text would be lost with the page. ok is false if the request
// carries no text.
func (h *Handlers) showUnsaved(c *gin.Context, p models.Problem) (ok bool, err error) {
	path := c.FullPath()
	if !h.survives(c, p) {
		return false, nil
	}
	form, err := processForm(c, "lock", "base")
	if err != nil {
		return false, nil
	}
	id, _ := pathID(c)
	typed, hasBase := textOf(c, form)
	why, signIn := problemText(p), p.Status == http.StatusUnauthorized
	switch {
	case signIn:
		why = "Your session has ended."
	case p.Status == http.StatusServiceUnavailable:
		why, _ = h.whyUnavailable(c)
		why += "."
	}
	if path == processesRoute+"/new" {
		return true, h.showNewProcess(c, p.Status, templates.ProcessForm{Fields: templates.ProcessFields(typed.ProcessFields), Failed: why, SignIn: signIn})
	}
	if !hasBase || id == "" {
		return false, nil
	}
	view := h.unsavedView(c, id, typed.Title, typed)
	view.Failed, view.SignIn, view.Lock.ID = why, signIn, form["lock"]
	html, err := h.Pages.Edit(view)
	return true, h.page(c, p.Status, html, err)
}

// cancelForm gives the lock back. What was typed is kept as a draft, unless it is what is stored.
func (h *Handlers) cancelForm(c *gin.Context) error {
	form, err := conflictForm(c, "title", "status", "description")
	if err != nil {
		return err
	}
	id, err := pathID(c)
	if err != nil {
		return h.noRoute(c)
	}
	process, err := h.Processes.Process(c.Request.Context(), id)
	if err != nil {
		return err
	}
	typed, ok := textOf(c, form)
	if decided := decidedOf(form, process); !ok && decided.complete() {
		typed, ok = decided.text(), true
	}
	flash := middleware.Flash{Text: "You have stopped editing."}
	if ok && merge.Changes(models.ProcessPatch{}.Apply(process), typed.ProcessFields) != nil {
		flash.Text += " What you typed is kept, and not saved yet."
		if !h.keepDraft(c, id, typed) { // it is far too long
			return h.showText(c, http.StatusUnprocessableEntity, id, form["lock"], typed, wrongFields(typed.ProcessFields))
		}
	}
	if token := h.lockToken(c, form["lock"]); token != "" {
		h.giveBack(c, id, form["lock"], token)
	}
	return goWith(c, processPath(id), flash)
}
