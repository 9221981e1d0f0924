package lock

import (
	"fmt"
	"testing"

	"github.com/redis/rueidis"

	"gatehouse/services/servicestest"
)

// holds checks how many locks alice has, as an instance sees it.
func holds(t *testing.T, l *Locker, want int) {
	t.Helper()
	if !l.HoldsMore(t.Context(), alice.UserID, want-1) || l.HoldsMore(t.Context(), alice.UserID, want) {
		held, _ := l.grantsOf(t.Context(), alice.UserID)
		t.Errorf("alice does not have %d locks as it seems; Redis says %d", want, len(held))
	}
}

// An instance that is alone knows by itself who has few locks, also if others granted some before.
// It never takes a user to have fewer than Redis says.
func TestHoldsMore(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	before := at(t, server.Addr, patient, Options{})
	holdMany(t, []*Locker{before}, "before", 2)
	if err := before.redis.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	l := at(t, server.Addr, patient, Options{})
	servicestest.Eventually(t, l.peers.none, "others are expected")
	holds(t, l, 2)
	own := holdMany(t, []*Locker{l}, "own", 3)
	holds(t, l, 5)

	// Who is alone does not ask: this script would say that alice has one more lock in each shard.
	held := l.scripts.held
	l.scripts.held = rueidis.NewLuaScript("return {'one more'}")
	giveBack(t, l, own[0])
	for n := range 5 {
		taken := take(t, l, request(fmt.Sprint("again:", n), alice))
		if l.HoldsMore(t.Context(), alice.UserID, 5) {
			t.Error("Redis was asked, or a lock that was given back still counts")
		}
		giveBack(t, l, taken)
	}
	l.scripts.held = held

	// Another instance comes: what it grants counts at once, however long this one was alone.
	other := at(t, server.Addr, patient, Options{})
	servicestest.Eventually(t, func() bool { return !l.peers.none() }, "the other one is not found")
	holdMany(t, []*Locker{other}, "other", 4)
	holds(t, l, 8)
	if err := other.redis.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	servicestest.Eventually(t, l.peers.none, "the other one is still expected")
	holds(t, l, 8) // its locks outlive it
}
