package handlers

import (
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
	"gatehouse/services"
)

type lockBody struct {
	TTL    *int64  `json:"ttl" minimum:"1" maximum:"3600" default:"300" example:"300"`
	Reason *string `json:"reason" example:"quarterly review"`
	// TakeOver: take the lock over if it is mine in another session, or its holder gave no sign of
	// life for a while.
	TakeOver *bool `json:"takeOver" default:"false"`
}

type extendBody struct {
	TTL *int64 `json:"ttl" minimum:"1" maximum:"3600" default:"300" example:"300"`
}

// lockAnswer is a granted lock, and the process as read after the grant.
type lockAnswer struct {
	LockToken      string         `json:"lockToken"`
	ExpiresIn      int64          `json:"expiresIn"`
	ExpiresAt      time.Time      `json:"expiresAt"`
	Fence          *int64         `json:"fence"`
	ProcessVersion int64          `json:"processVersion"`
	Process        models.Process `json:"process"`
	Degraded       bool           `json:"degraded"`
}

type lockStatusAnswer struct {
	IsLocked  bool           `json:"isLocked"`
	TTL       int64          `json:"ttl"`
	ExpiresAt *time.Time     `json:"expiresAt,omitempty"`
	Fence     *int64         `json:"fence,omitempty"`
	Holder    *models.Holder `json:"holder,omitempty"`
	Mine      bool           `json:"mine"`
	Degraded  bool           `json:"degraded"`
	// Waiting is how many wait for the lock: in its queue, or because they asked for it.
	Waiting int `json:"waiting"`
	// LastActiveAt is the holder's last sign of life: the grant, an extend, or a save.
	LastActiveAt *time.Time `json:"lastActiveAt,omitempty"`
	// TakeOver is what the caller may do now.
	TakeOver *services.TakeOver `json:"takeOver" enums:"own,protection-over" extensions:"x-nullable"`
	// Asked is how many of those who wait asked for the lock.
	Asked int `json:"asked"`
	// Requests are theirs, first asked first; for the holder and administrators only.
	Requests *[]askedDoc `json:"requests,omitempty"`
}

type extendAnswer struct {
	ExpiresIn int64     `json:"expiresIn"`
	ExpiresAt time.Time `json:"expiresAt"`
	Fence     *int64    `json:"fence"`
	Degraded  bool      `json:"degraded"`
}

// lockProcess locks a process for the signed-in user.
//
//	@Summary	Lock a process
//	@Tags		locks
//	@Accept		json
//	@Produce	json
//	@Param		id				path		string		true	"process"
//	@Param		Prefer			header		string		false	"wait=N: seconds to queue, at most 30"
//	@Param		Idempotency-Key	header		string		false	"the same key gets the same grant and token while that lives"
//	@Param		If-Match		header		string		false	"only if this is the current ETag"
//	@Param		body			body		lockBody	false	"ttl in seconds, 1 to 3600; reason up to 200 characters; takeOver"
//	@Success	201				{object}	lockAnswer
//	@Failure	400,401,403,404,412,413,415,422,503	{object}	problemDoc
//	@Failure	423	{object}	problemDoc	"locked: another grant has the lock; with takeOver it has takeOverAt, when it can be taken over unless its holder is active"
//	@Failure	429	{object}	problemDoc	"quota-exceeded; too-many-locks: the user has limit processes locked"
//	@Security	Bearer
//	@Router		/processes/{id}/lock [post]
func (h *Handlers) lockProcess(c *gin.Context) error {
	body, err := decodeOptional[lockBody](c)
	if err != nil {
		return err
	}
	id, err := pathID(c)
	if err != nil {
		return err
	}
	opt, err := lockOptions(c, body)
	if err != nil {
		return err
	}
	opt.Allowed, opt.Most = h.stillAllowed(c, models.RoleEditor), h.LocksPerUser
	if opt.TakeOver {
		opt.Client = clientOf(c)
	}
	ctx, wait, stop := h.whileWaiting(c, opt.Wait, opt.Allowed)
	defer stop()
	opt.Wait = wait
	lock, err := h.Processes.Lock(ctx, signedIn(c).User, id, opt)
	setLocksDegraded(c, lock.Degraded)
	if err != nil {
		return err
	}
	return answerJSON(c, http.StatusCreated, lockAnswerOf(lock))
}

func lockAnswerOf(lock services.ProcessLock) *lockAnswer {
	if lock.Degraded {
		lock.Fence = nil // by contract, although a repeated acquire may know a fence
	}
	return &lockAnswer{
		LockToken: lock.Token, ExpiresIn: seconds(lock.TTL), ExpiresAt: lock.ExpiresAt, Fence: lock.Fence,
		ProcessVersion: lock.Process.Version, Process: lock.Process, Degraded: lock.Degraded,
	}
}

