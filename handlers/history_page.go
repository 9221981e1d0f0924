package handlers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/services/merge"
	"gatehouse/templates"
)

const historyPerPage = 25

// historyPage shows what was done to a process, also after its deletion.
func (h *Handlers) historyPage(c *gin.Context) error {
	id, err := pathID(c)
	if err != nil {
		return h.noRoute(c)
	}
	params, err := query(c, "cursor")
	if err != nil {
		return err
	}
	ctx := c.Request.Context()
	found, err := h.Processes.History(ctx, id, models.Page{Limit: historyPerPage, Cursor: params["cursor"]})
	if err != nil {
		return err
	}
	process, err := h.Processes.Process(ctx, id)
	deleted := errors.Is(err, models.ErrNotFound)
	if err != nil && !deleted {
		return err
	}
	view := templates.History{ID: id, Heading: process.Title, Deleted: deleted, Version: process.Version}
	if deleted {
		view.Heading = "process " + id
	}
	view.Frame = h.frame(c, "History of “"+view.Heading+"”")
	view.Notices = notices(c)
	for _, entry := range found.Items {
		view.Entries = append(view.Entries, h.shownEntry(c, entry, process))
	}
	path := processPath(id) + "/history"
	if params["cursor"] != "" {
		view.First = path
	}
	if found.NextCursor != nil {
		view.Next = link(path, "cursor", *found.NextCursor)
	}
	html, err := h.Pages.History(view)
	return h.page(c, http.StatusOK, html, err)
}

// whatWasDone are the words for the kinds of history entries.
var whatWasDone = map[string]string{
	models.HowCreated: "created it", models.HowEdited: "edited it", models.HowQuickUpdate: "made a quick change",
	models.HowRestored: "restored a former version", models.HowDeleted: "deleted it", models.HowRefused: "could not save",
}

func (h *Handlers) shownEntry(c *gin.Context, entry models.HistoryEntry, process models.Process) templates.HistoryEntry {
	shown := templates.HistoryEntry{
		Who: nameOf(entry.Actor), What: whatWasDone[entry.How], At: entry.At, EndedAt: entry.EndedAt, Version: entry.Version,
		Changed: entry.How == models.HowEdited || entry.How == models.HowQuickUpdate || entry.How == models.HowRestored,
		Current: entry.Version > 0 && entry.Version == process.Version,
	}
	shown.Restorable = entry.Version > 0 && process.Version > entry.Version && mayEdit(c)
	for _, change := range entry.Changes {
		field := templates.FieldChange{Field: change.Field, From: change.From, To: change.To}
		if change.Field == merge.Description {
			field.Lines = changedLines(change.From, change.To)
		}
		shown.Changes = append(shown.Changes, field)
	}
	if entry.LockEnded != nil {
		shown.LockEnded = lockEndInWords(*entry.LockEnded, entry.Actor)
	}
	if isAdmin(c) {
		shown.Technical = technicalEntry(entry)
	}
	return shown
}

// lockEndInWords says how the lock of an editing session ended, if it did not end as usual.
func lockEndInWords(end models.LockEnd, actor models.UserRef) string {
	by := "by another user"
	if end.By.ID != "" {
		by = "by " + nameOf(end.By)
	}
	text := ""
	switch end.How {
	case models.LockExpired:
		return "The lock ran out."
	case models.LockForced:
		text = "The lock was ended " + by
	case models.LockTakenOver:
		if end.By.ID == actor.ID {
			return "Went on in another tab, or on another device."
		}
		text = "The lock was taken over " + by
	case models.LockGiven:
		text = "The lock was passed on to a user who had asked for it"
	case models.LockUserDisabled:
		return "The account was disabled."
	default:
		return ""
	}
	if end.Reason != "" {
		text += ": “" + end.Reason + "”"
	}
	return text + "."
}

