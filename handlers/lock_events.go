package handlers

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"gatehouse/models"
)

const (
	lockEventsRoute = "/api/v1/locks/events"

	streamHeartbeat = 15 * time.Second // keeps proxies from closing a quiet stream
	streamWrite     = 5 * time.Second  // a client that reads nothing for so long is gone
)

// lockEventDoc is the data of one event.
type lockEventDoc struct {
	Resource string    `json:"resource"`
	Holder   holderRef `json:"holder"`
	Fence    *int64    `json:"fence"`
	At       time.Time `json:"at"`
}

// waitingDoc is the data of an event for pages, which name their user: nothing but who waits for the
// lock has changed.
type waitingDoc struct {
	Resource string    `json:"resource"`
	At       time.Time `json:"at"`
	Waiting  bool      `json:"waiting"`
}

// requestEventDoc is the data of an event about a request for a lock. By asked or answered; there is
// none if the lock passed on by itself.
type requestEventDoc struct {
	Resource string                  `json:"resource"`
	Request  string                  `json:"request"`
	State    models.LockRequestState `json:"state"`
	By       *holderRef              `json:"by,omitempty"`
	Message  string                  `json:"message"`
	At       time.Time               `json:"at"`
}

// lockEvents streams what happens to locks. The stream ends when
//
//   - the session ends, loses the role, or can no longer be checked,
//   - the server shuts down,
//   - events may have been missed: the client is too slow, the instance lost its subscription
//     to Redis, or it got one after the stream had begun without.
//
// The client then connects again, as an EventSource does by itself, and lists the locks. In a
// browser that may be with the cookie of another user, who has signed in since: a page that names
// its user does not get the events of that one. Such a page also hears, as extended with waiting,
// that other users wait for a lock, or do not any more: it says how many do.
//
//	@Summary		Lock events, as they happen
//	@Description	Server-sent events: acquired, extended, released, expired, forced, taken-over, given; to holder, asker and administrators also asked and answered, with request, state, by and message. The stream ends when events may have been missed: connect again, then list the locks.
//	@Tags			locks
//	@Produce		text/event-stream
//	@Param		user	query	string	false	"id of the user whose stream it is to be; 403 for any other than the signed-in one"
//	@Success		200	{object}	lockEventDoc	"the data of each event"
//	@Failure	401,403,422,503	{object}	problemDoc
//	@Failure	429	{object}	problemDoc	"also too-many-streams"
//	@Security		Bearer
//	@Router			/locks/events [get]
func (h *Handlers) lockEvents(c *gin.Context) error {
	params, err := query(c, "user")
	if err != nil {
		return err
	}
	if err := refuseOtherUser(c, params); err != nil {
		return err
	}
	user := signedIn(c).User.ID
	giveBack, reached := h.streams.take(user)
	if reached > 0 {
		return tooManyStreams(reached)
	}
	defer giveBack()
	ctx, stop := h.whileAllowed(c, h.stillAllowed(c, models.RoleViewer))
	defer stop()
	events := h.Locks.Events(ctx)
	setLocksDegraded(c, !h.Redis.Available())
	c.Header("Content-Type", "text/event-stream")
	c.Header("Cache-Control", "no-store, no-transform")
	c.Header("X-Accel-Buffering", "no")
	c.Status(http.StatusOK)
	send := streamTo(c)
	if send("retry: 1000\n\n") != nil {
		return nil
	}
	heartbeat := time.NewTicker(cmp.Or(h.Heartbeat, streamHeartbeat))
	defer heartbeat.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case event, ok := <-events:
			if !ok { // events may have been missed
				return nil
			}
			switch {
			case event.Name != models.LockWaiting && h.mayHear(ctx, c, event):
				err = send(eventText(event))
			case params["user"] != "":
				err = send(waitingText(event))
			}
		case <-heartbeat.C:
			err = send(": heartbeat\n\n")
		}
		if err != nil {
			return nil
		}
	}
}

// tooManyStreams refuses a stream beyond the limit of a user or of this instance.
func tooManyStreams(limit int) error {
	return models.NewProblem("too-many-streams", "As many event streams are open as there may be. Close one, or try again later.").With("limit", limit)
}

// streamTo returns a function that writes and flushes, each time with a new deadline.
func streamTo(c *gin.Context) func(text string) error {
	control := http.NewResponseController(c.Writer)
	return func(text string) error {
		if err := control.SetWriteDeadline(time.Now().Add(streamWrite)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return fmt.Errorf("stream: %w", err)
		}
		if _, err := c.Writer.WriteString(text); err != nil {
			return fmt.Errorf("stream: %w", err)
		}
		return control.Flush()
	}
}

// mayHear reports whether the client may see an event. An administrator's rights may have changed
// since the stream began.
func (h *Handlers) mayHear(ctx context.Context, c *gin.Context, event models.LockEvent) bool {
	if user := signedIn(c).User.ID; event.VisibleTo(user, false) {
		return true
	}
	return h.stillAllowed(c, models.RoleAdmin)(ctx) == nil
}

// waitingText says no more of an event than that it has changed who waits for the lock.
func waitingText(event models.LockEvent) string {
	return eventOf(models.LockExtended, waitingDoc{event.Resource, event.At, true})
}

func eventText(event models.LockEvent) string {
	if r := event.Request; r != nil {
		told := requestEventDoc{Resource: event.Resource, Request: r.ID, State: r.State, Message: r.Message, At: event.At}
		if r.By != (models.UserRef{}) {
			told.By = &holderRef{r.By.ID, r.By.Email}
		}
		return eventOf(event.Name, told)
	}
	return eventOf(event.Name, lockEventDoc{
		Resource: event.Resource, Holder: holderRef{event.Holder.ID, event.Holder.Email}, Fence: event.Fence, At: event.At,
	})
}

func eventOf(name string, data any) string {
	doc, _ := json.Marshal(data) // strings, numbers and times
	return "event: " + name + "\ndata: " + string(doc) + "\n\n"
}
