package lock

import (
	"fmt"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// A server that evicts keys may take a lock and leave it in its shard's index: it is not
// listed, nor counted, and what is left of it is in no user's way.
func TestLockThatWasEvictedIsNotListed(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	l := New(redistest.At(t, server.Addr, redis.Options{Timeout: 5 * time.Second}), Options{})
	const locks = 40
	for i := range locks {
		if _, err := l.TryAcquire(t.Context(), Request{
			Resource: fmt.Sprint("process:", i), TTL: time.Minute, Holder: models.Holder{UserID: fmt.Sprint(i % 2)},
		}); err != nil {
			t.Fatal(err)
		}
	}
	listed := func() map[string]bool {
		t.Helper()
		all := map[string]bool{}
		for page := (models.Page{Limit: 7}); ; {
			found, _, err := l.List(t.Context(), page)
			if err != nil {
				t.Fatal(err)
			}
			for _, lock := range found.Items {
				all[lock.Resource] = true
			}
			if found.NextCursor == nil {
				return all
			}
			page.Cursor = *found.NextCursor
		}
	}
	if got := len(listed()); got != locks {
		t.Fatalf("%d locks are listed", got)
	}
	for i := 0; i < locks; i += 4 {
		server.Do("DEL", l.keys.of(fmt.Sprint("process:", i))[0])
	}
	all := listed()
	for i := range locks {
		if resource := fmt.Sprint("process:", i); all[resource] == (i%4 == 0) {
			t.Errorf("%s: listed %t", resource, all[resource])
		}
	}
	if even, odd := l.CountHeld(t.Context(), "0"), l.CountHeld(t.Context(), "1"); even != locks/4 || odd != locks/2 {
		t.Errorf("counted %d and %d", even, odd)
	}
	if err := l.ReleaseUser(t.Context(), "0"); err != nil {
		t.Error(err)
	}
	if got := len(listed()); got != locks/2 {
		t.Errorf("%d locks are left", got)
	}
}
