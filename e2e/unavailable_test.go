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

// TestLimitsClosedWithoutRedis: with that policy no request gets in unlimited.
func TestLimitsClosedWithoutRedis(t *testing.T) {
	t.Parallel()
	a := startWithoutRedis(t, "REDIS_URL=redis://"+servicestest.FreeAddr(t), "RATE_LIMIT_ON_REDIS_DOWN=closed")
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
	const timeout = 3 * time.Second // a busy machine is no outage
	database := servicestest.StartPostgresServer(t)
	a := start(t, "DATABASE_URL="+database.URL, "DATABASE_TIMEOUT="+timeout.String())
	alice, cold := a.signIn(t, "alice@example.com"), a.signIn(t, "bob@example.com")
	alice.call(t, "GET /processes", nil).is(t, 200)

	database.Freeze()
	refused := func(requests ...func() *answer) {
		t.Helper()
		for _, answered := range requests {
			answered().problem(t, 503, "unavailable")
		}
	}
	refused(
		alice.waitFor(t, "GET /processes", nil), alice.waitFor(t, "GET /processes/1", nil),
		alice.waitFor(t, "POST /processes", map[string]any{"title": "x"}), alice.waitFor(t, "POST /processes/1/lock", nil),
	)
	// Known for up to 2 s. Then the request waits for the database.
	servicestest.Within(t, 2*time.Second+timeout, func() bool {
		return alice.call(t, "GET /auth/session", nil).Status != 200
	}, "a session is believed for too long")
	stranger := &client{app: a, token: alice.token[:len(alice.token)-4] + "AAAA"}
	refused(
		alice.waitFor(t, "GET /auth/session", nil), cold.waitFor(t, "GET /auth/session", nil), stranger.waitFor(t, "GET /auth/session", nil),
		a.anonymous().waitFor(t, "POST /auth/login", credentials("alice@example.com", demoPassword)),
	)
	ready := a.anonymous().send(t, "GET /readyz", nil).is(t, 503).with(t, "status", "unavailable").with(t, "components.database.status", "down")
	if ready.Header.Get("Retry-After") == "" {
		t.Error("/readyz without Retry-After")
	}
	a.anonymous().send(t, "GET /healthz", nil).is(t, 200)
	page := a.anonymous().send(t, "GET /", nil, "Cookie: gatehouse="+alice.token)
	if page.Status != 503 {
		t.Errorf("the page answers %d without a database", page.Status)
	}
	a.slow.below(t, timeout+timeout/2)

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
