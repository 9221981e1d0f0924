package services

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"time"

	"gatehouse/models"
)

// eventBuffer is how far a listener may fall behind before it is cut off.
const eventBuffer = 256

// lockEvents hands the events of all instances to the listeners of this one.
type lockEvents struct {
	mu        sync.Mutex
	listeners map[chan models.LockEvent]struct{}
}

func newLockEvents() *lockEvents {
	return &lockEvents{listeners: map[chan models.LockEvent]struct{}{}}
}

// Events are what happens to locks from now on, on all instances, until ctx ends.
// The channel is closed then, or when the listener falls 256 events behind: what
// it missed, List tells. Events are told best effort; those sent while this
// instance had no connection to Redis are lost. Without Redis (open) they are this
// instance's own.
func (l *Locker) Events(ctx context.Context) <-chan models.LockEvent {
	events := make(chan models.LockEvent, eventBuffer)
	l.events.mu.Lock()
	l.events.listeners[events] = struct{}{}
	l.events.mu.Unlock()
	context.AfterFunc(ctx, func() { l.events.drop(events) })
	return events
}

func (e *lockEvents) drop(events chan models.LockEvent) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.dropLocked(events)
}

func (e *lockEvents) dropLocked(events chan models.LockEvent) {
	if _, ok := e.listeners[events]; ok {
		delete(e.listeners, events)
		close(events)
	}
}

func (e *lockEvents) tell(event models.LockEvent) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for events := range e.listeners {
		select {
		case events <- event:
		default:
			e.dropLocked(events)
		}
	}
}

// readLockEvent reads a message of the scripts: name, grant, fence, milliseconds,
// holder, resource.
func readLockEvent(message string) (event models.LockEvent, grant string, ok bool) {
	f := strings.SplitN(message, "\n", 6)
	if len(f) != 6 {
		return event, "", false
	}
	fence, fenceErr := strconv.ParseInt(f[2], 10, 64)
	at, err := strconv.ParseInt(f[3], 10, 64)
	if err != nil || fenceErr != nil {
		return event, "", false
	}
	holder := readHolder(f[4], at)
	return models.LockEvent{
		Name: f[0], Resource: f[5], Holder: models.UserRef{ID: holder.UserID, Email: holder.Email}, Fence: &fence, At: time.UnixMilli(at).UTC(),
	}, f[1], true
}

// tellOwn tells an event that no message carries.
func (e *lockEvents) tellOwn(name string, lock Lock) {
	e.tell(models.LockEvent{
		Name: name, Resource: lock.Resource, Holder: models.UserRef{ID: lock.Holder.UserID, Email: lock.Holder.Email}, Fence: lock.Fence, At: time.Now().UTC(),
	})
}
