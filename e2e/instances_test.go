package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"gatehouse/services/servicestest"
)

// twoInstances are two processes on one database.
func twoInstances(t *testing.T, database string, env ...string) (a, b *app) {
	t.Helper()
	env = append(env, "DATABASE_URL="+database)
	return start(t, env...), start(t, env...) // in development the first makes the key that both sign with
}

// databases are the places where several instances can meet.
func databases() map[string]func(t *testing.T) string {
	return map[string]func(t *testing.T) string{
		"SQLite":     demoDatabase,
		"PostgreSQL": func(t *testing.T) string { return servicestest.StartPostgres(t) }, // and the first instance fills it
	}
}

// TestTwoInstancesWithoutRedis: each instance grants the same lock, to another
// editor; the database lets exactly one of them write.
func TestTwoInstancesWithoutRedis(t *testing.T) {
	t.Parallel()
	for name, database := range databases() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := twoInstances(t, database(t), "REDIS_ENABLED=false")
			w := &world{app: a, degraded: true, alice: a.signIn(t, "alice@example.com"), bob: b.signIn(t, "bob@example.com")}
			w.alice.at(b).call(t, "GET /auth/session", nil).is(t, 200).with(t, "user.email", w.alice.email)

			for round := range 2 {
				made := w.alice.call(t, "POST /processes", map[string]any{"title": fmt.Sprint("both ", round)}).is(t, 201).text(t, "id")
				hers := "X-Lock-Token: " + w.acquire(t, w.alice, made, nil).text(t, "lockToken")
				his := "X-Lock-Token: " + w.acquire(t, w.bob, made, nil).text(t, "lockToken")
				first := w.alice.waitFor(t, "PUT /processes/"+made, fields("alice's"), hers)
				second := w.bob.waitFor(t, "PUT /processes/"+made, fields("bob's"), his)
				won, lost := first(), second()
				winner, loser, title := w.alice, w.bob, "alice's"
				winning, losing := hers, his
				if lost.Status == 200 {
					won, lost, winner, loser, title, winning, losing = lost, won, w.bob, w.alice, "bob's", his, hers
				}
				won.is(t, 200).header(t, "ETag", `"2"`)
				lost.problem(t, 409, "version-conflict").with(t, "current.version", 2).with(t, "current.title", title).
					with(t, "current.updatedBy.email", winner.email)
				for _, got := range []*answer{won, lost} {
					w.toldInHeader(t, got)
				}
				// Neither the loser nor a delete of his comes through later.
				loser.call(t, "PUT /processes/"+made, fields("again"), losing).problem(t, 409, "version-conflict")
				loser.call(t, "DELETE /processes/"+made, nil, losing).problem(t, 409, "version-conflict").with(t, "current.title", title)
				winner.call(t, "PUT /processes/"+made, fields(title), winning).is(t, 200).header(t, "ETag", `"3"`)
				winner.call(t, "DELETE /processes/"+made, nil, winning).is(t, 204)
			}
		})
	}
}

// TestRevokedAtTheOtherInstance: a session ended at one instance is refused at
// the other within 2 s, with Redis or without.
func TestRevokedAtTheOtherInstance(t *testing.T) {
	t.Parallel()
	frozen := func(t *testing.T) string {
		redis := servicestest.StartRedis(t)
		redis.Freeze()
		return "REDIS_URL=redis://" + redis.Addr
	}
	for _, row := range []struct {
		name          string
		redis, meetAt func(t *testing.T) string
	}{
		{"without Redis, on SQLite", redisModes()["without-redis"], databases()["SQLite"]},
		{"with Redis, on PostgreSQL", redisModes()["redis"], databases()["PostgreSQL"]},
		{"frozen Redis, on SQLite", frozen, databases()["SQLite"]},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			env := []string{"DATABASE_URL=" + row.meetAt(t), row.redis(t), redisTimeout, raceDetector, "RATE_LIMIT_MAX=1000000"} // it asks all the time
			a, b := startWithoutRedis(t, env...), startWithoutRedis(t, env...)
			admin := a.signIn(t, "admin@example.com")
			for _, end := range []func(c *client){
				func(c *client) { c.call(t, "POST /auth/logout", nil).is(t, 204) },
				func(c *client) { admin.call(t, "DELETE /users/"+c.id+"/sessions", nil).is(t, 204) },
				func(c *client) { admin.call(t, "PATCH /users/"+c.id, map[string]any{"disabled": true}).is(t, 200) },
			} {
				c := a.signIn(t, "bob@example.com")
				there := c.at(b)
				for range 3 { // warm
					there.call(t, "GET /auth/session", nil).is(t, 200)
				}
				end(c)
				c.call(t, "GET /auth/session", nil).problem(t, 401, "unauthenticated")
				servicestest.Within(t, 2*time.Second, func() bool {
					return there.call(t, "GET /auth/session", nil).Status == 401
				}, "a session that ended at one instance is still good at the other")
				there.call(t, "GET /auth/session", nil).problem(t, 401, "unauthenticated")
			}
		})
	}
}

