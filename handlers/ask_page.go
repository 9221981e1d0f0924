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
	"gatehouse/templates"
)

// askForm asks the holder of a lock for it. A form about a lost lock carries a text, which is kept.
func (h *Handlers) askForm(c *gin.Context) error {
	form, err := processForm(c, "lock", "base", "message")
	if err != nil {
		return err
	}
	id, err := pathID(c)
	if err != nil {
		return h.noRoute(c)
	}
	if typed, ok := textOf(c, form); ok && !h.keepDraft(c, id, &typed) { // it is far too long, or another one is there
		return h.showText(c, id, form["lock"], typed, wrongFields(typed.ProcessFields))
	}
	if utf8.RuneCountInString(form["message"]) > maxReason {
		return h.showProcess(c, 422, id, templates.LockPanel{Note: form["message"], Error: "Say it in up to 200 characters."})
	}
	request, _, degraded, err := h.Processes.Ask(c.Request.Context(), signedIn(c).User, id, services.AskOptions{Message: form["message"], Most: h.LocksPerUser, Client: clientOf(c)})
	setLocksDegraded(c, degraded)
	var conflict *models.RequestConflictError
	if errors.As(err, &conflict) { // it is free by now, or the user's own
		return goTo(c, processPath(id))
	}
	if err != nil {
		return h.orphaned(c, id, err)
	}
	return goWith(c, askedPath(id, request.ID), middleware.Flash{Text: "You asked for it. The answer shows up here."})
}

// askedPath is where a user waits for the answer to a request.
func askedPath(id, request string) string { return link(processPath(id), "request", request) }

// awaitAnswer looks after the reader's request for a lock, if the address names one. Once the lock
// is given it goes on to the form, and done is true.
func (h *Handlers) awaitAnswer(c *gin.Context, id string, panel *templates.LockPanel) (done bool, err error) {
	request := c.Query("request")
	if !isID(request) || !mayEdit(c) {
		return false, nil
	}
	asked, err := h.Processes.Asked(c.Request.Context(), signedIn(c).User, id, request, 0, h.LocksPerUser)
	if errors.Is(err, models.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if asked.Lock != nil {
		// As long as one that the page takes; a failure leaves it its 300 s.
		_, _ = h.Processes.Extend(context.WithoutCancel(c.Request.Context()), signedIn(c).User, id, asked.Lock.Token, pageTTL)
		setLocksDegraded(c, asked.Lock.Degraded)
		known := h.lockToken(c, lockID(asked.Lock.Grant)) != ""
		form := editPath(id, h.keepLock(c, id, *asked.Lock))
		if known { // as when the page's script has looked before
			return true, goTo(c, form)
		}
		return true, goWith(c, form, middleware.Flash{Text: "It is yours now: you can edit."})
	}
	panel.Request = shownRequest(asked.LockRequest)
	return false, nil
}

func shownRequest(r models.LockRequest) *templates.Asked {
	return &templates.Asked{ID: r.ID, At: r.At, AnswerBy: r.AnswerBy, State: string(r.State), Message: r.Reply}
}

// addRequests says who else asked for a lock, and finds the reader's own request.
func addRequests(panel *templates.LockPanel, seen services.ProcessLockStatus, me models.UserRef) {
	if panel.Editing == nil || panel.Editing.Mine {
		return
	}
	panel.MayAsk = true
	for i, r := range seen.Requests {
		if r.By.ID == me.ID {
			panel.Editing.Place = seen.Waiting - seen.Asked + i + 1 // a free lock is the queue's first
			if panel.Request == nil {
				panel.Request = shownRequest(r)
			}
		}
	}
}

// withdrawForm takes the reader's request for a lock back.
func (h *Handlers) withdrawForm(c *gin.Context) error {
	form, err := formValues(c, "request")
	if err != nil {
		return err
	}
	id, err := pathID(c)
	if err != nil || !isID(form["request"]) {
		return h.noRoute(c)
	}
	if err := h.Processes.Withdraw(c.Request.Context(), signedIn(c).User, id, form["request"], clientOf(c)); err != nil {
		return err
	}
	return goWith(c, processPath(id), middleware.Flash{Text: "You no longer ask for it."})
}

// told is what a script is told of an answer that its user gave.
type told struct {
	Text   string `json:"text"`
	Failed bool   `json:"failed"`
}

// sayOf says what has become of an answer: to a script at once, else on the form.
func sayOf(c *gin.Context, id, lock string, flash middleware.Flash) error {
	if isScript(c) {
		return answerJSON(c, http.StatusOK, told{flash.Text, flash.Failed})
	}
	return goWith(c, editPath(id, lock), flash)
}

// answerForm answers a request for the lock of the page. What was typed is kept as a draft.
func (h *Handlers) answerForm(c *gin.Context) error {
	form, err := processForm(c, "lock", "base", "answer")
	if err != nil {
		return err
	}
	id, err := pathID(c)
	if err != nil {
		return h.noRoute(c)
	}
	word, request, _ := strings.Cut(form["answer"], " ")
	state, ok := answerNamed(word)
	if !ok || !isID(request) {
		return models.Invalid("answer", "must be give, later or no, and a request")
	}
	ctx, me, lock := c.Request.Context(), signedIn(c).User, form["lock"]
	typed, carries := textOf(c, form)
	if carries {
		process, err := h.Processes.Process(ctx, id)
		if errors.Is(err, models.ErrNotFound) {
			return h.showDeleted(c, id, typed)
		}
		if err != nil {
			return err
		}
		if !h.untouched(c, process, typed) && !h.storeDraft(c, id, &typed) { // as in askForm
			return h.showText(c, id, lock, typed, wrongFields(typed.ProcessFields))
		}
	}
	r, degraded, err := h.Processes.AnswerRequest(ctx, me, id, h.lockToken(c, lock), request, services.RequestAnswer{State: state, Later: 5 * time.Minute, Client: clientOf(c)})
	setLocksDegraded(c, degraded)
	var conflict *models.RequestConflictError
	switch {
	case errors.As(err, &conflict), errors.Is(err, models.ErrNotFound):
		return sayOf(c, id, lock, middleware.Flash{Text: "That request was answered or taken back already.", Failed: true})
	case carries && (errors.Is(err, models.ErrNotHeld) || errors.Is(err, models.ErrLockTokenRequired)):
		return h.showLost(c, id, typed, true, err)
	case err != nil:
		return err
	}
	switch state {
	case models.RequestGiven:
		return goWith(c, processPath(id), middleware.Flash{Text: nameOf(r.By) + " can edit it now. What you had typed is kept for you."})
	case models.RequestLater:
		return sayOf(c, id, lock, middleware.Flash{Text: nameOf(r.By) + " is told: 5 more minutes."})
	}
	return sayOf(c, id, lock, middleware.Flash{Text: nameOf(r.By) + " is told: no."})
}
