package lock

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// listener reads events; one that does not come fails the test.
type listener struct {
	t      testing.TB
	events <-chan models.LockEvent
}

// listen listens with a subscription, if there is a Redis to subscribe to. On a busy machine it can
// come later than Events waits for it, and ends the channel then.
func listen(t testing.TB, l *Locker) (events listener) {
	t.Helper()
	for {
		events = listener{t, l.Events(t.Context())}
		if !l.redis.AnyAvailable() || !l.events.early(events.events) {
			return events
		}
		events.end()
	}
}

// early reports whether a listener did not wait for the subscription.
func (e *eventHub) early(events <-chan models.LockEvent) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for listener, early := range e.listeners {
		if (<-chan models.LockEvent)(listener) == events {
			return early
		}
	}
	return false
}

// next is the next event; ok is false at the end of the channel.
func (l listener) next() (e models.LockEvent, ok bool) {
	l.t.Helper()
	servicestest.Eventually(l.t, func() (there bool) {
		select {
		case e, ok = <-l.events:
			return true
		default:
			return false
		}
	}, "neither an event nor the end")
	return e, ok
}

// until reads on to the event of a name about a resource.
func (l listener) until(name, resource string) models.LockEvent {
	l.t.Helper()
	for {
		e, ok := l.next()
		if !ok {
			l.t.Fatalf("the channel ended before %s of %s", name, resource)
		}
		if e.Name == name && e.Resource == resource {
			return e
		}
	}
}

// end reads on to the end of the channel.
func (l listener) end() {
	l.t.Helper()
	for ok := true; ok; {
		_, ok = l.next()
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	all := instances(t, server, 2)
	l, other := all[0], all[1]

	t.Run("reach all instances, in order", func(t *testing.T) {
		wantEvents(t, all, "process:1\nwith a line")
		events := listen(t, other)
		take(t, l, requestFor("short", alice, 50*time.Millisecond))
		events.until(models.LockAcquired, "short")
		if e := events.until(models.LockExpired, "short"); e.Holder.Email != alice.Email {
			t.Errorf("expired: %+v", e)
		}
	})

	t.Run("tell of each lease that ended, once", func(t *testing.T) {
		// Also if another takes the lock before a heartbeat looks.
		events := listen(t, l)
		const leases = 10
		expired := map[int64]int{}
		for range leases {
			taken := take(t, l, requestFor("again", alice, 20*time.Millisecond))
			expired[*taken.Fence] = 0
			servicestest.Eventually(t, func() bool { return !l.mustStatus(t, "again").Held }, "a lease does not end")
		}
		giveBack(t, l, take(t, l, request("again", alice)))
		for range leases {
			expired[*events.until(models.LockExpired, "again").Fence]++
		}
		giveBack(t, l, take(t, l, request("last", alice)))
		for e, _ := events.next(); e.Resource != "last"; e, _ = events.next() {
			if e.Name == models.LockExpired {
				t.Errorf("once more: %+v", e)
			}
		}
		for fence, times := range expired {
			if times != 1 || len(expired) != leases {
				t.Errorf("of %d grants, %d expired %d times", len(expired), fence, times)
			}
		}
	})

	t.Run("say that a request waits in the queue, and that it leaves", func(t *testing.T) {
		alone := cutOff(t, Options{OnRedisDown: models.OnRedisDownOpen})
		for _, w := range []struct {
			name         string
			waits, hears *Locker
		}{{"at another instance", other, l}, {"without Redis", alone, alone}} {
			name, events := w.name, listen(t, w.hears)
			take(t, w.hears, request(name, alice))
			ctx, leave := context.WithCancel(t.Context())
			left := make(chan error, 1)
			go func() { _, err := w.waits.Acquire(ctx, request(name, bob)); left <- err }()
			events.until(models.LockWaiting, name)
			waiting(t, w.hears, name, 1)
			leave()
			if err := <-left; err == nil {
				t.Errorf("%s: granted what is held", name)
			}
			events.until(models.LockWaiting, name)
			waiting(t, w.hears, name, 0)
		}
	})

	t.Run("say once what many who begin to wait together change", func(t *testing.T) {
		take(t, l, request("crowd", alice))
		events := listen(t, l)
		ctx, leave := context.WithCancel(t.Context())
		began := time.Now()
		var crowd sync.WaitGroup
		for range 100 {
			crowd.Go(func() { _, _ = other.Acquire(ctx, request("crowd", bob)) })
		}
		waiting(t, l, "crowd", 100)
		events.until(models.LockWaiting, "crowd")
		leave()
		crowd.Wait()
		servicestest.Eventually(t, func() bool { _, due := other.waitingDue.Load("crowd"); return !due }, "it is not published that they left")
		take(t, other, request("after the crowd", alice))
		said := 1
		for {
			if event, _ := events.next(); event.Resource == "after the crowd" {
				break
			} else if event.Name == models.LockWaiting {
				said++
			}
		}
		if most := 1 + int(time.Since(began)/waiterTells); said > most {
			t.Errorf("%d events of a crowd of 100, at most %d", said, most)
		}
	})

	t.Run("end when the subscription is lost", func(t *testing.T) {
		// A listener is not left to believe that nothing happened while no message could come.
		l := New(redistest.At(t, server.Addr, redis.Options{Client: rueidis.ClientOption{ClientName: "listener"}, Timeout: patient}), Options{})
		for range 2 { // a new one brings what happens from then on
			first, second := listen(t, l), listen(t, l)
			taken := take(t, other, request("lost", alice))
			first.until(models.LockAcquired, "lost")
			second.until(models.LockAcquired, "lost")
			killSubscriptions(server, "listener")
			giveBack(t, other, taken) // no message comes of it
			first.end()
			second.end()
		}
	})

	t.Run("begun without Redis end when it is back", func(t *testing.T) {
		l := openApart(t, server)
		l.cut()
		events := listen(t, l.Locker)
		take(t, l.Locker, request("own", alice))
		events.until(models.LockAcquired, "own")
		l.restore()
		events.end()
		events = listen(t, l.Locker)
		take(t, other, request("other", bob))
		events.until(models.LockAcquired, "other")
	})
}

// wantEvents wants the last instance to get the events of what the first does.
func wantEvents(t *testing.T, all []*Locker, resource string) {
	t.Helper()
	l, events := all[0], listen(t, all[len(all)-1])
	var taken Lock
	want := func(name string) {
		t.Helper()
		e, ok := events.next()
		for ok && e.Resource != resource { // the end of others'
			e, ok = events.next()
		}
		if !ok || e.Name != name || e.Holder.Email != alice.Email || e.Fence == nil || *e.Fence != *taken.Fence || time.Since(e.At).Abs() > time.Minute {
			t.Errorf("event %+v (%t), want %s of %+v", e, ok, name, taken)
		}
	}
	taken = take(t, l, request(resource, alice))
	want(models.LockAcquired)
	extend(t, l, taken, time.Minute)
	want(models.LockExtended)
	giveBack(t, l, taken)
	want(models.LockReleased)
	taken = take(t, l, request(resource, alice))
	want(models.LockAcquired)
	force(t, l, resource)
	want(models.LockForced)
}

// killSubscriptions ends the connections of a client that are subscribed.
func killSubscriptions(server *servicestest.RedisServer, client string) {
	for line := range strings.Lines(server.Do("CLIENT", "LIST")) {
		if !strings.Contains(line, " name="+client+" ") || strings.Contains(line, " sub=0 ") {
			continue
		}
		id, _, _ := strings.Cut(strings.TrimPrefix(line, "id="), " ")
		server.Do("CLIENT", "KILL", "ID", id)
	}
}
