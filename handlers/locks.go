package handlers

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"gatehouse/models"
	"gatehouse/services"
)

type holderRef struct {
	UserID string `json:"userId"`
	Email  string `json:"email"`
}

type listedLock struct {
	Resource  string    `json:"resource"`
	Holder    holderRef `json:"holder"`
	Since     time.Time `json:"since"`
	ExpiresAt time.Time `json:"expiresAt"`
	Fence     *int64    `json:"fence"`
	Reason    string    `json:"reason"`
	// Waiting is how many wait for the lock: in its queue, or because they asked for it.
	Waiting int `json:"waiting"`
}

type lockList struct {
	Items      []listedLock `json:"items"`
	Count      int          `json:"count"`
	NextCursor *string      `json:"nextCursor"`
	Degraded   bool         `json:"degraded"`
}

// listLocks answers a page of the locks held now.
//
//	@Summary		List the locks
//	@Description	Mine first, then those that are waited for, then the newest, unless sort says otherwise. A cursor is only for the order that it came from. count is of all pages.
//	@Tags			locks
//	@Produce		json
//	@Param			limit	query		int		false	"1 to 200"	default(50)
//	@Param			cursor	query		string	false	"nextCursor of the page before"
//	@Param			q		query		string	false	"in the title, the holder's address, the reason or the resource, in any case"
//	@Param			mine	query		bool	false	"only my own"
//	@Param			waiting	query		bool	false	"only those that are waited for"
//	@Param			sort	query		string	false	"since: the oldest first; -since: the newest; expiresAt: the next to end; waiting: the most waited for"	Enums(since, -since, expiresAt, waiting, resource)
//	@Success		200		{object}	lockList
//	@Failure		401,422,429,503	{object}	problemDoc
//	@Security		Bearer
//	@Router			/locks [get]
func (h *Handlers) listLocks(c *gin.Context) error {
	params, err := query(c, "limit", "cursor", "q", "mine", "waiting", "sort")
	if err != nil {
		return err
	}
	wanted, err := lockQuery(params)
	if err != nil {
		return err
	}
	locks, err := h.Processes.Locks(c.Request.Context(), signedIn(c).User, wanted)
	if err != nil {
		return err
	}
	answer := lockList{Items: []listedLock{}, Count: locks.Count, NextCursor: locks.NextCursor, Degraded: locks.Degraded}
	for _, lock := range locks.Items {
		answer.Items = append(answer.Items, listedLockOf(lock.LockStatus))
	}
	setLocksDegraded(c, locks.Degraded)
	return answerJSON(c, http.StatusOK, answer)
}

func listedLockOf(lock models.LockStatus) listedLock {
	return listedLock{
		Resource: lock.Resource, Holder: holderRef{lock.Holder.UserID, lock.Holder.Email}, Since: lock.Holder.Since,
		ExpiresAt: lock.ExpiresAt, Fence: lock.Fence, Reason: lock.Holder.Reason, Waiting: lock.Waiting,
	}
}

// lockQuery reads which locks to list. The API and the page share it.
func lockQuery(params map[string]string) (services.LockQuery, error) {
	wanted := services.LockQuery{Text: strings.TrimSpace(params["q"]), Sort: params["sort"]}
	var wrongs []error
	var err error
	if wanted.Page, err = page(params); err != nil {
		wrongs = append(wrongs, err)
	}
	if utf8.RuneCountInString(wanted.Text) > maxFilter {
		wrongs = append(wrongs, models.Invalid("q", "must have at most 200 characters"))
	}
	for name, to := range map[string]*bool{"mine": &wanted.Mine, "waiting": &wanted.Waiting} {
		text, given := params[name]
		if *to = text == "true"; given && text != "true" && text != "false" {
			wrongs = append(wrongs, models.Invalid(name, "must be true or false"))
		}
	}
	if _, given := params["sort"]; given && !slices.Contains(services.LockSorts[:], wanted.Sort) {
		wrongs = append(wrongs, models.Invalid("sort", "must be one of "+strings.Join(services.LockSorts[:], ", ")))
	}
	return wanted, joinInvalid(wrongs...)
}

// forceLock ends the lock of another user.
//
//	@Summary	Force a lock (administrators)
//	@Tags		locks
//	@Param		resource	path	string	true	"such as process:42"
//	@Param		reason		query	string	true	"1 to 200 characters, kept in the audit"
//	@Param		fence		query	int		false	"only if this is the current fence"
//	@Success	204
//	@Failure	401,403,422,429,503	{object}	problemDoc
//	@Failure	404	{object}	problemDoc	"not locked"
//	@Failure	409	{object}	problemDoc	"lock-not-held: another fence"
//	@Security	Bearer
//	@Router		/locks/{resource} [delete]
func (h *Handlers) forceLock(c *gin.Context) error {
	params, err := query(c, "reason", "fence")
	if err != nil {
		return err
	}
	if fence, given := params["fence"]; given && fence == "" {
		return models.Invalid("fence", "must be a positive integer")
	}
	was, err := h.force(c, c.Param("resource"), params["reason"], params["fence"])
	setLocksDegraded(c, was.Degraded)
	if err != nil {
		return err
	}
	return noContent(c)
}

// force checks the input and ends a lock. The API and the page share it.
func (h *Handlers) force(c *gin.Context, resource, reason, fenceText string) (models.LockStatus, error) {
	wrong := &models.ValidationError{}
	if !isResource(resource) {
		wrong.Errors = append(wrong.Errors, models.FieldError{Field: "resource", Message: resourceRule})
	}
	if n := utf8.RuneCountInString(reason); n < 1 || n > 200 || strings.TrimSpace(reason) == "" {
		wrong.Errors = append(wrong.Errors, models.FieldError{Field: "reason", Message: "must have 1 to 200 characters"})
	}
	var fence *int64
	if fenceText != "" {
		n, err := strconv.ParseInt(fenceText, 10, 64)
		if err != nil || n < 1 {
			wrong.Errors = append(wrong.Errors, models.FieldError{Field: "fence", Message: "must be a positive integer"})
		}
		fence = &n
	}
	if len(wrong.Errors) > 0 {
		return models.LockStatus{}, wrong
	}
	return h.Accounts.ForceLock(c.Request.Context(), signedIn(c).User, resource, reason, fence, clientOf(c))
}
