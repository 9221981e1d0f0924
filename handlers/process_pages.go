package handlers

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/services/merge"
	"gatehouse/templates"
)

const (
	processesRoute   = "/processes"
	processesPerPage = 25
	maxReason        = 200 // characters of what a user says about a lock
)

// registerProcessPages adds the pages for processes: those to read, and those to edit.
func (h *Handlers) registerProcessPages(own gin.IRouter) {
	reader := own.Group("", middleware.RequireRole(models.RoleViewer))
	reader.GET(processesRoute, h.handle(h.processesPage))
	reader.GET(processesRoute+"/:id", h.handle(h.processPage))
	reader.GET(processesRoute+"/:id/history", h.handle(h.historyPage))
	reader.GET(refusalsRoute, h.handle(h.refusalPage))

	editor := own.Group("", h.keepApart, middleware.RequireRole(models.RoleEditor))
	editor.GET(processesRoute+"/new", h.handle(h.newProcessForm))
	editor.POST(processesRoute+"/new", h.handle(h.createProcessForm))
	editor.POST(processesRoute+"/:id/restore", h.handle(h.restoreForm))
	h.registerEditPages(editor.Group(processesRoute + "/:id"))
}

// processesPage lists the processes, and who is editing them.
func (h *Handlers) processesPage(c *gin.Context) error {
	params, err := query(c, "q", "status", "order", "cursor")
	if err != nil {
		return err
	}
	filter, err := processFilter(params)
	if err != nil {
		return err
	}
	found, err := h.Processes.Processes(c.Request.Context(), filter, models.Page{Limit: processesPerPage, Cursor: params["cursor"]})
	if err != nil {
		return err
	}
	view := templates.ProcessList{
		Frame: h.frame(c, "Processes"), Query: filter.Query, Status: filter.Status, Order: filter.Order, Statuses: models.Statuses[:], MayEdit: mayEdit(c),
	}
	view.Notices = notices(c)
	for _, process := range found.Items {
		view.Rows = append(view.Rows, templates.ProcessRow{
			ID: process.ID, Title: process.Title, Status: process.Status, Changed: process.UpdatedAt, ChangedBy: process.UpdatedBy.Email,
		})
	}
	if view.MayEdit {
		orphaned, err := h.Processes.OrphanedDrafts(c.Request.Context(), signedIn(c).User)
		if err != nil {
			return err
		}
		for _, draft := range orphaned {
			view.Orphaned = append(view.Orphaned, templates.OrphanedDraft{ID: draft.ProcessID, Title: draft.Title, SavedAt: draft.SavedAt})
		}
	}
	degraded := h.addEditing(c, &view)
	setLocksDegraded(c, degraded)
	view.Banner = h.partialBanner(degraded, listPartial)
	here := []string{"q", filter.Query, "status", filter.Status, "order", filter.Order}
	if params["cursor"] != "" {
		view.First = link(processesRoute, here...)
	}
	if found.NextCursor != nil {
		view.Next = link(processesRoute, append(here, "cursor", *found.NextCursor)...)
	}
	html, err := h.Pages.ProcessList(view)
	return h.page(c, http.StatusOK, html, err)
}

// processFilter reads which processes to list, and in which order.
func processFilter(params map[string]string) (models.ProcessFilter, error) {
	filter := models.ProcessFilter{Status: params["status"], Query: strings.TrimSpace(params["q"]), Order: params["order"]}
	var wrongs []error
	if filter.Status != "" {
		wrongs = append(wrongs, (models.ProcessPatch{Status: &filter.Status}).Validate())
	}
	if utf8.RuneCountInString(filter.Query) > maxFilter {
		wrongs = append(wrongs, models.Invalid("q", "must have at most 200 characters"))
	}
	if filter.Order != "" && filter.Order != models.OrderTitle {
		wrongs = append(wrongs, models.Invalid("order", "must be title, or left out"))
	}
	return filter, joinInvalid(wrongs...)
}

