package services_test

import (
	"errors"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/services/servicestest"
)

// A lease that ended is told of even if somebody takes the lock before a beat looks.
func TestLockExpiredIsToldOnceForEachGrant(t *testing.T) {
	l := lockers(t, servicestest.StartRedis(t), 1, nil)[0]
	events := l.Events(t.Context())
	req := request("process:1", alice)
	req.TTL = 50 * time.Millisecond
	lost := map[int64]int{}
	for i := range 11 {
		if i == 10 {
			req.TTL = time.Minute // there when the beats look
		}
		var lock services.Lock
		servicestest.Eventually(t, time.Second, func() bool {
			var err error
			if lock, err = l.TryAcquire(t.Context(), req); err != nil && !errors.Is(err, models.ErrNotAcquired) {
				t.Fatal(err)
			}
			return err == nil
		}, "an expired lock is not free")
		if i < 10 {
			lost[*lock.Fence] = 0
		}
	}
	told := 0
	deadline := time.After(5 * time.Second)
	for told < len(lost) {
		select {
		case e := <-events:
			if e.Name == models.LockExpired {
				lost[*e.Fence]++
				told++
			}
		case <-deadline:
			t.Fatalf("%d of %d told", told, len(lost))
		}
	}
	for fence, times := range lost {
		if times != 1 {
			t.Errorf("grant %d was told %d times", fence, times)
		}
	}
}
