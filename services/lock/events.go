package lock

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"time"

	"gatehouse/models"
)

const (
	eventBuffer       = 256         // how far a listener may fall behind before it is cut off
	subscribePatience = time.Second // for the first listener of an instance
)

// eventHub hands the events of all instances to the listeners of this one. While
// there are none, it is not subscribed: events cost an instance nothing then.
type eventHub struct {
	subscribe func(ctx context.Context, up, down func())
	wall      func() time.Time

	mu        sync.Mutex
	listeners map[chan models.LockEvent]bool // true: it went on before there was a subscription
	current   *subscription
}

type subscription struct {
	up   chan struct{} // closed while it is there
	stop context.CancelFunc
}

func newEventHub() *eventHub {
	return &eventHub{listeners: map[chan models.LockEvent]bool{}}
}

// Events are what happens to locks from now on, on all instances, until ctx ends.
// The channel is closed then, and whenever events may have been missed: when the
// listener falls 256 events behind, when the subscription to Redis is lost, and, for a
// listener without it, when it is there again. Call Events again then, and after it List,
// which returns what was missed. Events are published best effort: a
// connection that was cut without a word is noticed after seconds. Without Redis
// (open) they are this instance's own. The first listener of an instance waits for
// the subscription, but not longer than a second.
//
// Those of models.LockAsked, LockAnswered and LockWaiting change no lock: they are about who wants
// it.
func (l *Locker) Events(ctx context.Context) <-chan models.LockEvent {
	events, up := l.events.join()
	context.AfterFunc(ctx, func() { l.events.drop(events) })
	if l.redis.AnyAvailable() {
		patience := time.NewTimer(subscribePatience)
		defer patience.Stop()
		select {
		case <-up:
		case <-patience.C:
		case <-ctx.Done():
		}
	}
	l.events.goOn(events)
	return events
}

func (e *eventHub) join() (events chan models.LockEvent, up <-chan struct{}) {
	events = make(chan models.LockEvent, eventBuffer)
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.listeners) == 0 {
		ctx, stop := context.WithCancel(context.Background())
		s := &subscription{up: make(chan struct{}), stop: stop}
		e.current = s
		e.subscribe(ctx, func() { e.subscribed(s) }, func() { e.lost(s) })
	}
	e.listeners[events] = false
	return events, e.current.up
}

// goOn notes a listener that does not wait for the subscription any longer.
func (e *eventHub) goOn(events chan models.LockEvent) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ok := e.listeners[events]; !ok {
		return
	}
	select {
	case <-e.current.up:
	default:
		e.listeners[events] = true
	}
}

// subscribed ends the listeners that have missed what happened before.
func (e *eventHub) subscribed(s *subscription) {
	e.mu.Lock()
	defer e.mu.Unlock()
	close(s.up)
	if e.current == s {
		e.dropAllLocked(func(early bool) bool { return early })
	}
}

// lost ends all listeners: what happens until they listen again, they miss.
func (e *eventHub) lost(s *subscription) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s.up = make(chan struct{})
	if e.current == s {
		e.dropAllLocked(func(bool) bool { return true })
	}
}

func (e *eventHub) dropAllLocked(which func(early bool) bool) {
	for events, early := range e.listeners {
		if which(early) {
			e.dropLocked(events)
		}
	}
}

func (e *eventHub) drop(events chan models.LockEvent) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.dropLocked(events)
}

func (e *eventHub) dropLocked(events chan models.LockEvent) {
	if _, ok := e.listeners[events]; ok {
		delete(e.listeners, events)
		close(events)
		if len(e.listeners) == 0 {
			e.current.stop()
		}
	}
}

func (e *eventHub) publish(event models.LockEvent) {
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

// observeEvent receives what a script did to a lock, on whatever instance: the event's
// name and the grant.
func (l *Locker) observeEvent(message string) {
	name, text, _ := strings.Cut(message, "\n")
	if name == models.LockAsked || name == models.LockAnswered || name == models.LockWaiting {
		var told requestMessage
		if json.Unmarshal([]byte(text), &told) == nil {
			l.publishRequest(name, told)
		}
		return
	}
	if g, ok := readRecord(text); ok {
		l.events.publish(models.LockEvent{
			Name: name, Resource: g.resource, Holder: models.UserRef{ID: g.holder.UserID, Email: g.holder.Email}, Fence: &g.fence, At: l.clock.now(),
		})
	}
}

// observeEnd receives a grant that an instance ended which did not make it, or for
// which there were waiters. It is a hint: what is missed, the next use finds out.
func (l *Locker) observeEnd(text string) {
	if g, ok := readRecord(text); ok {
		l.table.end(g.resource, g.grant)
		l.groups.revoke(g.grant)
	}
}

// requestMessage is what instances tell each other about a request for a lock, or who waits for it.
type requestMessage struct {
	Resource string                   `json:"resource"`
	Holder   models.UserRef           `json:"holder"`
	Request  *models.LockRequestEvent `json:"request"`
}

// PublishRequest publishes that the lock of a resource was asked for (models.LockAsked), or that the
// request was answered (models.LockAnswered). Without Redis only listeners at this instance hear of
// it.
func (l *Locker) PublishRequest(ctx context.Context, name, resource string, holder models.UserRef, request models.LockRequestEvent) {
	l.publishTold(ctx, name, requestMessage{resource, holder, &request})
}

// publishWaiting publishes, a moment later and in the background, that it has changed who waits in
// the queue of a lock. However many change it in that moment, one message says so.
func (l *Locker) publishWaiting(resource string) {
	if _, due := l.waitingDue.LoadOrStore(resource, true); due {
		return
	}
	time.AfterFunc(waiterTells, func() {
		l.waitingDue.Delete(resource)
		l.redis.Go(func(ctx context.Context) { l.publishTold(ctx, models.LockWaiting, requestMessage{Resource: resource}) })
	})
}

// TellWaiting hands models.LockWaiting to this instance's listeners, for what no message can tell
// it while there is no Redis. With Redis it does nothing.
func (l *Locker) TellWaiting(resource string) {
	if !l.redis.AnyAvailable() {
		l.publishRequest(models.LockWaiting, requestMessage{Resource: resource})
	}
}

// publishTold publishes a message; without Redis to the listeners at this instance.
func (l *Locker) publishTold(ctx context.Context, name string, told requestMessage) {
	text, _ := json.Marshal(told) // strings: cannot fail
	if l.redis.Publish(ctx, "locks", name+"\n"+string(text)) != nil {
		l.publishRequest(name, told)
	}
}

func (l *Locker) publishRequest(name string, told requestMessage) {
	l.events.publish(models.LockEvent{Name: name, Resource: told.Resource, Holder: told.Holder, At: l.clock.now(), Request: told.Request})
}

// publishOwn publishes an event that no message carries.
func (e *eventHub) publishOwn(name string, lock Lock) {
	e.publish(models.LockEvent{
		Name: name, Resource: lock.Resource, Holder: models.UserRef{ID: lock.Holder.UserID, Email: lock.Holder.Email}, Fence: lock.Fence, At: e.wall().UTC(),
	})
}