// addEditing looks up who is editing the listed processes, all at once. Where that is not known,
// the list is shown without it.
func (h *Handlers) addEditing(c *gin.Context, view *templates.ProcessList) (degraded bool) {
	me := signedIn(c).User
	resources := make([]string, len(view.Rows))
	for i, row := range view.Rows {
		resources[i] = services.Resource(row.ID)
	}
	statuses, err := h.Processes.LockStatuses(c.Request.Context(), resources...)
	if err != nil {
		view.Missing = true
		return errors.Is(err, models.ErrUnavailable)
	}
	for i, status := range statuses {
		degraded = degraded || status.Degraded
		view.Rows[i].Editing = editingInWords(view.Now, status, me)
	}
	return degraded
}

// editingInWords says who has a lock; nil if nobody has.
func editingInWords(now time.Time, status models.LockStatus, me models.UserRef) *templates.Editing {
	if !status.Held {
		return nil
	}
	var active time.Time
	if status.ActiveAt.Sub(status.Holder.Since) > time.Second { // the grant itself is no change
		active = status.ActiveAt
	}
	return &templates.Editing{
		LastActive: active,
		Now:        now, Who: nameOf(models.UserRef{ID: status.Holder.UserID, Email: status.Holder.Email}), Mine: status.Holder.UserID == me.ID,
		Since: status.Holder.Since, Reason: status.Holder.Reason, Waiting: status.Waiting,
	}
}

func mayEdit(c *gin.Context) bool { return models.HasRole(signedIn(c).Roles, models.RoleEditor) }

func isAdmin(c *gin.Context) bool { return models.HasRole(signedIn(c).Roles, models.RoleAdmin) }

func (h *Handlers) newProcessForm(c *gin.Context) error {
	return h.showNewProcess(c, http.StatusOK, templates.ProcessForm{Fields: templates.ProcessFields{Status: models.DefaultStatus}})
}

func (h *Handlers) showNewProcess(c *gin.Context, status int, view templates.ProcessForm) error {
	title := "New process"
	if view.Errors != nil || view.Failed != "" {
		title = "Error: New process"
	}
	view.Frame, view.Statuses = h.frame(c, title), models.Statuses[:]
	if view.UserID == "" && view.User != nil {
		view.UserID = view.User.ID
	}
	html, err := h.Pages.NewProcess(view)
	return h.page(c, status, html, err)
}

func (h *Handlers) createProcessForm(c *gin.Context) error {
	form, err := processForm(c, "from")
	if err != nil {
		return err
	}
	from, known := form["from"], draftKnown(c) // a process that was deleted, of which this is the text
	fields, wrong := fieldsOf(form)
	if wrong != nil {
		return h.showNewProcess(c, http.StatusUnprocessableEntity, templates.ProcessForm{
			Fields: templates.ProcessFields(fields), Errors: wrong, From: from, DraftKnown: known,
		})
	}
	ctx, me := c.Request.Context(), signedIn(c).User
	process, err := h.Processes.Create(ctx, me, fields)
	if err != nil {
		return err
	}
	if from != "" {
		if err := h.Processes.SettleOrphanedDraft(ctx, me, from, fields, known); err != nil {
			_ = c.Error(err) // the user finds it again, and can discard it
		}
	}
	return goWith(c, processesRoute+"/"+process.ID, middleware.Flash{Text: "The process is created."})
}

// processForm reads the form of a process, and further fields.
func processForm(c *gin.Context, more ...string) (map[string]string, error) {
	return formOf(c, maxBody, append(more, "title", "status", "description")...)
}

// fieldsOf are the fields of a process form, and what is wrong with them in words; nil if nothing
// is.
func fieldsOf(form map[string]string) (models.ProcessFields, templates.FieldErrors) {
	fields := merge.Clean(models.ProcessFields{Title: form["title"], Status: form["status"], Description: form["description"]})
	return fields, wrongFields(fields)
}

func wrongFields(fields models.ProcessFields) templates.FieldErrors {
	err := models.ProcessPatch{Title: &fields.Title, Status: &fields.Status, Description: &fields.Description}.Validate()
	var invalid *models.ValidationError
	if !errors.As(err, &invalid) {
		return nil
	}
	words := map[string]string{
		merge.Title:       "Write a title, of up to 200 characters.",
		merge.Status:      "Choose one of the statuses.",
		merge.Description: "Make it shorter: it can have up to 10,000 characters.",
	}
	wrong := templates.FieldErrors{}
	for _, field := range invalid.Errors {
		wrong[field.Field] = words[field.Field]
	}
	return wrong
}

