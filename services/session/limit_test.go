package session_test

import (
	"errors"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
	"gatehouse/services/session"
)

// What the limit per user ends is over here at once, and elsewhere far sooner than
// the next poll.
func TestSessionLimitIsToldToOtherInstances(t *testing.T) {
	both := startInstances(t, 2, servicestest.StartRedis(t), session.Options{MaxPerUser: 1})
	here, there := both[0], both[1]
	ann := signUp(t, here.db, "ann@example.com")
	servicestest.Eventually(t, func() bool { return here.redis.Available() && there.redis.Available() }, "no Redis")
	token, _ := signIn(t, here, ann)
	const rounds = 6
	var slow int
	for range rounds {
		mustGet(t, there, token)
		old := token
		token, _ = signIn(t, here, ann)
		refused(t, here, old)
		ended := time.Now()
		servicestest.Within(t, revokeBound, func() bool {
			_, err := there.Get(t.Context(), old)
			return errors.Is(err, models.ErrNotFound)
		}, "an ended session lives elsewhere")
		if time.Since(ended) > 150*time.Millisecond {
			slow++
		}
	}
	if slow > 1 { // by chance a poll comes in time: about one in seven times
		t.Errorf("%d of %d took longer than 150 ms: the other instance got no hint", slow, rounds)
	}
}
