package lock

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/redis/redistest"
	"gatehouse/services/servicestest"
)

// scriptUser runs the lock scripts as a user of its own, past the door, which would notice
// that the user lacks a permission.
type scriptUser struct {
	t      *testing.T
	l      *Locker
	server *servicestest.RedisServer
	client rueidis.Client
	all    rueidis.Client // of a user that may do everything
}

func newScriptUser(t *testing.T) *scriptUser {
	t.Helper()
	server := servicestest.StartRedis(t)
	server.Do("ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all")
	connect := func(user, password string) rueidis.Client {
		client, err := rueidis.NewClient(rueidis.ClientOption{
			InitAddress: []string{server.Addr}, Username: user, Password: password, DisableCache: true, DisableRetry: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(client.Close)
		return client
	}
	l := New(redistest.At(t, server.Addr, redis.Options{Timeout: patient}), Options{})
	return &scriptUser{t: t, l: l, server: server, client: connect("app", "secret"), all: connect("", "")}
}

// acquire runs the script; the error is the one that it ended with.
func (u *scriptUser) acquire(resource string) (claim Claim, granted bool, err error) {
	a := u.l.newAttempt(Request{Resource: resource, TTL: time.Minute})
	msg, err := u.l.scripts.acquire.Exec(u.t.Context(), u.client, u.l.keys.of(resource), []string{
		credential(a.claim()) + writeRecord(resource, models.Holder{}), "60000", "9", "1", random128(), "",
	}).ToMessage()
	if err != nil {
		return a.claim(), false, err
	}
	got, err := readReply(msg)
	return a.claim(), got.code == codeDone, err
}

func (u *scriptUser) release(claim Claim) error {
	return u.l.scripts.release.Exec(u.t.Context(), u.client, u.l.keys.of(claim.Resource)[:3], []string{credential(claim)}).Error()
}

// holder is the grant that has the lock, as a user that may do everything finds it. The Locker
// itself would not ask a Redis that is full.
func (u *scriptUser) holder(resource string) string {
	msg, err := u.l.scripts.status.Exec(u.t.Context(), u.all, u.l.keys.of(resource), nil).ToMessage()
	if err != nil {
		u.t.Fatal(err)
	}
	got, err := readReply(msg)
	if err != nil {
		u.t.Fatal(err)
	}
	return got.status(resource).Grant
}

// Whatever a user may not do, and if Redis is full: a lock script that fails leaves no lock
// that was not answered, and one that was answered is there. Messages are hints: without
// the permission to publish every script works.
func TestScriptsLeaveNoHalf(t *testing.T) {
	t.Parallel()
	u := newScriptUser(t)
	var denied []string
	for _, command := range []string{
		"publish", "set", "setrange", "get", "del", "exists", "pexpire", "pttl", "zadd", "zrem", "zrange", "zrangebyscore", "zcard", "zscore",
		"hset", "hget", "hdel", "incr", "time",
	} {
		denied = append(denied, "-"+command)
	}
	for _, category := range []string{
		"read", "write", "string", "hash", "sortedset", "keyspace", "fast", "slow", "pubsub", "scripting", "connection", "dangerous", "admin", "transaction", "blocking",
	} {
		denied = append(denied, "-@"+category)
	}
	refused := 0
	for i, rule := range append(denied, "full") {
		for _, known := range []bool{true, false} { // the shard has been used, or not: the shortcut, or the whole script
			resource := fmt.Sprintf("whole:%d", i)
			u.server.Do("FLUSHALL")
			if known {
				if warm, ok, err := u.acquire(resource); err != nil || !ok || u.release(warm) != nil {
					t.Fatalf("without %s denied: %v, %v", rule, ok, err)
				}
			}
			u.deny(rule)
			claim, granted, err := u.acquire(resource)
			if err != nil {
				refused++
			}
			if there := u.holder(resource) == claim.Grant; there != granted {
				t.Errorf("%s, used before: %t: granted %t (%v), and in Redis: %t", rule, known, granted, err, there)
			}
			if rule == "-publish" || rule == "-@pubsub" {
				if !granted {
					t.Errorf("%s: not granted: %v", rule, err)
				}
				if err := u.release(claim); err != nil || u.holder(resource) != "" {
					t.Errorf("%s: not given back: %v", rule, err)
				}
			}
			u.allow(rule)
		}
	}
	if refused < 20 {
		t.Errorf("%d scripts were refused: nothing is proven", refused)
	}
}

func (u *scriptUser) deny(rule string) {
	if rule == "full" {
		u.server.Do("CONFIG", "SET", "maxmemory", "1")
		return
	}
	u.server.Do("ACL", "SETUSER", "app", rule)
}

func (u *scriptUser) allow(rule string) {
	if rule == "full" {
		u.server.Do("CONFIG", "SET", "maxmemory", "0")
		return
	}
	u.server.Do("ACL", "SETUSER", "app", "+@all")
}

// Without PUBLISH a release grants to the next waiter all the same, whom the next heartbeat
// finds, and every other script does what it says.
func TestScriptsWithoutPublish(t *testing.T) {
	t.Parallel()
	u := newScriptUser(t)
	u.deny("-publish")
	first, granted, err := u.acquire("process:1")
	if err != nil || !granted {
		t.Fatal(granted, err)
	}
	run := func(script *rueidis.Lua, args ...string) reply {
		t.Helper()
		msg, err := script.Exec(t.Context(), u.client, u.l.keys.of("process:1"), args).ToMessage()
		if err != nil {
			t.Fatal(err)
		}
		got, err := readReply(msg)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	instance := newToken() // any name of its length
	next := u.l.newAttempt(Request{Resource: "process:1"})
	text := credential(next.claim()) + writeRecord("process:1", models.Holder{})
	if got := run(u.l.scripts.acquire, text, "60000", "9", "1", random128(), "", instance); got.code != codeRefused || got.waiting != 1 {
		t.Errorf("the waiter: %+v", got)
	}
	if got := run(u.l.scripts.extend, credential(first), "60000", ""); got.code != codeDone {
		t.Errorf("extend: %+v", got)
	}
	index := u.l.keys.of("process:1")[2]
	u.server.Do("ZADD", strings.TrimSuffix(index, "locks")+"instances", "99999999999999", instance) // it is alive, however busy the machine
	if got := run(u.l.scripts.release, credential(first)); got.code != codeDone || got.extra != instance+" "+next.grant || u.holder("process:1") != next.grant {
		t.Errorf("release: %+v", got)
	}
	beat, err := u.l.scripts.heartbeat.Exec(t.Context(), u.client, u.l.keys.of("process:1")[:3], []string{instance, random128(), "process:1"}).AsStrSlice()
	if err != nil || !slices.Contains(beat, next.grant) {
		t.Errorf("the heartbeat: %q, %v", beat, err)
	}
	if got := run(u.l.scripts.force, "", ""); got.code != codeDone || u.holder("process:1") != "" {
		t.Errorf("force: %+v", got)
	}
}
