package services

import (
	"context"
	"strings"
	"sync"
	"time"

	"gatehouse/models"
)

const (
	eventBuffer       = 256         // how far a listener may fall behind before it is cut off
	subscribePatience = time.Second // for the first listener of an instance
)

// lockEvents hands the events of all instances to the listeners of this one. While
// there are none, it is not subscribed: events cost an instance nothing then.
type lockEvents struct {
	subscribe func(ctx context.Context) (ready <-chan struct{})
	wall      func() time.Time

	mu        sync.Mutex
	listeners map[chan models.LockEvent]struct{}
	ready     <-chan struct{}
	stop      context.CancelFunc
}

// Events are what happens to locks from now on, on all instances, until ctx ends.
// The channel is closed then, or when the listener falls 256 events behind: what
// it missed, List tells. Events are told best effort; those sent while this
// instance had no connection to Redis are lost. Without Redis (open) they are this
// instance's own. The first listener of an instance waits for the subscription, but
// not longer than a second.
func (l *Locker) Events(ctx context.Context) <-chan models.LockEvent {
	events, ready := l.events.join()
	context.AfterFunc(ctx, func() { l.events.drop(events) })
	if !l.redis.Available() {
		return events
	}
	patience := time.NewTimer(subscribePatience)
	defer patience.Stop()
	select {
	case <-ready:
	case <-patience.C:
	case <-ctx.Done():
	}
	return events
}

func (e *lockEvents) join() (events chan models.LockEvent, ready <-chan struct{}) {
	events = make(chan models.LockEvent, eventBuffer)
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.listeners) == 0 {
		ctx, stop := context.WithCancel(context.Background())
		e.ready, e.stop = e.subscribe(ctx), stop
	}
	e.listeners[events] = struct{}{}
	return events, e.ready
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
		if len(e.listeners) == 0 {
			e.stop()
		}
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
	if g, ok := readGrant(text); ok {
		l.events.tell(models.LockEvent{
			Name: name, Resource: g.resource, Holder: models.UserRef{ID: g.userID, Email: g.email}, Fence: &g.fence, At: l.clock.now(),
		})
	}
}

// heardEnd is told of a grant that an instance ended which did not make it, or for
// which somebody waited. It is a hint: what is missed, the next use finds out.
func (l *Locker) heardEnd(text string) {
	if g, ok := readGrant(text); ok {
		l.table.heardEnd(&g)
		l.groups.revoke(g.id)
	}
}

// tellOwn tells an event that no message carries.
func (e *lockEvents) tellOwn(name string, lock Lock) {
	e.tell(models.LockEvent{
		Name: name, Resource: lock.Resource, Holder: models.UserRef{ID: lock.Holder.UserID, Email: lock.Holder.Email}, Fence: lock.Fence, At: e.wall().UTC(),
	})
}