func lockOptions(c *gin.Context, body lockBody) (services.ProcessLockOptions, error) {
	ttl, err := ttlOf(body.TTL)
	if err != nil {
		return services.ProcessLockOptions{}, err
	}
	opt := services.ProcessLockOptions{TTL: ttl, Wait: waitOf(c, 0), IfMatch: ifMatch(c), IdempotencyKey: c.GetHeader("Idempotency-Key")}
	if body.Reason != nil {
		opt.Reason = *body.Reason
	}
	opt.TakeOver = body.TakeOver != nil && *body.TakeOver
	if utf8.RuneCountInString(opt.Reason) > 200 || strings.ContainsRune(opt.Reason, 0) {
		return opt, models.Invalid("reason", "must have at most 200 characters and no NUL")
	}
	if len(c.Request.Header.Values("Idempotency-Key")) > 0 && !isVisible(opt.IdempotencyKey) {
		return opt, models.Invalid("Idempotency-Key", "must have 1 to 255 visible ASCII characters")
	}
	return opt, nil
}

// lockStatus answers the state of a process's lock.
//
//	@Summary	Who has the lock
//	@Tags		locks
//	@Produce	json
//	@Param		id	path		string	true	"process"
//	@Success	200	{object}	lockStatusAnswer
//	@Failure	401,404,422,429,503	{object}	problemDoc
//	@Security	Bearer
//	@Router		/processes/{id}/lock/status [get]
func (h *Handlers) lockStatus(c *gin.Context) error {
	id, err := h.plainID(c)
	if err != nil {
		return err
	}
	session := signedIn(c)
	admin := models.HasRole(session.Roles, models.RoleAdmin)
	status, err := h.Processes.LockStatus(c.Request.Context(), session.User, id)
	if err != nil {
		return err
	}
	answer := lockStatusAnswer{IsLocked: status.Held, TTL: seconds(status.TTL), Degraded: status.Degraded, Waiting: status.Waiting}
	if status.Held {
		answer.ExpiresAt, answer.Fence, answer.Holder = &status.ExpiresAt, status.Fence, &status.Holder
		answer.Mine = status.Holder.UserID == session.User.ID
		answer.LastActiveAt, answer.Asked = &status.ActiveAt, status.Asked
		if answer.Mine || admin {
			answer.Requests = askedDocs(status.Requests)
		}
		if status.TakeOver != "" && models.HasRole(session.Roles, models.RoleEditor) {
			answer.TakeOver = &status.TakeOver
		}
	}
	setLocksDegraded(c, status.Degraded)
	return answerJSON(c, http.StatusOK, answer)
}

// extendLock sets the time left of a lock to ttl.
//
//	@Summary	Extend a lock
//	@Tags		locks
//	@Accept		json
//	@Produce	json
//	@Param		id				path		string		true	"process"
//	@Param		X-Lock-Token	header		string		true	"the lockToken of POST .../lock"
//	@Param		body			body		extendBody	false	"ttl in seconds, 1 to 3600"
//	@Success	200				{object}	extendAnswer
//	@Failure	400,401,403,404,413,415,422,428,429,503	{object}	problemDoc
//	@Failure	409	{object}	problemDoc	"lock-not-held"
//	@Security	Bearer
//	@Router		/processes/{id}/lock/extend [post]
func (h *Handlers) extendLock(c *gin.Context) error {
	body, err := decodeOptional[extendBody](c)
	if err != nil {
		return err
	}
	id, err := pathID(c)
	if err != nil {
		return err
	}
	ttl, err := ttlOf(body.TTL)
	if err != nil {
		return err
	}
	lock, err := h.Processes.Extend(c.Request.Context(), signedIn(c).User, id, c.GetHeader(middleware.LockTokenHeader), ttl)
	if err != nil {
		return err
	}
	setLocksDegraded(c, lock.Degraded)
	return answerJSON(c, http.StatusOK, extendAnswer{ExpiresIn: seconds(lock.TTL), ExpiresAt: lock.ExpiresAt, Fence: lock.Fence, Degraded: lock.Degraded})
}

// unlockProcess releases a lock.
//
//	@Summary	Release a lock
//	@Tags		locks
//	@Param		id				path	string	true	"process"
//	@Param		X-Lock-Token	header	string	true	"the lockToken of POST .../lock"
//	@Success	204
//	@Failure	401,403,404,422,428,429,503	{object}	problemDoc
//	@Failure	409	{object}	problemDoc	"lock-not-held"
//	@Security	Bearer
//	@Router		/processes/{id}/lock [delete]
func (h *Handlers) unlockProcess(c *gin.Context) error {
	id, err := h.plainID(c)
	if err != nil {
		return err
	}
	degraded, err := h.Processes.Unlock(c.Request.Context(), signedIn(c).User, id, c.GetHeader(middleware.LockTokenHeader))
	setLocksDegraded(c, degraded)
	if err != nil {
		return err
	}
	return noContent(c)
}
