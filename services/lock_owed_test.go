package services

import (
	"errors"
	"testing"

	"gatehouse/models"
)

// What was never sent is not owed: in a long outage that would be a release for
// each request, all to be sent before Redis counts as available again.
func TestAttemptsThatWereNotSentAreNotOwed(t *testing.T) {
	for _, onDown := range []models.OnRedisDown{models.OnRedisDownClosed, models.OnRedisDownOpen} {
		redis := NewRedis(RedisOptions{Disabled: true})
		t.Cleanup(func() { _ = redis.Close(t.Context()) })
		l := NewLocker(redis, &LockerOptions{OnRedisDown: onDown})
		for range 10 {
			if _, err := l.TryAcquire(t.Context(), LockRequest{Resource: "process:1"}); err != nil &&
				!errors.Is(err, models.ErrUnavailable) && !errors.Is(err, models.ErrNotAcquired) {
				t.Fatal(err)
			}
		}
		if owed, _ := l.table.owes(); len(owed) != 0 {
			t.Errorf("%s: %d owed", onDown, len(owed))
		}
	}
}
