package e2e

import (
	"testing"
	"time"

	"gatehouse/services/servicestest"
)

// TestClosedWithoutRedis: with the policy closed, locks answer 503 while Redis
// is away, and everything else works.
func TestClosedWithoutRedis(t *testing.T) {
	t.Parallel()
	redis := servicestest.StartRedis(t)
	w := &world{app: start(t, "REDIS_URL=redis://"+redis.Addr, redisTimeout, "LOCK_ON_REDIS_DOWN=closed")}
	w.alice, w.bob = w.app.signIn(t, "alice@example.com"), w.app.signIn(t, "bob@example.com")
	w.process = w.alice.call(t, "POST /processes", map[string]any{"title": "closed"}).is(t, 201).text(t, "id")
	token := "X-Lock-Token: " + w.acquire(t, w.alice, w.process, nil).text(t, "lockToken")

	redis.Freeze()
	path := "/processes/" + w.process
	for _, what := range []string{"POST /processes/1/lock", "GET " + path + "/lock/status", "POST " + path + "/lock/extend", "DELETE " + path + "/lock", "GET /locks", "DELETE " + path} {
		w.alice.call(t, what, nil, token).problem(t, 503, "unavailable")
	}
	w.alice.call(t, "PUT "+path, fields("closed"), token).problem(t, 503, "unavailable")
	w.bob.call(t, "PATCH /processes/1/quick-update", map[string]any{"title": "x"}, "Prefer: wait=0").problem(t, 503, "unavailable")
	w.alice.call(t, "GET "+path, nil).is(t, 200).with(t, "version", 1)
	w.alice.call(t, "POST /processes", map[string]any{"title": "new"}).is(t, 201)
	w.app.signIn(t, "viewer@example.com").call(t, "GET /auth/session", nil).is(t, 200)
	w.ready(t, "degraded", "down")

	redis.Thaw()
	w.ready(t, "ok", "ok")
	// The release asked for is carried out; the acquire that was refused holds nothing.
	servicestest.Within(t, backToNormal, func() bool {
		return w.bob.call(t, "GET /locks", nil).is(t, 200).item(t, "resource", "process:1") == nil
	}, "a refused acquire holds a lock")
	w.app.slow.below(t, slowestAllowed)
}

// TestLimitsClosedWithoutRedis: with that policy nobody gets in unlimited.
func TestLimitsClosedWithoutRedis(t *testing.T) {
	t.Parallel()
	a := start(t, "REDIS_URL=redis://"+servicestest.FreeAddr(t), "RATE_LIMIT_ON_REDIS_DOWN=closed")
	got := a.anonymous().call(t, "POST /auth/login", credentials("alice@example.com", demoPassword)).problem(t, 503, "unavailable")
	if !got.degraded("rate-limit") {
		t.Errorf("X-Degraded is %q", got.Header.Get("X-Degraded"))
	}
	a.anonymous().send(t, "GET /healthz", nil).is(t, 200)
}

// TestDatabaseGone: whatever needs the database answers 503 within its timeout,
// never 401 and never let in; afterwards everything is as before.
func TestDatabaseGone(t *testing.T) {
	t.Parallel()
	database := servicestest.StartPostgresServer(t)
	a := start(t, "DATABASE_URL="+database.URL, "DATABASE_TIMEOUT=600ms")
	alice, cold := a.signIn(t, "alice@example.com"), a.signIn(t, "bob@example.com")
	alice.call(t, "GET /processes", nil).is(t, 200)

	database.Freeze()
	frozen := time.Now()
	for time.Since(frozen) < 4*time.Second {
		for what, body := range map[string]any{
			"GET /processes": nil, "GET /processes/1": nil, "POST /processes": map[string]any{"title": "x"}, "POST /processes/1/lock": nil,
		} {
			alice.call(t, what, body).problem(t, 503, "unavailable")
		}
		// Known for up to 2 s, then nobody can say.
		if got := alice.call(t, "GET /auth/session", nil); got.Status != 200 && got.Status != 503 || time.Since(frozen) > 3*time.Second && got.Status == 200 {
			t.Fatalf("%d after %v: %s", got.Status, time.Since(frozen), got.Body)
		}
	}
	stranger := &client{app: a, token: alice.token[:len(alice.token)-4] + "AAAA"}
	for _, c := range []*client{cold, stranger} {
		c.call(t, "GET /auth/session", nil).problem(t, 503, "unavailable")
	}
	a.anonymous().call(t, "POST /auth/login", credentials("alice@example.com", demoPassword)).problem(t, 503, "unavailable")
	ready := a.anonymous().send(t, "GET /readyz", nil).is(t, 503).with(t, "status", "unavailable").with(t, "components.database.status", "down")
	if ready.Header.Get("Retry-After") == "" {
		t.Error("/readyz without Retry-After")
	}
	a.anonymous().send(t, "GET /healthz", nil).is(t, 200)
	page := a.anonymous().send(t, "GET /", nil, "Cookie: gatehouse="+alice.token)
	if page.Status != 503 {
		t.Errorf("the page answers %d without a database", page.Status)
	}
	a.slow.below(t, 1150*time.Millisecond) // once the timeout, and time for a busy machine

	database.Thaw()
	servicestest.Eventually(t, func() bool { return a.ReadyStatus() == 200 }, "not ready after the database is back")
	servicestest.Within(t, 2*time.Second, func() bool {
		got := alice.call(t, "GET /auth/session", nil)
		if got.Status == 401 {
			t.Fatal("logged out by an outage of the database")
		}
		return got.Status == 200
	}, "no session after the database is back")
	alice.call(t, "GET /processes", nil).is(t, 200)
	cold.call(t, "GET /auth/session", nil).is(t, 200)
	stranger.call(t, "GET /auth/session", nil).problem(t, 401, "unauthenticated")
}
