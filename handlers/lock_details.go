package handlers

import (
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"gatehouse/models"
)

// waiterDoc is a request that waits for a lock.
type waiterDoc struct {
	UserID string    `json:"userId"`
	Email  string    `json:"email"`
	Since  time.Time `json:"since"`
}

// endedLockDoc is a grant that is over, without what is not known of it.
type endedLockDoc struct {
	Holder  *holderRef     `json:"holder,omitempty"`
	Since   *time.Time     `json:"since,omitempty"`
	Fence   *int64         `json:"fence,omitempty"`
	EndedBy models.LockEnd `json:"endedBy" swaggertype:"object"`
}

type lockDetails struct {
	listedLock
	// LastActiveAt is the holder's last sign of life: the grant, an extend, a save, or a draft.
	LastActiveAt time.Time `json:"lastActiveAt"`
	// Queue is who waits, first come first: at most 100 of them.
	Queue []waiterDoc `json:"queue"`
	// History is how the lock went in the last 24 hours, the latest first: at most 50 grants.
	History  []endedLockDoc `json:"history"`
	Degraded bool           `json:"degraded"`
}

// getLock answers everything about one lock.
//
//	@Summary		A lock, who waits for it, and how it went lately
//	@Description	queue is who waits with Prefer: wait, first come first, at any instance: at most 100; waiting counts all, and those who asked for it. history is the grants that ended in the last 24 hours, the latest first, at most 50: who had the lock (holder, since, fence) and how that ended (endedBy: {how, by, reason, at}, as in a 409); without quick updates, and up to a second late. Degraded, queue is those who wait at this instance, and 404 says that this instance knows of no lock, as isLocked: false of a lock status does then. What is not known is left out.
//	@Tags			locks
//	@Produce		json
//	@Param			resource	path		string	true	"such as process:42"
//	@Success		200			{object}	lockDetails
//	@Failure		401,403,422,429,503	{object}	problemDoc
//	@Failure		404			{object}	problemDoc	"not locked"
//	@Security		Bearer
//	@Router			/locks/{resource} [get]
func (h *Handlers) getLock(c *gin.Context) error {
	if _, err := query(c); err != nil {
		return err
	}
	resource := c.Param("resource")
	if !isResource(resource) {
		return models.Invalid("resource", resourceRule)
	}
	lock, err := h.Processes.LockDetails(c.Request.Context(), resource)
	setLocksDegraded(c, lock.Degraded)
	if err != nil {
		return err
	}
	answer := lockDetails{
		listedLock: listedLockOf(lock.LockStatus), LastActiveAt: lock.ActiveAt, Degraded: lock.Degraded,
		Queue: make([]waiterDoc, 0, len(lock.Queue)), History: make([]endedLockDoc, 0, len(lock.History)),
	}
	for _, w := range lock.Queue {
		answer.Queue = append(answer.Queue, waiterDoc{w.By.ID, w.By.Email, w.Since})
	}
	for _, ended := range lock.History {
		answer.History = append(answer.History, endedLockOf(ended))
	}
	return answerJSON(c, http.StatusOK, answer)
}

func endedLockOf(ended models.EndedLock) endedLockDoc {
	doc := endedLockDoc{Fence: ended.Fence, EndedBy: ended.End}
	if ended.Holder.UserID != "" {
		doc.Holder = &holderRef{ended.Holder.UserID, ended.Holder.Email}
	}
	if !ended.Holder.Since.IsZero() {
		doc.Since = &ended.Holder.Since
	}
	return doc
}
