package handlers

import (
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
)

type restoreBody struct {
	Version *int64 `json:"version" binding:"required" minimum:"1" example:"2"`
}

// historyItem is what one user did in one editing session.
type historyItem struct {
	ID        string          `json:"id"`
	At        time.Time       `json:"at"`
	EndedAt   *time.Time      `json:"endedAt,omitempty"`
	Actor     models.UserRef  `json:"actor"`
	How       string          `json:"how" enums:"created,edited,quick-update,restored,deleted,refused"`
	Changes   []models.Change `json:"changes"`
	Version   int64           `json:"version,omitempty"`
	Fence     *int64          `json:"fence,omitempty"`
	LockEnded *models.LockEnd `json:"lockEnded,omitempty" swaggertype:"object"`
	RequestID string          `json:"requestId"`
}

type historyList struct {
	Items      []historyItem `json:"items"`
	NextCursor *string       `json:"nextCursor"`
}

// listHistory answers a page of a process's history.
//
//	@Summary		The history of a process, newest first
//	@Description	One entry for an editing session: all saves in a row under one grant of the lock. changes are against the version before the session. lockEnded is {how, by, reason, at}, as in endedBy of a 409. A page has fewer entries than limit if their texts are long: it ends behind the entry with which they pass 1 MiB, and nextCursor goes on. Refused saves are listed for 24 h, those of one user in a row as one entry, the last. A deleted process keeps its history.
//	@Tags			history
//	@Produce		json
//	@Param			id		path		string	true	"process"
//	@Param			limit	query		int		false	"1 to 200"	default(50)
//	@Param			cursor	query		string	false	"nextCursor of the page before"
//	@Success		200		{object}	historyList
//	@Failure		401,403,404,422,429,503	{object}	problemDoc
//	@Security		Bearer
//	@Router			/processes/{id}/history [get]
func (h *Handlers) listHistory(c *gin.Context) error {
	params, err := query(c, "limit", "cursor")
	if err != nil {
		return err
	}
	wanted, err := page(params)
	if err != nil {
		return err
	}
	id, err := pathID(c)
	if err != nil {
		return err
	}
	entries, err := h.Processes.History(c.Request.Context(), id, wanted)
	if err != nil {
		return err
	}
	answer := historyList{Items: []historyItem{}, NextCursor: entries.NextCursor}
	for _, entry := range entries.Items {
		answer.Items = append(answer.Items, historyItemOf(entry))
	}
	return answerJSON(c, http.StatusOK, answer)
}

func historyItemOf(e models.HistoryEntry) historyItem {
	item := historyItem{
		ID: e.ID, At: e.At, Actor: e.Actor, How: e.How, Changes: items(e.Changes), Version: e.Version, Fence: e.Fence, LockEnded: e.LockEnded, RequestID: e.RequestID,
	}
	if !e.EndedAt.IsZero() {
		item.EndedAt = &e.EndedAt
	}
	return item
}

// getVersion answers a process as it was.
//
//	@Summary	A process as it was at a version
//	@Tags		history
//	@Produce	json
//	@Param		id	path		string	true	"process"
//	@Param		n	path		int		true	"version"
//	@Success	200	{object}	models.Process
//	@Failure	401,403,404,422,429,503	{object}	problemDoc
//	@Security	Bearer
//	@Router		/processes/{id}/versions/{n} [get]
func (h *Handlers) getVersion(c *gin.Context) error {
	id, err := h.plainID(c)
	if err != nil {
		return err
	}
	n, err := strconv.ParseInt(c.Param("n"), 10, 64)
	if err != nil || n < 1 {
		return models.Invalid("n", "must be a positive integer")
	}
	process, err := h.Processes.Version(c.Request.Context(), id, n)
	if err != nil {
		return err
	}
	return answerJSON(c, http.StatusOK, process)
}

// restoreProcess writes a former version again.
//
//	@Summary	Restore a version of a process under its lock
//	@Tags		history
//	@Accept		json
//	@Produce	json
//	@Param		id				path		string		true	"process"
//	@Param		X-Lock-Token	header		string		true	"the lockToken of POST .../lock"
//	@Param		If-Match		header		string		false	"only if this is the current ETag"
//	@Param		body			body		restoreBody	true	"the version whose fields become a new version"
//	@Success	200				{object}	models.Process
//	@Header		200				{string}	ETag	"its new version"
//	@Failure	400,401,403,404,412,413,415,422,428,429,503	{object}	problemDoc
//	@Failure	409	{object}	problemDoc	"lock-not-held or version-conflict"
//	@Security	Bearer
//	@Router		/processes/{id}/restore [post]
func (h *Handlers) restoreProcess(c *gin.Context) error {
	body, err := decode[restoreBody](c)
	if err != nil {
		return err
	}
	id, err := pathID(c)
	if err != nil {
		return err
	}
	if body.Version == nil || *body.Version < 1 {
		return models.Invalid("version", "must be a positive integer")
	}
	process, degraded, err := h.Processes.Restore(c.Request.Context(), signedIn(c).User, id, c.GetHeader(middleware.LockTokenHeader), ifMatch(c), *body.Version)
	setLocksDegraded(c, degraded)
	if err != nil {
		return err
	}
	return writeProcess(c, http.StatusOK, process)
}
