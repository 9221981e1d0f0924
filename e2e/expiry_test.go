package e2e

import (
	"testing"
	"time"

	"gatehouse/services/servicestest"
)

// redisModes are the ways to run one instance.
func redisModes() map[string]func(t *testing.T) string {
	return map[string]func(t *testing.T) string{
		"embedded":      func(*testing.T) string { return "REDIS_ENABLED=true" },
		"redis":         func(t *testing.T) string { return "REDIS_URL=redis://" + servicestest.StartRedis(t).Addr },
		"without-redis": func(*testing.T) string { return "REDIS_ENABLED=false" },
	}
}

// TestLocksMoveOn: what happens to locks while no request comes, or a client leaves, is the same
// wherever Redis is, and the stream of events tells it.
func TestLocksMoveOn(t *testing.T) {
	t.Parallel()
	for name, env := range redisModes() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &world{app: start(t, env(t), raceDetector), degraded: name == "without-redis", hasty: name == "embedded"}
			w.alice, w.bob = w.app.signIn(t, "alice@example.com"), w.app.signIn(t, "bob@example.com")
			w.admin, w.viewer = w.app.signIn(t, "admin@example.com"), w.app.signIn(t, "viewer@example.com")
			t.Run("a lock ends with its time, and goes to the waiter", w.lockExpires)
			t.Run("a client that goes away waits no more", w.waiterLeaves)
			t.Run("a waiter whose session ends waits no more", w.waiterIsSignedOut)
			t.Run("events tell what happens", w.eventsTell)
			t.Run("events of waiting are for pages", w.eventsOfWaiting)
			t.Run("events end with the session", w.eventsEndWithTheSession)
			t.Run("events end with the instance", w.eventsEndWithTheInstance)
		})
	}
}

func (w *world) lockExpires(t *testing.T) {
	sent := time.Now()
	token := "X-Lock-Token: " + w.acquire(t, w.alice, "1", map[string]any{"ttl": 1}).text(t, "lockToken")
	waiter := w.bob.waitFor(t, "POST /processes/1/lock", map[string]any{"ttl": 30}, "Prefer: wait=30")
	servicestest.Within(t, 1500*time.Millisecond, func() bool {
		return w.alice.call(t, "GET /processes/1/lock/status", nil).is(t, 200).at(t, "mine") == false
	}, "a lock of 1 s does not end")
	age := time.Since(sent) // the answer may have been under way for long
	least := 900 * time.Millisecond
	if w.hasty {
		least -= servicestest.Slack(sent)
	}
	if age < least {
		t.Errorf("a lock of 1 s ended after %v", age)
	}
	his := "X-Lock-Token: " + w.granted(t, waiter(), "1").text(t, "lockToken")
	for _, what := range []string{"POST /processes/1/lock/extend", "DELETE /processes/1/lock", "DELETE /processes/1"} {
		w.alice.call(t, what, nil, token).problem(t, 409, "lock-not-held").with(t, "isLocked", true).with(t, "holder.email", w.bob.email)
	}
	w.alice.call(t, "PUT /processes/1", fields("late"), token).problem(t, 409, "lock-not-held")
	w.bob.call(t, "DELETE /processes/1/lock", nil, his).is(t, 204)
}

func (w *world) waiterLeaves(t *testing.T) {
	token := "X-Lock-Token: " + w.acquire(t, w.alice, "2", nil).text(t, "lockToken")
	leave, left := w.bob.waitUntilLeaving(t, "POST /processes/2/lock")
	w.waiting(t, w.viewer, "2", 1)
	leave()
	if err := <-left; err == nil {
		t.Error("answered although the client has gone")
	}
	w.waiting(t, w.viewer, "2", 0)
	w.alice.call(t, "DELETE /processes/2/lock", nil, token).is(t, 204)
	w.alice.call(t, "GET /processes/2/lock/status", nil).is(t, 200).with(t, "isLocked", false)
}

func (w *world) waiterIsSignedOut(t *testing.T) {
	token := "X-Lock-Token: " + w.acquire(t, w.alice, "2", nil).text(t, "lockToken")
	leaving := w.app.signIn(t, w.bob.email)
	answered := leaving.waitFor(t, "POST /processes/2/lock", nil, "Prefer: wait=30")
	w.waiting(t, w.viewer, "2", 1)
	out := time.Now()
	leaving.call(t, "POST /auth/logout", nil).is(t, 204)
	answered().problem(t, 401, "unauthenticated")
	if took := time.Since(out); took > 2*time.Second+servicestest.Slack(out) {
		t.Errorf("the wait ended %v after its session", took)
	}
	w.waiting(t, w.viewer, "2", 0)
	w.alice.call(t, "DELETE /processes/2/lock", nil, token).is(t, 204)
	w.alice.call(t, "GET /processes/2/lock/status", nil).is(t, 200).with(t, "isLocked", false)
}

func TestSessionsExpire(t *testing.T) {
	t.Parallel()
	const idle = 4 * time.Second
	a := start(t, "SESSION_IDLE_TIMEOUT="+idle.String(), "SESSION_ABSOLUTE_TIMEOUT=1h")
	bob, signedIn := a.signIn(t, "bob@example.com"), time.Now()
	session := bob.call(t, "GET /auth/session", nil).is(t, 200)
	if life := session.moment(t, "expiresAt").Sub(session.moment(t, "createdAt")); life != time.Hour {
		t.Errorf("the longest life of a session is %v, want 1 h", life)
	}
	var used time.Time
	servicestest.Eventually(t, func() bool {
		used = time.Now()
		bob.call(t, "GET /auth/session", nil).is(t, 200)
		return used.Sub(signedIn) > idle/2 // a session that ended this long after its start would end too early
	}, "it is not used")
	admin := a.signIn(t, "admin@example.com") // whose questions keep only this session alive
	servicestest.By(t, used, idle+time.Second, func() bool {
		return admin.call(t, "GET /users/"+bob.id+"/sessions", nil).is(t, 200).number(t, "count") == 0
	}, "an unused session does not end")
	if unused := time.Since(used); unused < idle {
		t.Errorf("a session ended %v after its last use, want %v", unused, idle)
	}
	bob.call(t, "GET /auth/session", nil).problem(t, 401, "unauthenticated")
}

// TestTooManySessions: the oldest goes.
func TestTooManySessions(t *testing.T) {
	t.Parallel()
	a := start(t, "SESSION_MAX_PER_USER=2")
	first := a.signIn(t, "viewer@example.com")
	a.signIn(t, "viewer@example.com")
	a.signIn(t, "viewer@example.com").call(t, "GET /sessions", nil).is(t, 200).with(t, "count", 2)
	first.call(t, "GET /auth/session", nil).problem(t, 401, "unauthenticated")
}
