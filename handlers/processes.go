package handlers

import (
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
	"gatehouse/services"
)

const quickUpdateWait = 5 * time.Second

type createProcessBody struct {
	Title       *string `json:"title" binding:"required" example:"Hire a gardener"`
	Status      *string `json:"status" enums:"draft,active,paused,completed,archived"`
	Description *string `json:"description"`
}

type replaceProcessBody struct {
	Title       *string `json:"title" binding:"required" example:"Hire two gardeners"`
	Status      *string `json:"status" binding:"required" enums:"draft,active,paused,completed,archived" example:"active"`
	Description *string `json:"description" binding:"required" example:"Spring is near."`
}

type patchProcessBody struct {
	Title       *string `json:"title" example:"Hire three gardeners"`
	Status      *string `json:"status" enums:"draft,active,paused,completed,archived"`
	Description *string `json:"description"`
}

// processList is one page of processes.
type processList struct {
	Items      []models.Process `json:"items"`
	NextCursor *string          `json:"nextCursor"`
}

// listProcesses answers a page of processes.
//
//	@Summary	List processes, newest change first
//	@Tags		processes
//	@Produce	json
//	@Param		status	query		string	false	"only this status"	Enums(draft, active, paused, completed, archived)
//	@Param		q		query		string	false	"contained in the title, in any case"
//	@Param		limit	query		int		false	"1 to 200"	default(50)
//	@Param		cursor	query		string	false	"nextCursor of the page before"
//	@Success	200		{object}	processList
//	@Failure	401,422,429,503	{object}	problemDoc
//	@Security	Bearer
//	@Router		/processes [get]
func (h *Handlers) listProcesses(c *gin.Context) error {
	params, err := query(c, "status", "q", "limit", "cursor")
	if err != nil {
		return err
	}
	wanted, err := page(params)
	if err != nil {
		return err
	}
	filter := models.ProcessFilter{Status: params["status"], Query: params["q"]}
	if status := params["status"]; status != "" {
		if err := (models.ProcessPatch{Status: &status}).Validate(); err != nil {
			return err
		}
	}
	if utf8.RuneCountInString(filter.Query) > maxFilter {
		return models.Invalid("q", "must have at most 200 characters")
	}
	found, err := h.Processes.Processes(c.Request.Context(), filter, wanted)
	if err != nil {
		return err
	}
	return answerJSON(c, http.StatusOK, processList{Items: items(found.Items), NextCursor: found.NextCursor})
}

