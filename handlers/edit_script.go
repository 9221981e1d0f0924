package handlers

import (
	"errors"
	"time"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/services/lock"
	"gatehouse/templates"
)

// The script of the edit page calls these. They are no part of the API: they find the lock's token
// in the cookie of the page, which the script cannot read. templates/page_edit.html says what the
// script may rely on.

const editStateRoute = processesRoute + "/:id/edit/state"

func (h *Handlers) registerEditScript(open gin.IRouter) {
	editor := open.Group(processesRoute+"/:id/edit", middleware.RequireSession(), middleware.RequireRole(models.RoleEditor))
	editor.GET("/state", h.handle(h.editState))
	editor.POST("/extend", h.handle(h.extendForm))
	editor.POST("/release", h.handle(h.releaseForm))
}

// extended is the time left of a lock, in milliseconds since 1970 and seconds.
type extended struct {
	Now       int64 `json:"now"`
	Expires   int64 `json:"expires"` // 0 if it is unknown
	ExpiresIn int64 `json:"expiresIn"`
	Degraded  bool  `json:"degraded"`
}

func extendedTo(expires time.Time, degraded bool) extended {
	now := time.Now()
	e := extended{Now: now.UnixMilli(), Degraded: degraded}
	if !expires.IsZero() {
		e.Expires, e.ExpiresIn = expires.UnixMilli(), max(0, seconds(expires.Sub(now)))
	}
	return e
}

// extendForm makes the time left of a lock 300 s, because its holder is typing.
func (h *Handlers) extendForm(c *gin.Context) error {
	form, err := formValues(c, "lock")
	if err != nil {
		return err
	}
	id, err := pathID(c)
	if err != nil {
		return err
	}
	lock, err := h.Processes.Extend(c.Request.Context(), signedIn(c).User, id, h.lockToken(c, form["lock"]), services.DefaultProcessTTL)
	if err != nil {
		return lostInWords(c, err)
	}
	setLocksDegraded(c, lock.Degraded)
	return answerJSON(c, 200, extendedTo(lock.ExpiresAt, lock.Degraded))
}

// lostInWords adds to a lock-not-held how the lock ended, in words.
func lostInWords(c *gin.Context, err error) error {
	problem, ok := middleware.LockProblem(c, err)
	if !ok {
		return err
	}
	lost, _ := lostOf(err)
	text, calm := endInWords(time.Now(), lost, signedIn(c).User)
	return problem.With("text", text).With("calm", calm)
}

// comeBack is how long a lock stays whose page may come back, as after a reload.
const comeBack = 5 * time.Second

// releaseForm gives a lock back when its page is left; with soon=true in comeBack, unless the page
// is back by then. The browser keeps the cookie, which says later how the lock ended.
func (h *Handlers) releaseForm(c *gin.Context) error {
	form, err := formValues(c, "lock", "soon")
	if err != nil {
		return err
	}
	id, err := pathID(c)
	if err != nil {
		return err
	}
	ctx, user, token := c.Request.Context(), signedIn(c).User, h.lockToken(c, form["lock"])
	var degraded bool
	if form["soon"] == "true" {
		var lock lock.Lock
		lock, err = h.Processes.Extend(ctx, user, id, token, comeBack)
		degraded = lock.Degraded
	} else {
		degraded, err = h.Processes.Unlock(ctx, user, id, token)
	}
	setLocksDegraded(c, degraded)
	if err != nil && !errors.Is(err, models.ErrNotHeld) {
		return err
	}
	return noContent(c)
}

// editStateAnswer is what an open edit page has to know.
type editStateAnswer struct {
	extended
	User      string         `json:"user"` // the id of who is signed in
	Held      bool           `json:"held"`
	Version   int64          `json:"version"`
	ChangedBy models.UserRef `json:"changedBy"`
	ChangedAt int64          `json:"changedAt"`
	Holder    *models.Holder `json:"holder,omitempty"`
	// TakeOver is what the user may do about a holder, once the lock is lost.
	TakeOver services.TakeOver `json:"takeOver,omitempty"`
	Waiting  int               `json:"waiting"`
	Requests []askerDoc        `json:"requests"`
	EndedBy  *endDoc           `json:"endedBy,omitempty"`
	Text     string            `json:"text"`            // how the lock ended, in words
	Clock    string            `json:"clock,omitempty"` // the part of Text that is the time
	Calm     bool              `json:"calm"`
}

// endDoc is how a lock ended.
type endDoc struct {
	How    string          `json:"how"`
	By     *models.UserRef `json:"by,omitempty"`
	Reason string          `json:"reason,omitempty"`
	At     int64           `json:"at"`
}

// askerDoc is a request of another user for the lock.
type askerDoc struct {
	ID       string         `json:"id"`
	By       models.UserRef `json:"by"`
	Message  string         `json:"message"`
	At       int64          `json:"at"`
	AnswerBy int64          `json:"answerBy"`
}

// editState answers how a lock of this browser stands. It does not count as activity.
func (h *Handlers) editState(c *gin.Context) error {
	params, err := query(c, "lock")
	if err != nil {
		return err
	}
	id, err := pathID(c)
	if err != nil {
		return err
	}
	user := signedIn(c).User
	editing, err := h.Processes.Editing(c.Request.Context(), user, id, h.lockToken(c, params["lock"]))
	lost := errors.Is(err, models.ErrNotHeld) || errors.Is(err, models.ErrLockTokenRequired)
	if err != nil && !lost {
		return err
	}
	process, status := editing.Process, editing.Status
	answer := editStateAnswer{
		extended: extendedTo(status.ExpiresAt, editing.Degraded), User: user.ID, Held: !lost,
		Version: process.Version, ChangedBy: process.UpdatedBy, ChangedAt: process.UpdatedAt.UnixMilli(), Waiting: status.Waiting,
		Requests: []askerDoc{},
	}
	if !lost {
		asked, err := h.Processes.LockStatusOf(c.Request.Context(), user, process)
		if err != nil {
			return err
		}
		answer.Waiting = asked.Waiting
		for _, r := range asked.Requests {
			answer.Requests = append(answer.Requests, askerDoc{r.ID, r.By, r.Message, r.At.UnixMilli(), r.AnswerBy.UnixMilli()})
		}
	}
	if lost {
		was, known := lostOf(err)
		if !known { // the cookie is gone
			if was.status, err = h.Locks.Status(c.Request.Context(), services.Resource(id)); err != nil {
				return err
			}
		}
		now := time.Now()
		answer.Text, answer.Calm = endInWords(now, was, user)
		if was.end != nil {
			answer.Clock = templates.Clock(now, was.end.At)
			answer.EndedBy = &endDoc{How: was.end.How, Reason: was.end.Reason, At: was.end.At.UnixMilli()}
			if was.end.By.ID != "" {
				answer.EndedBy.By = &was.end.By
			}
		}
		if was.status.Held {
			answer.Holder, answer.Waiting = &was.status.Holder, was.status.Waiting
			// Where that cannot be found out, the page offers to ask.
			if seen, err := h.Processes.LockStatusOf(c.Request.Context(), user, process); err == nil {
				answer.TakeOver, answer.Waiting = seen.TakeOver, seen.Waiting
			}
		}
	}
	setLocksDegraded(c, editing.Degraded)
	return answerJSON(c, 200, answer)
}
