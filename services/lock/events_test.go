package lock_test

import (
	"context"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/lock"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// nextEvent is the next one; ok is false at the end of the channel.
func nextEvent(t *testing.T, events <-chan models.LockEvent) (e models.LockEvent, ok bool) {
	t.Helper()
	select {
	case e, ok = <-events:
		return e, ok
	case <-time.After(5 * time.Second):
		t.Fatal("neither an event nor the end")
		return e, false
	}
}

// A listener is not left to believe that nothing happened while no message could come: the
// channel ends, and a new one brings what happens from then on.
func TestLockEventsEndWhenTheSubscriptionIsLost(t *testing.T) {
	server := servicestest.StartRedis(t)
	rdb := redistest.At(t, server.Addr, redis.Options{Client: rueidis.ClientOption{ClientName: "listener"}, Timeout: 5 * time.Second})
	l, other := lock.New(rdb, lock.Options{}), lockers(t, server, 1, lock.Options{})[0]
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		first, second := l.Events(ctx), l.Events(ctx)
		taken := mustAcquire(t, other, request("process:1", alice))
		for _, events := range []<-chan models.LockEvent{first, second} {
			if e, ok := nextEvent(t, events); !ok || e.Name != models.LockAcquired {
				t.Fatalf("%+v, %v", e, ok)
			}
		}
		killSubscriptions(server, "listener")
		if _, err := other.Release(t.Context(), taken.Claim); err != nil { // no message comes of it
			t.Fatal(err)
		}
		for _, events := range []<-chan models.LockEvent{first, second} {
			for {
				e, ok := nextEvent(t, events)
				if !ok {
					break
				}
				t.Logf("heard in time: %+v", e)
			}
		}
		cancel()
	}
}

// A listener without Redis gets the events of this instance only, until Redis is back.
func TestLockEventsBegunWithoutRedisEndWhenItIsBack(t *testing.T) {
	server := servicestest.StartRedis(t)
	proxy := servicestest.NewProxy(t, server.Addr)
	rdb := redistest.New(t, proxy.Addr)
	l := lock.New(rdb, lock.Options{OnRedisDown: models.OnRedisDownOpen, Logger: redistest.Quiet()})
	proxy.Cut()
	gone(t, rdb)
	events := l.Events(t.Context())
	mustAcquire(t, l, request("process:1", alice))
	if e, ok := nextEvent(t, events); !ok || e.Name != models.LockAcquired {
		t.Fatalf("%+v, %v", e, ok)
	}
	proxy.Restore()
	for {
		if _, ok := nextEvent(t, events); !ok {
			break
		}
	}
	back(t, rdb)
	events = l.Events(t.Context())
	mustAcquire(t, lockers(t, server, 1, lock.Options{})[0], request("process:2", bob))
	for {
		e, ok := nextEvent(t, events)
		if !ok {
			t.Fatal("the stream ended")
		}
		if e.Resource == "process:2" {
			break
		}
	}
}