// items makes an empty list [] in JSON, not null.
func items[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// createProcess adds a process.
//
//	@Summary	Create a process
//	@Tags		processes
//	@Accept		json
//	@Produce	json
//	@Param		body	body		createProcessBody	true	"title 1 to 200 characters, description up to 10,000"
//	@Success	201		{object}	models.Process
//	@Header		201		{string}	Location	"its address"
//	@Header		201		{string}	ETag		"its version"
//	@Failure	400,401,403,413,415,422,429,503	{object}	problemDoc
//	@Security	Bearer
//	@Router		/processes [post]
func (h *Handlers) createProcess(c *gin.Context) error {
	body, err := decode[createProcessBody](c)
	if err != nil {
		return err
	}
	patch := models.ProcessPatch(body)
	if err := joinInvalid(patch.Validate(), missing("title", body.Title)); err != nil {
		return err
	}
	process, err := h.Processes.Create(c.Request.Context(), signedIn(c).User, patch.Apply(models.Process{Status: models.DefaultStatus}))
	if err != nil {
		return err
	}
	c.Header("Location", "/api/v1/processes/"+process.ID)
	return writeProcess(c, http.StatusCreated, process)
}

// processAnswer is a process and, for those who may edit it, who has a draft of it.
type processAnswer struct {
	models.Process
	Drafts []models.DraftRef `json:"drafts,omitzero"`
}

// getProcess answers one process.
//
//	@Summary		Read a process
//	@Description	Editors also get drafts: who has one, and since when. A 304 says that the version has not changed and that there are no drafts.
//	@Tags			processes
//	@Produce		json
//	@Param			id				path		string	true	"process"
//	@Param			If-None-Match	header		string	false	"ETag known already"
//	@Success		200				{object}	processAnswer
//	@Header			200				{string}	ETag	"its version"
//	@Success		304				"not changed"
//	@Failure		401,404,422,429,503	{object}	problemDoc
//	@Security		Bearer
//	@Router			/processes/{id} [get]
func (h *Handlers) getProcess(c *gin.Context) error {
	id, err := h.plainID(c)
	if err != nil {
		return err
	}
	var answer processAnswer
	if models.HasRole(signedIn(c).Roles, models.RoleEditor) {
		answer.Process, answer.Drafts, err = h.Processes.ProcessWithDrafts(c.Request.Context(), id)
	} else {
		answer.Process, err = h.Processes.Process(c.Request.Context(), id)
	}
	if err != nil {
		return err
	}
	c.Header("ETag", etag(answer.Version))
	// Drafts come and go without a new version: what names some is not kept, and a 304 never stands
	// for it. All else the browser may keep if it revalidates it each time, for the same user.
	if len(answer.Drafts) > 0 {
		return answerJSON(c, http.StatusOK, answer)
	}
	headers := c.Writer.Header()
	headers["Cache-Control"], headers["Vary"] = keptForUser[:], userTold[:]
	if noneMatch(c, answer.Version) {
		c.Status(http.StatusNotModified)
		return nil
	}
	return answerJSON(c, http.StatusOK, answer)
}

func writeProcess(c *gin.Context, status int, process models.Process) error {
	c.Header("ETag", etag(process.Version))
	return answerJSON(c, status, process)
}

// replaceProcess writes all fields under a lock.
//
//	@Summary	Replace a process under its lock
//	@Tags		processes
//	@Accept		json
//	@Produce	json
//	@Param		id				path		string				true	"process"
//	@Param		X-Lock-Token	header		string				true	"the lockToken of POST .../lock"
//	@Param		If-Match		header		string				false	"only if this is the current ETag"
//	@Param		body			body		replaceProcessBody	true	"all three fields"
//	@Success	200				{object}	models.Process
//	@Header		200				{string}	ETag	"its new version"
//	@Failure	400,401,403,404,412,413,415,422,428,429,503	{object}	problemDoc
//	@Failure	409	{object}	problemDoc	"lock-not-held or version-conflict"
//	@Security	Bearer
//	@Router		/processes/{id} [put]
func (h *Handlers) replaceProcess(c *gin.Context) error {
	body, err := decode[replaceProcessBody](c)
	if err != nil {
		return err
	}
	id, err := pathID(c)
	if err != nil {
		return err
	}
	patch := models.ProcessPatch(body)
	if err := joinInvalid(patch.Validate(), missing("title", body.Title), missing("status", body.Status), missing("description", body.Description)); err != nil {
		return err
	}
	process, degraded, err := h.Processes.Replace(c.Request.Context(), signedIn(c).User, id, c.GetHeader(middleware.LockTokenHeader), ifMatch(c), patch.Apply(models.Process{}))
	setLocksDegraded(c, degraded)
	if err != nil {
		return err
	}
	return writeProcess(c, http.StatusOK, process)
}

// quickUpdate changes some fields under a lock of its own.
//
//	@Summary	Change some fields, locking by itself
//	@Tags		processes
//	@Accept		json
//	@Produce	json
//	@Param		id			path		string				true	"process"
//	@Param		Prefer		header		string				false	"wait=N: seconds to queue for the lock, at most 30"	default(wait=5)
//	@Param		If-Match	header		string				false	"only if this is the current ETag"
//	@Param		body		body		patchProcessBody	true	"one or more fields"
//	@Success	200			{object}	models.Process
//	@Header		200			{string}	ETag	"its new version"
//	@Failure	400,401,403,404,412,413,415,422,423,429,503	{object}	problemDoc
//	@Failure	409	{object}	problemDoc	"lock-not-held: its lock was ended meanwhile; version-conflict"
//	@Security	Bearer
//	@Router		/processes/{id}/quick-update [patch]
func (h *Handlers) quickUpdate(c *gin.Context) error {
	body, err := decode[patchProcessBody](c)
	if err != nil {
		return err
	}
	id, err := pathID(c)
	if err != nil {
		return err
	}
	patch := models.ProcessPatch(body)
	if patch == (models.ProcessPatch{}) {
		return models.Invalid("body", "must name one or more of title, status, description")
	}
	if err := patch.Validate(); err != nil {
		return err
	}
	opt := services.QuickUpdateOptions{Wait: waitOf(c, quickUpdateWait), IfMatch: ifMatch(c), Allowed: h.stillAllowed(c, models.RoleEditor)}
	ctx, wait, stop := h.whileWaiting(c, opt.Wait, opt.Allowed)
	defer stop()
	opt.Wait = wait
	process, degraded, err := h.Processes.QuickUpdate(ctx, signedIn(c).User, id, opt, patch)
	setLocksDegraded(c, degraded)
	if err != nil {
		return err
	}
	return writeProcess(c, http.StatusOK, process)
}

// deleteProcess removes a process under its lock.
//
//	@Summary	Delete a process under its lock
//	@Tags		processes
//	@Param		id				path	string	true	"process"
//	@Param		X-Lock-Token	header	string	true	"the lockToken of POST .../lock"
//	@Param		If-Match		header	string	false	"only if this is the current ETag"
//	@Success	204
//	@Failure	401,403,404,412,422,428,429,503	{object}	problemDoc
//	@Failure	409	{object}	problemDoc	"lock-not-held or version-conflict"
//	@Security	Bearer
//	@Router		/processes/{id} [delete]
func (h *Handlers) deleteProcess(c *gin.Context) error {
	id, err := h.plainID(c)
	if err != nil {
		return err
	}
	degraded, err := h.Processes.Delete(c.Request.Context(), signedIn(c).User, id, c.GetHeader(middleware.LockTokenHeader), ifMatch(c))
	setLocksDegraded(c, degraded)
	if err != nil {
		return err
	}
	return noContent(c)
}

// plainID is the ID in the path of a request that must not have query parameters.
func (h *Handlers) plainID(c *gin.Context) (string, error) {
	if _, err := query(c); err != nil {
		return "", err
	}
	return pathID(c)
}
