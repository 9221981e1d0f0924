package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"gatehouse/services/servicestest"
)

// TestSecretKeyRotation changes SECRET_KEY as SECURITY.md says, one instance after
// the other: no user is signed out at any step, no lock is lost while its key is in
// the list, and what is new is sealed with the first key.
func TestSecretKeyRotation(t *testing.T) {
	t.Parallel()
	redis := servicestest.StartRedis(t)
	database := demoDatabase(t)
	oldKey, newKey := strings.Repeat("old-", 8), strings.Repeat("new-", 8)
	run := func(keys ...string) *app {
		a := start(t, "DATABASE_URL="+database, "REDIS_URL=redis://"+redis.Addr, "SECRET_KEY="+strings.Join(keys, ","))
		a.keepSecret(oldKey)
		a.keepSecret(newKey)
		return a
	}
	// sealedWith names the key of a session's copy in Redis.
	sealedWith := func(token string) string {
		hash := sha256.Sum256([]byte(token))
		_, sealed, ok := strings.Cut(redis.Do("GET", "gatehouse:session:"+hex.EncodeToString(hash[:])), " ")
		if !ok || len(sealed) < 8 {
			t.Fatal("a session has no copy in Redis")
		}
		return sealed[:8]
	}
	var cookies []string
	everybodyIsIn := func(a *app) {
		t.Helper()
		for step, cookie := range cookies {
			if got := a.anonymous().call(t, "GET /auth/session", nil, "Cookie: gatehouse="+cookie); got.Status != 200 {
				t.Errorf("the session of step %d: %d", step, got.Status)
			}
		}
	}
	signIn := func(a *app) (sealed string) {
		t.Helper()
		cookie := cookieOf(t, a.anonymous().send(t, "POST /login", form("bob@example.com", demoPassword)).is(t, 303), "gatehouse").Value
		a.keepSecret(cookie)
		cookies = append(cookies, cookie)
		return sealedWith(cookie)
	}

	before := run(oldKey)
	withOld := signIn(before)
	alice := before.signIn(t, "alice@example.com")
	w := &world{app: before}
	lock := func(a *app, title string) (process, token string) {
		t.Helper()
		c := alice.at(a)
		process = c.call(t, "POST /processes", map[string]any{"title": title}).is(t, 201).text(t, "id")
		return process, "X-Lock-Token: " + w.acquire(t, c, process, nil, "Idempotency-Key: "+title).text(t, "lockToken")
	}
	process, token := lock(before, "old")

	for _, keys := range [][]string{{oldKey, newKey}, {newKey, oldKey}} {
		next := run(keys...)
		everybodyIsIn(next)
		sealed := signIn(next)
		if (sealed == withOld) != (keys[0] == oldKey) {
			t.Errorf("with %q as the first key a session is sealed with another", keys[0])
		}
		everybodyIsIn(before) // the instances with the list before this one are still there
		c := alice.at(next)
		again := w.acquire(t, c, process, nil, "Idempotency-Key: old").text(t, "lockToken")
		c.call(t, "PUT /processes/"+process, fields("again"), "X-Lock-Token: "+again).is(t, 200)
		c.call(t, "PUT /processes/"+process, fields(fmt.Sprint("step ", len(cookies))), token).is(t, 200)
		before.Stop()
		before = next
	}
	withNew := sealedWith(cookies[len(cookies)-1])
	newProcess, newToken := lock(before, "new")

	last := run(newKey)
	everybodyIsIn(last)
	alice.at(last).call(t, "GET /auth/session", nil).is(t, 200)
	if sealed := signIn(last); sealed != withNew {
		t.Error("the first of a list and the only key are not the same")
	}
	everybodyIsIn(before)
	alice.at(last).call(t, "PUT /processes/"+newProcess, fields("new"), newToken).is(t, 200)
	alice.at(last).call(t, "PUT /processes/"+process, fields("too late"), token).problem(t, 409, "lock-not-held")
}
