package lock

import (
	"errors"
	"strconv"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// Redis may go away between the list of a disabled user's locks and the end of one: it
// ends when Redis is back, whatever the table of this instance knows of it.
func TestLockOfADisabledUserEndsWhenOneForceFailed(t *testing.T) {
	for _, onDown := range []models.OnRedisDown{models.OnRedisDownOpen, models.OnRedisDownClosed} {
		t.Run(string(onDown), func(t *testing.T) {
			server := servicestest.StartRedis(t)
			l, other := openLockerAt(t, server.Addr), openLockerAt(t, server.Addr)
			l.opt.OnRedisDown = onDown
			for i := range 40 { // some are still to be ended when the server stops to answer
				resource := "process:" + strconv.Itoa(i)
				if _, err := other.TryAcquire(t.Context(), Request{Resource: resource, Holder: models.Holder{UserID: "1"}}); err != nil {
					t.Fatal(err)
				}
			}
			forced := l.Events(t.Context())
			frozen := make(chan struct{})
			go func() {
				defer close(frozen)
				<-forced
				server.Freeze()
			}()
			err := l.ReleaseUser(t.Context(), "1")
			if err != nil && (onDown == models.OnRedisDownOpen || !errors.Is(err, models.ErrUnavailable)) {
				t.Error(err)
			}
			<-frozen
			server.Thaw()
			servicestest.Within(t, 3*time.Second, func() bool {
				locks, _, err := other.List(t.Context(), models.Page{Limit: 100})
				return err == nil && len(locks.Items) == 0
			}, "locks of the disabled user stay")
		})
	}
}

// Redis does not come back to all instances at once: a lock that another one granted
// without it to a user who was disabled meanwhile ends when that one reasserts it.
func TestLockOfADisabledUserEndsWhenAnotherInstanceReassertsIt(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	granterWay, disablerWay := servicestest.NewProxy(t, server.Addr), servicestest.NewProxy(t, server.Addr)
	granter, disabler := openLockerAt(t, granterWay.Addr), openLockerAt(t, disablerWay.Addr)
	granterWay.Cut()
	disablerWay.Cut()
	servicestest.Eventually(t, func() bool { return !granter.redis.Available() && !disabler.redis.Available() }, "Redis still counts as available")
	lock, err := granter.TryAcquire(t.Context(), Request{Resource: "process:1", Holder: models.Holder{UserID: "1"}, TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if err := disabler.ReleaseUser(t.Context(), "1"); err != nil {
		t.Fatal(err)
	}
	disablerWay.Restore()
	servicestest.Within(t, 2*time.Second, disabler.redis.Available, "the disabler is not back")
	granterWay.Restore()
	servicestest.Within(t, 2*time.Second, granter.redis.Available, "the granter is not back")
	servicestest.Within(t, 3*time.Second, func() bool {
		s, err := granter.Status(t.Context(), lock.Resource)
		return err == nil && !s.Held && len(granter.table.living(time.Now(), anyLock)) == 0
	}, "the lock of the disabled user stays")
	servicestest.Eventually(t, func() bool {
		disabler.table.mu.Lock()
		defer disabler.table.mu.Unlock()
		return len(disabler.table.outbox) == 0
	}, "his locks are looked for, for ever")
}
