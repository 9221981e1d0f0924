package handlers

import (
	"cmp"
	"errors"
	"net/http"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
	"gatehouse/services/merge"
	"gatehouse/templates"
)

// showText shows a text again with what is wrong with it. Without the lock it says so.
func (h *Handlers) showText(c *gin.Context, id, lock string, typed text, wrong templates.FieldErrors) error {
	return h.showHeld(c, http.StatusUnprocessableEntity, id, lock, h.lockToken(c, lock), typed, wrong)
}

func (h *Handlers) showHeld(c *gin.Context, status int, id, lock, token string, typed text, wrong templates.FieldErrors) error {
	editing, err := h.Processes.Editing(c.Request.Context(), signedIn(c).User, id, token)
	if errors.Is(err, models.ErrLockTokenRequired) || errors.Is(err, models.ErrNotHeld) {
		kept := h.keepDraft(c, id, &typed)
		return h.showLost(c, id, typed, kept, err)
	}
	if errors.Is(err, models.ErrNotFound) {
		return h.showDeleted(c, id, typed)
	}
	if err != nil {
		return err
	}
	view := h.editView(c, lock, editing)
	h.addAskers(c, &view, editing.Process)
	if wrong != nil {
		view.Title = "Error: " + view.Title
	}
	view.Fields, view.Base, view.DraftKnown, view.Errors = templates.ProcessFields(typed.ProcessFields), typed.base, typed.draft, wrong
	view.Other = typed.other
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
	status := h.addLock(c, process, view.Now, &view.Lost.Panel)
	view.Banner = h.partialBanner(status.Degraded || view.Lost.Panel.Unknown, readerPartial)
	lost, ok := lostOf(why)
	if !ok { // the cookie is gone
		lost.status = status
	}
	view.Lost.Text, view.Lost.Calm = endInWords(view.Now, lost, signedIn(c).User)
	if lost.end != nil {
		view.Lost.At = lost.end.At
	}
	html, err := h.Pages.Edit(view)
	return h.page(c, http.StatusConflict, html, err)
}

// showDeleted shows the text of a user whose process is not there any more.
func (h *Handlers) showDeleted(c *gin.Context, id string, typed text) error {
	draft, err := h.Processes.OrphanedDraft(c.Request.Context(), signedIn(c).User, id)
	kept := err == nil && merge.Changes(typed.ProcessFields, draft.Fields()) == nil
	if kept {
		typed.draft = draft.SavedAt
	}
	view := h.unsavedView(c, id, typed.Title, typed)
	view.Lost = &templates.Lost{Text: "The process was deleted.", Deleted: true, Kept: kept}
	html, err := h.Pages.Edit(view)
	return h.page(c, http.StatusNotFound, html, err)
}

// orphaned shows what the reader had typed into a process that is not there any more, if that was
// kept. Otherwise there is nothing to show, and it returns notFound.
func (h *Handlers) orphaned(c *gin.Context, id string, notFound error) error {
	if !errors.Is(notFound, models.ErrNotFound) || !mayEdit(c) || isScript(c) {
		return notFound
	}
	draft, err := h.Processes.OrphanedDraft(c.Request.Context(), signedIn(c).User, id)
	if errors.Is(err, models.ErrNotFound) {
		return notFound
	}
	if err != nil {
		return err
	}
	return h.showDeleted(c, id, text{ProcessFields: draft.Fields(), base: draft.BaseVersion, draft: draft.SavedAt})
}

// unsavedView is the form with a text that was not saved. It stays the text of who wrote it.
func (h *Handlers) unsavedView(c *gin.Context, id, title string, typed text) templates.Edit {
	writer := cmp.Or(c.Request.PostForm.Get("user"), signedIn(c).User.ID)
	return templates.Edit{
		Frame: h.frame(c, "Not saved: “"+title+"”"), ID: id, UserID: writer, Heading: title,
		Fields: templates.ProcessFields(typed.ProcessFields), Base: typed.base, DraftKnown: typed.draft, Other: typed.other, Statuses: models.Statuses[:],
	}
}

