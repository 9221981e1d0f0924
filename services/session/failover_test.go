package session_test

import (
	"testing"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
	"gatehouse/services/session"
)

// Redis fails over to a replica that has received nothing since before the ends. Its copies
// revive no session, neither at an instance that was there nor at a new one. Copies of live
// sessions are used.
func TestFailoverRevivesNothing(t *testing.T) {
	t.Parallel()
	sentinel := servicestest.StartSentinel(t)
	w := newWorldOn(t, newDatabase(t))
	start := func() instance {
		rdb := redistest.Start(t, redis.Options{KeyPrefix: "test:", Timeout: 2 * time.Second, Client: rueidis.ClientOption{
			InitAddress: []string{sentinel.Addr}, Sentinel: rueidis.SentinelOption{MasterSet: servicestest.SentinelName},
		}})
		redistest.WaitReady(t, rdb)
		return w.instance(t, rdb, session.Options{})
	}
	a, b := start(), start()
	var users []models.Credentials
	var tokens []string
	var begun []models.Session
	for range 6 {
		user := w.signUp(t)
		token, s := signIn(t, a, user)
		users, tokens, begun = append(users, user), append(tokens, token), append(begun, s)
		warmForLong(t, a, token)
		warmForLong(t, b, token)
	}
	onReplica := func() bool {
		for _, s := range begun {
			if sentinel.Replica.Do("EXISTS", "test:session:"+s.Hash) != "1" {
				return false
			}
		}
		return true
	}
	servicestest.Eventually(t, onReplica, "the replica has not all copies")

	sentinel.Replica.LoseMaster()
	acknowledged := make([]time.Time, 4)
	for n, name := range []string{"one", "user", "disabled"} {
		if err := endings[name](t, w, a, begun[n]); err != nil {
			t.Fatal(name, err)
		}
		acknowledged[n] = time.Now()
	}
	token, _, err := w.changePassword(t.Context(), b, begun[3], users[3].Epoch)
	if err != nil {
		t.Fatal(err)
	}
	acknowledged[3] = time.Now()
	ended, valid := tokens[:4], append(tokens[4:], token)
	for _, s := range begun[:4] {
		sentinel.Master.Do("DEL", "test:session:"+s.Hash)
	}
	sentinel.Master.Kill()
	sentinel.WaitFailedOver(t)
	if !onReplica() {
		t.Fatal("the new master has lost the copies: nothing is proven")
	}
	check := func(i instance) {
		t.Helper()
		for n, token := range ended {
			refusedInTime(t, i, token, acknowledged[n])
		}
		for _, token := range valid {
			mustGet(t, i, token)
		}
	}
	for _, i := range []instance{a, b} {
		check(i) // while it may be without Redis still
		servicestest.Eventually(t, i.redis.Available, "the new master is not used")
		check(i)
	}
	late := start()
	canary, _ := signIn(t, late, users[5])
	warmForLong(t, late, canary) // from here on it reads what Redis has
	before := late.db.reads.Load()
	mustGet(t, late, tokens[4])
	if late.db.reads.Load() != before {
		t.Error("the new master's copies are not used: nothing is proven")
	}
	check(late)
	if !onReplica() {
		t.Error("the old copies were gone: nothing is proven")
	}
}
