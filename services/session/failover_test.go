package session_test

import (
	"fmt"
	"path/filepath"
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
func TestSessionResurrectionByFailover(t *testing.T) {
	t.Parallel()
	sentinel := servicestest.StartSentinel(t)
	path := filepath.Join(t.TempDir(), "sessions.db")
	start := func() instance {
		rdb := redistest.Start(t, redis.Options{KeyPrefix: "test:", Timeout: 2 * time.Second, Client: rueidis.ClientOption{
			InitAddress: []string{sentinel.Addr}, Sentinel: rueidis.SentinelOption{MasterSet: servicestest.SentinelName},
		}})
		redistest.WaitReady(t, rdb)
		return startInstance(t, path, rdb, session.Options{})
	}
	a, b := start(), start()
	var users []models.Credentials
	var tokens []string
	var begun []models.Session
	for n := range 6 {
		user := signUp(t, a.db, fmt.Sprintf("user%d@example.com", n))
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
	disabled := true
	for n, end := range []func() error{
		func() error { return a.End(t.Context(), models.Ending{Hash: begun[0].Hash}) },
		func() error { return a.DeleteUser(t.Context(), users[1].ID) },
		func() error {
			_, err := b.db.UpdateUser(t.Context(), users[2].ID, models.UserPatch{Disabled: &disabled})
			b.Sync(t.Context())
			return err
		},
		func() error {
			token, _, err := b.ChangePassword(t.Context(), begun[3], users[3].Epoch, "another hash")
			tokens = append(tokens, token)
			return err
		},
	} {
		if err := end(); err != nil {
			t.Fatal(n, err)
		}
	}
	acknowledged := time.Now()
	ended, valid := tokens[:4], tokens[4:]
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
		for _, token := range ended {
			refused(t, i, token)
		}
		for _, token := range valid {
			mustGet(t, i, token)
		}
	}
	time.Sleep(time.Until(acknowledged.Add(revokeBound))) // from here on none may be accepted
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
