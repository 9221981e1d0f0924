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

type askBody struct {
	Message *string `json:"message" example:"Can I have it for ten minutes?"`
}

type answerBody struct {
	Answer  *string `json:"answer" binding:"required" enums:"give,later,no" example:"later"`
	Minutes *int64  `json:"minutes" minimum:"1" maximum:"30" default:"5" example:"5"`
	Message *string `json:"message" example:"Almost done"`
}

// lockRequestAnswer is a request for a lock. Message is the last word: the asker's, then the
// holder's.
type lockRequestAnswer struct {
	ID         string                  `json:"id"`
	State      models.LockRequestState `json:"state" enums:"open,given,later,no,expired,withdrawn"`
	At         time.Time               `json:"at"`
	AnswerBy   time.Time               `json:"answerBy"`
	Message    string                  `json:"message,omitempty"`
	AnsweredAt *time.Time              `json:"answeredAt,omitempty"`
	Lock       *lockAnswer             `json:"lock,omitempty"`
}

// askedDoc is a request as the holder sees it.
type askedDoc struct {
	ID      string    `json:"id"`
	By      holderRef `json:"by"`
	Message string    `json:"message"`
	At      time.Time `json:"at"`
}

func askedDocs(requests []models.LockRequest) *[]askedDoc {
	docs := []askedDoc{}
	for _, r := range requests {
		docs = append(docs, askedDoc{ID: r.ID, By: holderRef{r.By.ID, r.By.Email}, Message: r.Message, At: r.At})
	}
	return &docs
}

func requestAnswerOf(r models.LockRequest) lockRequestAnswer {
	answer := lockRequestAnswer{ID: r.ID, State: r.State, At: r.At, AnswerBy: r.AnswerBy, Message: r.LastWord()}
	if !r.AnsweredAt.IsZero() {
		answer.AnsweredAt = &r.AnsweredAt
	}
	return answer
}

// word reads an optional message.
func word(message *string) (string, error) {
	if message == nil {
		return "", nil
	}
	if utf8.RuneCountInString(*message) > 200 || strings.ContainsRune(*message, 0) {
		return "", models.Invalid("message", "must have at most 200 characters and no NUL")
	}
	return *message, nil
}

// requestPath is the process and the request in the path.
func requestPath(c *gin.Context) (id, request string, err error) {
	if id, err = pathID(c); err != nil {
		return "", "", err
	}
	if request = c.Param("request"); !isID(request) {
		return "", "", models.Invalid("request", "must be 1 to 64 of A-Z a-z 0-9 _ -")
	}
	return id, request, nil
}

// askForLock asks the holder of a lock for it.
//
//	@Summary		Ask for a lock
//	@Description	The holder sees it at once. Who asks again gets the same request.
//	@Tags			locks
//	@Accept			json
//	@Produce		json
//	@Param			id		path		string	true	"process"
//	@Param			body	body		askBody	false	"message up to 200 characters"
//	@Success		200		{object}	lockRequestAnswer	"asked already"
//	@Success		201		{object}	lockRequestAnswer
//	@Header			201		{string}	Location	"its address"
//	@Failure		400,401,403,404,413,415,422,503	{object}	problemDoc
//	@Failure		409	{object}	problemDoc	"conflict, field lock: it is free, or your own"
//	@Failure		429	{object}	problemDoc	"quota-exceeded; too-many-locks"
//	@Security		Bearer
//	@Router			/processes/{id}/lock/requests [post]
func (h *Handlers) askForLock(c *gin.Context) error {
	body, err := decodeOptional[askBody](c)
	if err != nil {
		return err
	}
	id, err := pathID(c)
	if err != nil {
		return err
	}
	message, err := word(body.Message)
	if err != nil {
		return err
	}
	request, created, degraded, err := h.Processes.Ask(c.Request.Context(), signedIn(c).User, id, services.AskOptions{Message: message, Most: h.LocksPerUser, Client: clientOf(c)})
	setLocksDegraded(c, degraded)
	switch {
	case err != nil:
		return err
	case !created:
		return answerJSON(c, http.StatusOK, requestAnswerOf(request))
	}
	c.Header("Location", "/api/v1/processes/"+id+"/lock/requests/"+request.ID)
	return answerJSON(c, http.StatusCreated, requestAnswerOf(request))
}