// TestTwoInstancesOnRedis: one lock, one queue and one quota for both.
func TestTwoInstancesOnRedis(t *testing.T) {
	t.Parallel()
	redis := servicestest.StartRedis(t)
	a, b := twoInstances(t, demoDatabase(t), "REDIS_URL=redis://"+redis.Addr, raceDetector)
	w := &world{app: a, alice: a.signIn(t, "alice@example.com"), bob: b.signIn(t, "bob@example.com")}
	made := w.alice.call(t, "POST /processes", map[string]any{"title": "shared"}).is(t, 201).text(t, "id")
	token := "X-Lock-Token: " + w.acquire(t, w.alice, made, nil, "Idempotency-Key: k").text(t, "lockToken")
	w.bob.call(t, "POST "+lockPath(made), nil).problem(t, 423, "locked").with(t, "holder.email", w.alice.email)
	again := w.acquire(t, w.alice.at(b), made, nil, "Idempotency-Key: k")
	if "X-Lock-Token: "+again.text(t, "lockToken") != token {
		t.Error("a repeated acquire at the other instance got another token")
	}
	w.alice.at(b).call(t, "PUT /processes/"+made, fields("there"), token).is(t, 200)

	next := w.bob.waitFor(t, "POST "+lockPath(made), nil, "Prefer: wait=10")
	servicestest.Eventually(t, func() bool {
		item := w.bob.call(t, "GET /locks", nil).is(t, 200).item(t, "resource", "process:"+made)
		return fmt.Sprint(member(item, "waiting")) == "1"
	}, "no waiter is listed")
	w.alice.at(b).call(t, "DELETE "+lockPath(made), nil, token).is(t, 204)
	w.granted(t, next(), made)

	left := func(c *client) string { return c.call(t, "GET /auth/session", nil).is(t, 200).Header.Get("RateLimit") }
	here, there := left(w.alice), left(w.alice.at(b))
	var r1, r2 int
	_, err1 := fmt.Sscanf(here, `"api";r=%d`, &r1)
	_, err2 := fmt.Sscanf(there, `"api";r=%d`, &r2)
	if err1 != nil || err2 != nil || r2 != r1-1 {
		t.Errorf("one quota for both: %s, then %s at the other", here, there)
	}
}

// TestSecondEmbedded: a second process with a Redis of its own warns that locks
// are not shared, and the database rule still holds between them.
func TestSecondEmbedded(t *testing.T) {
	t.Parallel()
	a, b := twoInstances(t, demoDatabase(t))
	if all := b.Stdout.String(); !strings.Contains(all, "NOT SHARED") {
		t.Errorf("no warning:\n%s", all)
	}
	w := &world{app: a, alice: a.signIn(t, "alice@example.com"), bob: b.signIn(t, "bob@example.com")}
	hers := "X-Lock-Token: " + w.acquire(t, w.alice, "1", nil).text(t, "lockToken")
	his := "X-Lock-Token: " + w.acquire(t, w.bob, "1", nil).text(t, "lockToken")
	w.alice.call(t, "PUT /processes/1", fields("alice's"), hers).is(t, 200)
	w.bob.call(t, "PUT /processes/1", fields("bob's"), his).problem(t, 409, "version-conflict").with(t, "current.title", "alice's")
}
