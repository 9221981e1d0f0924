package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"gatehouse/services/servicestest"
)

// world is what the steps of a journey share.
type world struct {
	app      *app
	degraded bool // Redis is away: answers must say so, and everything must work
	hasty    bool // the clock of Redis may run ahead on a busy machine
	round    int  // tells the users of one journey from those of the next

	alice, bob, admin, viewer *client

	process string // what alice has created
	token   string // of alice's lock on it
}

// step is one part of the journey; it relies on the ones before it.
type step struct {
	name string
	walk func(t *testing.T, w *world)
}

// journey is what the contract promises, in the order in which people meet it.
func journey() []step {
	return append(journeyOfLocks(), []step{
		{"sessions", sessions},
		{"password", password},
		{"users", users},
		{"administrators", administrators},
		{"audit", audit},
		{"end all sessions", endAll},
	}...)
}

// journeyOfLocks is the part of the journey that meets locks.
func journeyOfLocks() []step {
	return []step{
		{"sign in", signIn},
		{"create", create},
		{"lists", lists},
		{"lock", lock},
		{"write", write},
		{"extend", extend},
		{"quick update", quickUpdate},
		{"release", release},
		{"repeat an acquire", repeatAcquire},
		{"queue", queue},
		{"force", force},
		{"delete", deleteProcess},
		{"page", page},
	}
}

// walk takes the steps one after the other, up to the first that fails.
func (w *world) walk(t *testing.T, steps []step) {
	t.Helper()
	w.round++
	for _, s := range steps {
		if !t.Run(strings.ReplaceAll(s.name, " ", "-"), func(t *testing.T) { s.walk(t, w) }) {
			t.FailNow()
		}
	}
}

func TestJourneyEmbedded(t *testing.T) {
	t.Parallel()
	w := &world{app: start(t, "DATABASE_URL=gatehouse.db")} // which is not there yet
	w.walk(t, journey())
}

func TestJourneyOnRedisAndPostgreSQL(t *testing.T) {
	t.Parallel()
	redis := servicestest.StartRedis(t)
	w := &world{app: start(t, "REDIS_URL=redis://"+redis.Addr, "DATABASE_URL="+servicestest.StartPostgres(t), raceDetector)}
	w.walk(t, journey())
	onlyOurKeys(t, redis)
}

// onlyOurKeys: all keys carry the prefix, and no secret is readable in them.
func onlyOurKeys(t *testing.T, redis *servicestest.RedisServer) {
	t.Helper()
	keys := strings.Fields(redis.Do("KEYS", "*"))
	if len(keys) == 0 {
		t.Error("nothing is in Redis")
	}
	if strange := slices.IndexFunc(keys, func(key string) bool { return !strings.HasPrefix(key, "gatehouse:") }); strange >= 0 {
		t.Errorf("a key without the prefix: %s", keys[strange])
	}
}

func signIn(t *testing.T, w *world) {
	w.alice, w.bob = w.app.signIn(t, "alice@example.com"), w.app.signIn(t, "bob@example.com")
	w.admin, w.viewer = w.app.signIn(t, "admin@example.com"), w.app.signIn(t, "viewer@example.com")

	got := w.alice.call(t, "GET /auth/session", nil).is(t, 200).with(t, "current", true).
		with(t, "user.id", w.alice.id).with(t, "user.email", "alice@example.com").with(t, "user.roles", "[editor]").with(t, "ip", "127.0.0.1")
	if id := got.text(t, "id"); strings.Contains(w.alice.token, id) {
		t.Error("the session's id is part of its token")
	}
	if !got.moment(t, "expiresAt").After(got.moment(t, "createdAt")) || got.moment(t, "lastSeenAt").Before(got.moment(t, "createdAt")) {
		t.Errorf("times out of order: %s", got.Body)
	}
	if w.degraded && (!got.degraded("sessions") || !got.degraded("rate-limit")) {
		t.Errorf("X-Degraded is %q without Redis", got.Header.Get("X-Degraded"))
	}
	if !w.degraded && got.Header.Get("X-Degraded") != "" {
		t.Errorf("X-Degraded is %q with Redis", got.Header.Get("X-Degraded"))
	}
	w.anonymous().call(t, "GET /auth/session", nil).problem(t, 401, "unauthenticated")

	// The scheme in any case; a sign-in with a live token ends that session.
	second := w.app.signIn(t, "alice@example.com")
	w.anonymous().call(t, "GET /auth/session", nil, "Authorization: bEaReR "+second.token).is(t, 200)
	login := second.call(t, "POST /auth/login", credentials("ALICE@example.com ", demoPassword)).is(t, 200)
	second.call(t, "GET /auth/session", nil).problem(t, 401, "unauthenticated")
	if login.Header.Get("Set-Cookie") != "" {
		t.Error("the API's sign-in sets a cookie")
	}

	third := &client{app: w.app, token: login.text(t, "token")}
	w.app.keepSecret(third.token)
	third.call(t, "POST /auth/logout", nil).is(t, 204)
	third.call(t, "GET /auth/session", nil).problem(t, 401, "unauthenticated")
	w.alice.call(t, "GET /auth/session", nil).is(t, 200)
}