// getLockRequest answers what has become of a request for a lock.
//
//	@Summary		What has become of my request for a lock
//	@Description	Once it is given, lock is the answer of POST .../lock. It has to be fetched within 30 s, or it passes on.
//	@Tags			locks
//	@Produce		json
//	@Param			id		path		string	true	"process"
//	@Param			request	path		string	true	"request"
//	@Param			Prefer	header		string	false	"wait=N: seconds to wait for a change, at most 30"
//	@Success		200		{object}	lockRequestAnswer
//	@Failure		401,403,404,422,503	{object}	problemDoc
//	@Failure		429	{object}	problemDoc	"quota-exceeded; too-many-locks: given, but one too many"
//	@Security		Bearer
//	@Router			/processes/{id}/lock/requests/{request} [get]
func (h *Handlers) getLockRequest(c *gin.Context) error {
	middleware.KeepPlain(c) // it may have a token
	id, request, err := h.plainRequest(c)
	if err != nil {
		return err
	}
	ctx, wait, stop := h.whileWaiting(c, waitOf(c, 0), h.stillAllowed(c, models.RoleEditor))
	defer stop()
	asked, err := h.Processes.Asked(ctx, signedIn(c).User, id, request, wait, h.LocksPerUser)
	if err != nil {
		return err
	}
	answer := requestAnswerOf(asked.LockRequest)
	if asked.Lock != nil {
		setLocksDegraded(c, asked.Lock.Degraded)
		answer.Lock = lockAnswerOf(*asked.Lock)
	}
	return answerJSON(c, http.StatusOK, answer)
}

// withdrawLockRequest takes a request for a lock back.
//
//	@Summary	Withdraw my request for a lock
//	@Tags		locks
//	@Param		id		path	string	true	"process"
//	@Param		request	path	string	true	"request"
//	@Success	204
//	@Failure	401,403,404,422,429,503	{object}	problemDoc
//	@Security	Bearer
//	@Router		/processes/{id}/lock/requests/{request} [delete]
func (h *Handlers) withdrawLockRequest(c *gin.Context) error {
	id, request, err := h.plainRequest(c)
	if err != nil {
		return err
	}
	if err := h.Processes.Withdraw(c.Request.Context(), signedIn(c).User, id, request, clientOf(c)); err != nil {
		return err
	}
	return noContent(c)
}

// plainRequest is requestPath for a request without query parameters.
func (h *Handlers) plainRequest(c *gin.Context) (id, request string, err error) {
	if _, err := query(c); err != nil {
		return "", "", err
	}
	return requestPath(c)
}

// answerLockRequest answers who asks for a lock.
//
//	@Summary		Answer a request for my lock
//	@Description	give: the asker has the lock at once, and this token ends. later: the asker is answered again within minutes. Without an answer by answerBy the lock passes on when its holder gave no sign of life for a while (LOCK_PROTECTION).
//	@Tags			locks
//	@Accept			json
//	@Produce		json
//	@Param			id				path		string		true	"process"
//	@Param			request			path		string		true	"request"
//	@Param			X-Lock-Token	header		string		true	"the lockToken of POST .../lock"
//	@Param			body			body		answerBody	true	"answer; minutes 1 to 30 with later; message up to 200 characters"
//	@Success		200				{object}	lockRequestAnswer
//	@Failure		400,401,403,404,413,415,422,428,429,503	{object}	problemDoc
//	@Failure		409	{object}	problemDoc	"lock-not-held; conflict, field answer: it is answered, or withdrawn"
//	@Security		Bearer
//	@Router			/processes/{id}/lock/requests/{request}/answer [post]
func (h *Handlers) answerLockRequest(c *gin.Context) error {
	body, err := decode[answerBody](c)
	if err != nil {
		return err
	}
	id, request, err := requestPath(c)
	if err != nil {
		return err
	}
	answer, err := requestAnswer(body)
	if err != nil {
		return err
	}
	answer.Client = clientOf(c)
	answered, degraded, err := h.Processes.AnswerRequest(c.Request.Context(), signedIn(c).User, id, c.GetHeader(middleware.LockTokenHeader), request, answer)
	setLocksDegraded(c, degraded)
	if err != nil {
		return err
	}
	return answerJSON(c, http.StatusOK, requestAnswerOf(answered))
}

func requestAnswer(body answerBody) (answer services.RequestAnswer, err error) {
	if err := missing("answer", body.Answer); err != nil {
		return answer, err
	}
	state, ok := answerNamed(*body.Answer)
	if !ok {
		return answer, models.Invalid("answer", "must be one of give, later, no")
	}
	answer.State = state
	if body.Minutes != nil {
		if state != models.RequestLater || *body.Minutes < 1 || *body.Minutes > 30 {
			return answer, models.Invalid("minutes", "must be an integer from 1 to 30, and only with later")
		}
		answer.Later = time.Duration(*body.Minutes) * time.Minute
	}
	answer.Message, err = word(body.Message)
	return answer, err
}

// answerNamed is the state of a request after an answer, by its name in the API and on the page.
func answerNamed(name string) (state models.LockRequestState, ok bool) {
	switch name {
	case "give":
		return models.RequestGiven, true
	case "later":
		return models.RequestLater, true
	case "no":
		return models.RequestNo, true
	}
	return "", false
}