// processPage shows a process to read, who is editing it, and what its reader has not saved.
func (h *Handlers) processPage(c *gin.Context) error {
	id, err := pathID(c)
	if err != nil {
		return h.noRoute(c)
	}
	var panel templates.LockPanel
	if done, err := h.awaitAnswer(c, id, &panel); done || err != nil {
		return err
	}
	return h.orphaned(c, id, h.showProcess(c, http.StatusOK, id, panel))
}

// showProcess is the page of a process; panel is what is known of its lock from a refusal, and said
// what the page says of that.
func (h *Handlers) showProcess(c *gin.Context, code int, id string, panel templates.LockPanel, said ...templates.Notice) error {
	ctx := c.Request.Context()
	process, drafts, err := h.Processes.ProcessWithDrafts(ctx, id)
	if err != nil {
		return err
	}
	view := templates.Process{
		Frame: h.frame(c, process.Title), ID: id, Fields: shownFields(process), Version: process.Version,
		Changed: process.UpdatedAt, ChangedBy: process.UpdatedBy.Email, ChangedByID: process.UpdatedBy.ID, MayEdit: mayEdit(c), Lock: panel,
	}
	view.Notices = said
	if code == http.StatusOK {
		view.Notices = notices(c)
	}
	status := h.addLock(c, process, view.Now, &view.Lock)
	view.Banner = h.partialBanner(status.Degraded || view.Lock.Unknown, readerPartial)
	if request := view.Lock.Request; request != nil && (request.State == "open" || request.State == "later") {
		// Where the answer leads to the form. What is given has to be fetched within 30 s.
		view.Refresh, view.RefreshAfter = askedPath(id, request.ID), 10
	}
	if view.MayEdit {
		if err := h.addDrafts(ctx, &view, process, drafts, signedIn(c).User); err != nil {
			return err
		}
	}
	html, err := h.Pages.Process(view)
	return h.page(c, code, html, err)
}

func shownFields(process models.Process) templates.ProcessFields {
	return templates.ProcessFields{Title: process.Title, Status: process.Status, Description: process.Description}
}

// addLock says who is editing. Where that cannot be found out, the process can still be read.
func (h *Handlers) addLock(c *gin.Context, process models.Process, now time.Time, panel *templates.LockPanel) models.LockStatus {
	me := signedIn(c).User
	seen, err := h.Processes.LockStatusOf(c.Request.Context(), me, process)
	status := seen.LockStatus
	if err != nil {
		panel.Unknown = true
		setLocksDegraded(c, true)
		return status
	}
	setLocksDegraded(c, status.Degraded)
	panel.Editing = editingInWords(now, status, me)
	panel.CanTake = seen.TakeOver == services.TakeOverProtectionOver
	if mayEdit(c) {
		addRequests(panel, seen, me)
	}
	if panel.Editing != nil && isAdmin(c) {
		panel.Technical = technical(now, status)
		if !panel.Editing.Mine {
			panel.Force = link("/locks/force", "resource", status.Resource)
		}
	}
	return status
}

// addDrafts adds the reader's draft, and whose others there are.
func (h *Handlers) addDrafts(ctx context.Context, view *templates.Process, process models.Process, drafts []models.DraftRef, me models.UserRef) error {
	for _, draft := range drafts {
		if draft.UserID != me.ID {
			view.Drafts = append(view.Drafts, templates.OtherDraft{Who: draft.Email, SavedAt: draft.SavedAt})
			continue
		}
		mine, _, err := h.draftOf(ctx, me, process)
		if err != nil {
			return err
		}
		if mine != nil {
			view.Draft = &templates.Draft{
				SavedAt: mine.SavedAt, Older: mine.BaseVersion < process.Version,
				Changes: shownChanges(models.ProcessPatch{}.Apply(process), mine.Fields()),
			}
		}
	}
	return nil
}