func (w *world) anonymous() *client { return w.app.anonymous() }

func create(t *testing.T, w *world) {
	title := fmt.Sprintf("Mend the fence %d", w.round)
	made := w.alice.call(t, "POST /processes", map[string]any{"title": title}).is(t, 201).header(t, "ETag", `"1"`).
		with(t, "title", title).with(t, "status", "draft").with(t, "description", "").with(t, "version", 1).
		with(t, "updatedBy.id", w.alice.id).with(t, "updatedBy.email", w.alice.email)
	w.process = made.text(t, "id")
	made.header(t, "Location", "/api/v1/processes/"+w.process)
	if made.moment(t, "createdAt") != made.moment(t, "updatedAt") {
		t.Error("a new process was changed already")
	}

	got := w.viewer.call(t, "GET /processes/"+w.process, nil).is(t, 200).header(t, "ETag", `"1"`).
		header(t, "Cache-Control", "private, no-cache").with(t, "id", w.process)
	if string(got.Body) != string(made.Body) {
		t.Errorf("read %s, created %s", got.Body, made.Body)
	}
	for _, tag := range []string{`"1"`, `W/"1"`, `"7", "1"`, "*"} {
		same := w.viewer.call(t, "GET /processes/"+w.process, nil, "If-None-Match: "+tag).is(t, 304).header(t, "ETag", `"1"`)
		if len(same.Body) > 0 {
			t.Errorf("304 with a body: %s", same.Body)
		}
	}
	w.viewer.call(t, "GET /processes/"+w.process, nil, `If-None-Match: "2"`).is(t, 200)
	w.viewer.call(t, "POST /processes", map[string]any{"title": "No"}).problem(t, 403, "forbidden")
}

func lists(t *testing.T, w *world) {
	newest := w.viewer.call(t, "GET /processes", nil).is(t, 200).with(t, "items.0.id", w.process)
	if newest.item(t, "title", "Order paper") == nil {
		t.Errorf("a demo process is missing: %s", newest.Body)
	}
	found := w.viewer.call(t, "GET /processes?q=MEND%20the&status=draft", nil).is(t, 200).with(t, "nextCursor", nil)
	if found.item(t, "id", w.process) == nil {
		t.Errorf("not found by its title: %s", found.Body)
	}
	w.viewer.call(t, "GET /processes?q=no_such%25", nil).is(t, 200).with(t, "items", "[]")
	if got := w.viewer.call(t, "GET /processes?status=archived", nil).is(t, 200); got.item(t, "id", w.process) != nil {
		t.Errorf("a draft among the archived: %s", got.Body)
	}

	// Page by page: all of them, each once.
	var seen []string
	for cursor := ""; ; {
		at := w.viewer.call(t, "GET /processes?limit=2"+cursor, nil).is(t, 200)
		for _, item := range at.at(t, "items").([]any) {
			seen = append(seen, fmt.Sprint(member(item, "id")))
		}
		if at.at(t, "nextCursor") == nil {
			break
		}
		cursor = "&cursor=" + at.text(t, "nextCursor")
	}
	all := len(newest.at(t, "items").([]any))
	if once := slices.Compact(slices.Sorted(slices.Values(seen))); len(seen) != all || len(once) != all {
		t.Errorf("pages of 2 have %v, the whole list has %d", seen, all)
	}
}
