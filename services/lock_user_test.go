package services

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
				if _, err := other.TryAcquire(t.Context(), LockRequest{Resource: resource, Holder: models.Holder{UserID: "1"}}); err != nil {
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
			servicestest.Eventually(t, 3*time.Second, func() bool {
				locks, _, err := other.List(t.Context(), models.Page{Limit: 100})
				return err == nil && len(locks.Items) == 0
			}, "locks of the disabled user stay")
		})
	}
}
