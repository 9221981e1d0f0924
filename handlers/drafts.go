package handlers

import (
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"gatehouse/models"
)

type draftBody struct {
	Title       *string `json:"title" binding:"required" maxLength:"2000" example:"Hire two gard"`
	Status      *string `json:"status" binding:"required" enums:"draft,active,paused,completed,archived" example:"active"`
	Description *string `json:"description" binding:"required" maxLength:"100000" example:"Spring is"`
	BaseVersion *int64  `json:"baseVersion" binding:"required" minimum:"1" example:"3"`
}

// getDraft answers the caller's draft.
//
//	@Summary		Read my draft of a process
//	@Description	What I typed and did not save. It is kept until it is deleted, also when the lock is lost and when the process is saved. Once the process is deleted there is none here; the pages then offer its text for a new process.
//	@Tags			drafts
//	@Produce		json
//	@Param			id		path		string	true	"process"
//	@Param			user	query		string	false	"id of the user whose draft it is to be; 403 for any other than the signed-in one"
//	@Success		200	{object}	models.Draft
//	@Header			200	{string}	Last-Modified	"savedAt, in whole seconds"
//	@Failure		401,403,404,422,429,503	{object}	problemDoc
//	@Security		Bearer
//	@Router			/processes/{id}/draft [get]
func (h *Handlers) getDraft(c *gin.Context) error {
	id, err := ownDraft(c)
	if err != nil {
		return err
	}
	draft, err := h.Processes.Draft(c.Request.Context(), signedIn(c).User, id)
	if err != nil {
		return err
	}
	return writeDraft(c, draft)
}

func writeDraft(c *gin.Context, draft models.Draft) error {
	c.Header("Last-Modified", draft.SavedAt.UTC().Format(http.TimeFormat))
	return answerJSON(c, http.StatusOK, draft)
}

// putDraft stores the caller's draft.
//
//	@Summary		Keep my draft of a process
//	@Description	Needs no lock, and may be unfinished: the title may be empty, and both texts ten times as long as a process takes. baseVersion is the version that the text began from; an older one than that of the draft before is accepted.
//	@Tags			drafts
//	@Accept			json
//	@Produce		json
//	@Param			id					path		string		true	"process"
//	@Param			user				query		string		false	"id of the user whose draft it is to be; 403 for any other than the signed-in one"
//	@Param			If-Unmodified-Since	header		string		false	"only if the stored draft was not saved later: an HTTP date, or its savedAt"
//	@Param			body				body		draftBody	true	"all four fields"
//	@Success		200					{object}	models.Draft
//	@Header			200					{string}	Last-Modified	"savedAt, in whole seconds"
//	@Failure		400,401,403,404,413,415,422,429,503	{object}	problemDoc
//	@Failure		412	{object}	problemDoc	"precondition-failed; current is the stored draft"
//	@Security		Bearer
//	@Router			/processes/{id}/draft [put]
func (h *Handlers) putDraft(c *gin.Context) error {
	body, err := decode[draftBody](c, "user")
	if err != nil {
		return err
	}
	id, err := ownDraft(c)
	if err != nil {
		return err
	}
	draft, err := draftOf(body)
	if err != nil {
		return err
	}
	saved, err := h.Processes.SaveDraft(c.Request.Context(), signedIn(c).User, id, draft, unchangedSince(c))
	if err != nil {
		return err
	}
	return writeDraft(c, saved)
}

func draftOf(body draftBody) (models.Draft, error) {
	err := joinInvalid(missing("title", body.Title), missing("status", body.Status), missing("description", body.Description))
	if body.BaseVersion == nil {
		err = joinInvalid(err, models.Invalid("baseVersion", "is required"))
	}
	if err != nil {
		return models.Draft{}, err
	}
	draft := models.Draft{Title: *body.Title, Status: *body.Status, Description: *body.Description, BaseVersion: *body.BaseVersion}
	return draft, draft.Validate()
}

// deleteDraft deletes the caller's draft.
//
//	@Summary	Delete my draft of a process
//	@Tags		drafts
//	@Param		id					path	string	true	"process"
//	@Param		user				query	string	false	"id of the user whose draft it is to be; 403 for any other than the signed-in one"
//	@Param		If-Unmodified-Since	header	string	false	"only if the stored draft was not saved later: an HTTP date, or its savedAt"
//	@Success	204
//	@Failure	401,403,404,422,429,503	{object}	problemDoc
//	@Failure	412	{object}	problemDoc	"precondition-failed; current is the stored draft"
//	@Security	Bearer
//	@Router		/processes/{id}/draft [delete]
func (h *Handlers) deleteDraft(c *gin.Context) error {
	id, err := ownDraft(c)
	if err != nil {
		return err
	}
	if err := h.Processes.DeleteDraft(c.Request.Context(), signedIn(c).User, id, unchangedSince(c)); err != nil {
		return err
	}
	return noContent(c)
}

// ownDraft is the process of a draft. A page names its user: what one typed must not become the draft
// of another, who has signed in since in the same browser.
func ownDraft(c *gin.Context) (id string, err error) {
	params, err := query(c, "user")
	if err != nil {
		return "", err
	}
	if err := refuseOtherUser(c, params); err != nil {
		return "", err
	}
	return pathID(c)
}

// unchangedSince reads If-Unmodified-Since: an HTTP date, which stands for its whole second, or a
// savedAt, which is exact. What is neither is ignored (RFC 9110), and zero.
func unchangedSince(c *gin.Context) time.Time {
	value := c.GetHeader("If-Unmodified-Since")
	since, err := http.ParseTime(value)
	if err == nil {
		since = since.Add(time.Second - time.Microsecond)
	} else if since, err = time.Parse(time.RFC3339Nano, value); err != nil {
		return time.Time{}
	}
	if epoch := time.Unix(0, 0); since.Before(epoch) { // the zero time would be no condition
		return epoch
	}
	return since
}
