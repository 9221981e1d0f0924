package lock_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/lock"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// Names and holders are text of the caller's; the scripts find the parts of a grant
// by their lengths. The embedded server has a Lua of its own.
func TestLockNames(t *testing.T) {
	t.Parallel()
	for _, backend := range []string{"redis-server", "embedded"} {
		t.Run(backend, func(t *testing.T) {
			redis := redistest.Of(t, backend)
			a, b := lock.New(redis, lock.Options{}), lock.New(redis, lock.Options{})
			for _, resource := range []string{
				"process:1", "3:abc", "", "12:", ":", "a\nb", "\x00", "ünïcode 火", "{x}", "}{", "%d%s", `a"b\c`, "+x", "?y", strings.Repeat("x", 10_000),
			} {
				for _, holder := range []models.Holder{bob, {}, {UserID: "3:a", Email: "\x00\n", Reason: "\"\\{}[]\u2028<>&"}} {
					t.Run(fmt.Sprintf("%.20q of %q", resource, holder.UserID), func(t *testing.T) { lockByName(t, a, b, resource, holder) })
				}
			}
		})
	}
}

func lockByName(t *testing.T, a, b *lock.Locker, resource string, holder models.Holder) {
	t.Helper()
	first := mustAcquire(t, a, request(resource, alice))
	next := make(chan lock.Lock, 1)
	go func() {
		defer close(next)
		taken, err := b.Acquire(t.Context(), request(resource, holder))
		if err != nil {
			t.Error(err)
		}
		next <- taken
	}()
	servicestest.Eventually(t, func() bool {
		s, err := a.Status(t.Context(), resource)
		return err == nil && s.Waiting == 1
	}, "no waiter queued")
	if note, err := a.Metadata(t.Context(), first, resource); err != nil || note != resource {
		t.Errorf("note %.20q, %v", note, err)
	}
	if _, err := a.Release(t.Context(), first.Claim); err != nil {
		t.Error(err)
	}
	taken := <-next
	holder.Since = taken.Holder.Since
	if taken.Holder != holder || taken.Metadata != "" {
		t.Errorf("held by %+v with note %q", taken.Holder, taken.Metadata)
	}
	locks, _, err := a.List(t.Context(), models.Page{Limit: 10})
	if err != nil || len(locks.Items) != 1 || locks.Items[0].Resource != resource || locks.Items[0].Holder != holder {
		t.Errorf("listed %+v, %v", locks.Items, err)
	}
	if _, err := a.ForceRelease(t.Context(), resource, taken.Fence); err != nil {
		t.Error(err)
	}
}

// Heartbeats publish the end of an expired lock and pass it on, on either server.
func TestLockExpiryIsPublished(t *testing.T) {
	for _, backend := range []string{"redis-server", "embedded"} {
		t.Run(backend, func(t *testing.T) {
			l := lock.New(redistest.Of(t, backend), lock.Options{})
			events := l.Events(t.Context())
			req := request("process:1", alice)
			req.TTL = 50 * time.Millisecond
			mustAcquire(t, l, req)
			late := time.After(5 * time.Second)
			for {
				select {
				case e := <-events:
					if e.Name == models.LockExpired {
						return
					}
				case <-late:
					t.Fatal("no event")
				}
			}
		})
	}
}
