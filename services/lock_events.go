package services

import (
	"context"
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

// heard is told what a script did to a lock, on whatever instance: the event's name
// and the grant.
func (l *Locker) heard(message string) {
	name, text, _ := strings.Cut(message, "\n")
	g, ok := readGrant(text)
	if !ok {
		return
	}
	l.groups.revoke(l.table.heard(name, &g))
	if name == models.LockForced {
		l.groups.revoke(g.id)
	}
	if !l.events.listening() {
		return
	}
	l.events.tell(models.LockEvent{
		Name: name, Resource: g.resource, Holder: models.UserRef{ID: g.userID, Email: g.email}, Fence: &g.fence, At: l.clock.now(),
	})
}

func (e *lockEvents) listening() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.listeners) > 0
}

// tellOwn tells an event that no message carries.
func (e *lockEvents) tellOwn(name string, lock Lock) {
	e.tell(models.LockEvent{
		Name: name, Resource: lock.Resource, Holder: models.UserRef{ID: lock.Holder.UserID, Email: lock.Holder.Email}, Fence: lock.Fence, At: time.Now().UTC(),
	})
}
