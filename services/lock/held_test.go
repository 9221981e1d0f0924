package lock

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
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

// Whatever happens to the locks of a table, those of a user are found as if all were looked at.
func TestTableFindsLocksOfUsers(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(3, 4))
	now := time.Now()
	table := newLocalTable(time.Hour, func() time.Time { return now })
	found := 0
	for step := range 5000 {
		now = now.Add(time.Duration(random.IntN(3000)) * time.Millisecond)
		user := fmt.Sprint("user", random.IntN(4))
		holder := models.Holder{UserID: user}
		claim := Claim{Resource: fmt.Sprint("r", random.IntN(20)), Grant: fmt.Sprint("grant", step), Token: user}
		if there := table.locks[claim.Resource]; there != nil && there.lock.Grant != "" && random.IntN(2) == 0 {
			claim = there.lock.Claim
		}
		ttl := time.Duration(1+random.IntN(40)) * time.Second
		switch random.IntN(9) {
		case 0, 1:
			table.acquire(now, claim, holder, ttl, random.IntN(2) == 0)
		case 2:
			_, _ = table.extend(now, claim, holder, ttl, "")
		case 3:
			_, _, _ = table.replace(now, claim, holder, ttl, Replaced{Grant: claim.Grant})
		case 4:
			table.record(Lock{Claim: claim, Holder: holder, grantedAt: now, trustedUntil: now.Add(ttl)}, "epoch", originRedis)
		case 5:
			table.synced(entry{}, Lock{Claim: claim, Holder: holder, trustedUntil: now.Add(ttl)}, "epoch")
		case 6:
			table.release(claim)
		case 7:
			table.expire(now)
		default:
			_, _ = table.force(now, claim.Resource, nil, "")
			table.mu.Lock()
			table.sweep(now)
			table.mu.Unlock()
		}
		entries := 0
		for _, l := range table.locks {
			if l.lock.Grant == "" {
				continue
			}
			entries++
			if !table.byHolder[l.lock.Holder.UserID][l] {
				t.Fatalf("step %d: the lock of %s is not among those of %s", step, l.lock.Resource, l.lock.Holder.UserID)
			}
		}
		for _, of := range table.byHolder {
			entries -= len(of)
			found += len(of)
		}
		if entries != 0 {
			t.Fatalf("step %d: there are %d more locks than among those of users", step, entries)
		}
	}
	if found < 5000 {
		t.Errorf("%d locks in all steps are few", found)
	}
}