// technicalEntry is what an administrator may want to know of an entry.
func technicalEntry(entry models.HistoryEntry) string {
	var parts []string
	if entry.Version > 0 {
		parts = append(parts, fmt.Sprintf("version %d", entry.Version))
	}
	if entry.Fence != nil {
		parts = append(parts, fmt.Sprintf("fence %d", *entry.Fence))
	}
	if entry.RequestID != "" {
		parts = append(parts, "request "+entry.RequestID)
	}
	return strings.Join(parts, ", ")
}

// restoreForm writes a former version again, under a lock that it takes for that.
func (h *Handlers) restoreForm(c *gin.Context) error {
	form, err := formValues(c, "version", "seen")
	if err != nil {
		return err
	}
	id, err := pathID(c)
	if err != nil {
		return h.noRoute(c)
	}
	version, err := strconv.ParseInt(form["version"], 10, 64)
	if err != nil || version < 1 {
		return models.Invalid("version", "must be a version of the process")
	}
	restored := middleware.Flash{Text: "The former version is restored. What it replaced is in the history."}
	ctx, user := c.Request.Context(), signedIn(c).User
	lock, err := h.Processes.Lock(ctx, user, id, services.ProcessLockOptions{Reason: "restores a former version", Most: h.LocksPerUser})
	setLocksDegraded(c, lock.Degraded)
	if errors.Is(err, models.ErrNotAcquired) {
		held, _ := lostOf(err)
		now, failed := h.Processes.Process(ctx, id)
		if failed == nil && held.status.Holder.UserID == user.ID && h.isRestored(ctx, now, version, user) { // by the press before
			return goWith(c, processPath(id), restored)
		}
		h.notePageRefusal(c, err)
		return h.showProcess(c, http.StatusLocked, id, templates.LockPanel{}, templates.Notice{Text: "Nothing was restored: " + heldInWords(err, user), Failed: true})
	}
	if err != nil {
		return err
	}
	var match *models.IfMatch // what the reader has seen
	if seen, err := strconv.ParseInt(form["seen"], 10, 64); err == nil {
		match = &models.IfMatch{Versions: []int64{seen}}
	}
	_, _, err = h.Processes.Restore(ctx, user, id, lock.Token, match, version)
	if _, err := h.Processes.Unlock(context.WithoutCancel(ctx), user, id, lock.Token); err != nil && !errors.Is(err, models.ErrNotHeld) {
		_ = c.Error(err) // it runs out
	}
	var refused *models.ConflictError
	switch {
	case errors.As(err, &refused) && h.isRestored(ctx, refused.Current, version, user): // by the press before
	case refused != nil:
		h.notePageRefusal(c, err)
		saved := nameOf(refused.Current.UpdatedBy) + " saved another version since you looked."
		if refused.Current.UpdatedBy.ID == user.ID {
			saved = "you saved another version since you looked, in another tab or on another device."
		}
		return goWith(c, processPath(id)+"/history", middleware.Flash{Text: "Nothing was restored: " + saved, Failed: true})
	case err != nil:
		return err
	}
	return goWith(c, processPath(id), restored)
}

// isRestored reports whether a process is what the user wants to restore, and was saved by that user,
// as when the button was pressed twice. If that cannot be found out, it is not.
func (h *Handlers) isRestored(ctx context.Context, current models.Process, version int64, user models.UserRef) bool {
	wanted, err := h.Processes.Version(ctx, current.ID, version)
	return err == nil && current.UpdatedBy.ID == user.ID && models.ProcessPatch{}.Apply(wanted) == models.ProcessPatch{}.Apply(current)
}

// notePageRefusal records why a page was refused a write or a lock, which it shows in its own way.
func (h *Handlers) notePageRefusal(c *gin.Context, err error) {
	problem, ok := middleware.LockProblem(c, err)
	if !ok {
		problem = problemOf(err)
	}
	if problem.Name == "lock-token-required" { // of a page the cookie is gone, with the lock
		problem = models.NewProblem("lock-not-held", models.ProblemKinds["lock-not-held"].Help)
	}
	h.noteRefusal(c, problem)
}