// textRoutes are those to which a form sends a text. The script asks some of them, too: it has the
// text, and looks at the status only.
var textRoutes = map[string]bool{
	processesRoute + "/new": true, processesRoute + "/:id/ask": true,
	processesRoute + "/:id/edit": true, processesRoute + "/:id/edit/save": true, processesRoute + "/:id/edit/resolve": true,
	processesRoute + "/:id/edit/cancel": true, processesRoute + "/:id/edit/answer": true,
}

// isOtherUsers reports whether a form, which was read, is of a page for another user.
func isOtherUsers(c *gin.Context) bool {
	page := c.Request.PostForm.Get("user")
	return page != "" && page != signedIn(c).User.ID
}

// keepApart refuses a text of another user: it would become the draft of who is signed in now, or be
// saved as theirs. It comes before the roles, as the text is shown again whatever that one may do.
func (h *Handlers) keepApart(c *gin.Context) {
	if c.Request.Method != http.MethodPost || !textRoutes[c.FullPath()] {
		return
	}
	_, err := formOf(c, maxBody, "user")
	if err == nil && isOtherUsers(c) {
		err = errOtherUser
	}
	if err != nil {
		c.Abort()
		h.fail(c, err)
	}
}

// survives reports whether the text of a refused form is to be shown again. Who has signed out in
// another tab, or is back the next day, has no session's cookie any more: a lock's, or that the
// browser says the form is of this site, speaks for them. Of other clients no body is read.
func (h *Handlers) survives(c *gin.Context, p models.Problem) bool {
	if c.Request.Method != http.MethodPost || !textRoutes[c.FullPath()] {
		return false
	}
	_, signedIn := middleware.SessionFrom(c)
	_, err := c.Request.Cookie(h.Cookie.CookieName())
	known := err == nil || hasLock(c) || c.GetHeader("Sec-Fetch-Site") == "same-origin"
	switch p.Status {
	case http.StatusUnauthorized, http.StatusServiceUnavailable:
		return known
	case http.StatusTooManyRequests, http.StatusInternalServerError:
		return signedIn
	case http.StatusForbidden: // but not what a page of another origin sent
		return signedIn && p.Name == "forbidden"
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
	form, err := conflictForm(c, "title", "status", "description", "user", "from")
	if err != nil {
		return false, nil
	}
	id, _ := pathID(c)
	typed, hasBase := textOf(c, form)
	if !hasBase && form["began"] != "" {
		typed, hasBase = undecided(c, form)
	}
	why, signIn := problemText(p), p.Status == http.StatusUnauthorized
	switch {
	case signIn:
		why = "Your session has ended."
	case p.Status == http.StatusForbidden && isOtherUsers(c):
		why = "Another user has signed in since you began. Sign in again as who you were, in another tab."
	case p.Status == http.StatusServiceUnavailable:
		why, _ = h.whyUnavailable(c)
		why += "."
	}
	isNew := path == processesRoute+"/new"
	if !isNew && (!hasBase || id == "") {
		return false, nil
	}
	if p.Status == http.StatusForbidden && !isOtherUsers(c) && !mayEdit(c) { // whatever is pressed there
		title := "Not saved: “" + typed.Title + "”"
		html, err := h.Pages.Unsaved(templates.Unsaved{Frame: h.frame(c, title), Process: id, Fields: templates.ProcessFields(typed.ProcessFields)})
		return true, h.page(c, p.Status, html, err)
	}
	if isNew {
		return true, h.showNewProcess(c, p.Status, templates.ProcessForm{
			UserID: form["user"], From: form["from"], DraftKnown: typed.draft, Fields: templates.ProcessFields(typed.ProcessFields), Failed: why, SignIn: signIn,
		})
	}
	view := h.unsavedView(c, id, typed.Title, typed)
	view.Failed, view.SignIn, view.Lock.ID = why, signIn, form["lock"]
	html, err := h.Pages.Edit(view)
	return true, h.page(c, p.Status, html, err)
}

// undecided is what an editor wrote in a conflict, with the version from which that began. What others
// wrote is in the database: who is not signed in does not see it.
func undecided(c *gin.Context, form map[string]string) (typed text, ok bool) {
	var own models.Process
	own.Title, own.Status, own.Description = form[merge.Title+".mine"], form[merge.Status+".mine"], form[merge.Description+".mine"]
	d := decidedOf(c, form, own)
	return text{ProcessFields: d.result, base: d.began, draft: d.draft}, d.began > 0
}
