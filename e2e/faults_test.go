package e2e

import (
	"fmt"
	"testing"
	"time"

	"gatehouse/services/servicestest"
)

// What is promised whatever Redis does: no request takes longer, and so soon
// after Redis is back everything is as before.
const (
	slowestAllowed = time.Second
	backToNormal   = time.Second
	callTimeout    = 400 * time.Millisecond // not the default of 100: a busy machine is no outage
	probeTimeout   = 4 * callTimeout        // a machine that is busy for a moment is not gone
	redisTimeout   = "REDIS_TIMEOUT=400ms"
)

// TestJourneyWithoutRedis is the same journey with Redis away all the time: it
// never came, it was switched off, it froze, it was killed.
func TestJourneyWithoutRedis(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]func(t *testing.T) *app{
		"never-there": func(t *testing.T) *app {
			return startWithoutRedis(t, "REDIS_URL=redis://"+servicestest.FreeAddr(t), redisTimeout)
		},
		"disabled": func(t *testing.T) *app { return start(t, "REDIS_ENABLED=false") },
		"frozen": func(t *testing.T) *app {
			redis := servicestest.StartRedis(t)
			a := start(t, "REDIS_URL=redis://"+redis.Addr, redisTimeout)
			redis.Freeze()
			return a
		},
		"killed": func(t *testing.T) *app {
			redis := servicestest.StartRedis(t)
			a := start(t, "REDIS_URL=redis://"+redis.Addr, redisTimeout)
			redis.Kill()
			return a
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &world{app: away(t), degraded: true}
			w.ready(t, "degraded", map[bool]string{true: "disabled", false: "down"}[name == "disabled"])
			if name == "frozen" {
				w.walk(t, journey())
			} else { // accounts do not know why Redis is away
				w.walk(t, journeyOfLocks())
			}
			w.app.slow.below(t, slowestAllowed)
		})
	}
}

// ready waits until /readyz says so, with 200 all the time.
func (w *world) ready(t *testing.T, status, redis string) {
	t.Helper()
	bound := backToNormal
	if status != "ok" {
		bound += probeTimeout // it is noticed by a probe that is not answered, if not by a call before
	}
	servicestest.Within(t, bound, func() bool {
		got := w.anonymous().send(t, "GET /readyz", nil).is(t, 200).with(t, "components.database.status", "ok")
		return got.at(t, "status") == status && got.at(t, "components.redis.status") == redis
	}, fmt.Sprintf("/readyz does not say %s, redis %s", status, redis))
}

// outage is one way for Redis to go and come back.
type outage struct {
	name string
	away func(*servicestest.RedisServer)
	back func(*servicestest.RedisServer)
}

func outages() []outage {
	return []outage{
		{"frozen", (*servicestest.RedisServer).Freeze, (*servicestest.RedisServer).Thaw},
		{"killed", (*servicestest.RedisServer).Kill, (*servicestest.RedisServer).Start}, // empty,
	}
}

// TestJourneyThroughOutages walks the journey while Redis goes and comes back
// between its steps, without a pause: each step begins with the fault that
// no instance has noticed yet.
func TestJourneyThroughOutages(t *testing.T) {
	t.Parallel()
	for _, o := range outages() {
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			redis := servicestest.StartRedis(t)
			w := &world{app: start(t, "REDIS_URL=redis://"+redis.Addr, redisTimeout)}
			w.walk(t, []step{{"sign in", signIn}, {"create", create}, {"lock", lock}})
			for i, s := range []step{
				{"write", write}, {"extend", extend}, {"quick update", quickUpdate}, {"release", release}, {"repeat an acquire", repeatAcquire},
				{"queue", queue}, {"force", force}, {"delete", deleteProcess}, {"page", page},
			} {
				if w.degraded = i%2 == 0; w.degraded {
					o.away(redis)
				} else {
					o.back(redis)
					w.ready(t, "ok", "ok")
				}
				w.round++
				if !t.Run(fmt.Sprintf("%s-degraded-%t", s.name, w.degraded), func(t *testing.T) { s.walk(t, w) }) {
					t.FailNow()
				}
				// No user is logged out.
				for _, c := range []*client{w.alice, w.bob, w.admin, w.viewer} {
					c.call(t, "GET /auth/session", nil).is(t, 200)
				}
			}
			w.app.slow.below(t, slowestAllowed)
		})
	}
}

// TestLocksThroughAnOutage: what was granted before an outage holds during it,
// what was granted during it holds after it, and what was given back during it
// is free after it.
func TestLocksThroughAnOutage(t *testing.T) {
	t.Parallel()
	for _, o := range outages() {
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			redis := servicestest.StartRedis(t)
			w := &world{app: start(t, "REDIS_URL=redis://"+redis.Addr, redisTimeout, raceDetector)}
			w.alice, w.bob, w.admin = w.app.signIn(t, "alice@example.com"), w.app.signIn(t, "bob@example.com"), w.app.signIn(t, "admin@example.com")
			made := func(title string) string {
				return w.alice.call(t, "POST /processes", map[string]any{"title": title}).is(t, 201).text(t, "id")
			}
			before, released, forced := made("before"), made("released"), made("forced")
			during, quick, extended := made("during"), made("quick"), made("extended")
			token := map[string]string{}
			take := func(process string) {
				t.Helper()
				token[process] = "X-Lock-Token: " + w.acquire(t, w.alice, process, nil).text(t, "lockToken")
			}
			holds := func(process string) {
				t.Helper()
				w.bob.call(t, "POST "+lockPath(process), nil).problem(t, 423, "locked").with(t, "holder.userId", w.alice.id)
				w.told(t, w.bob.call(t, "GET "+lockPath(process)+"/status", nil).is(t, 200).with(t, "isLocked", true).with(t, "holder.userId", w.alice.id))
				w.toldInHeader(t, w.alice.call(t, "PUT /processes/"+process, fields("mine"), token[process]).is(t, 200))
			}
			free := func(process string) bool {
				return w.bob.call(t, "GET "+lockPath(process)+"/status", nil).is(t, 200).at(t, "isLocked") == false
			}
			for _, process := range []string{before, released, forced, extended} {
				take(process)
			}

			o.away(redis)
			w.degraded = true
			// The first requests meet a Redis that may yet carry them out.
			take(during)
			w.bob.call(t, "PATCH /processes/"+quick+"/quick-update", map[string]any{"title": "quick"}).is(t, 200)
			holds(before)
			holds(during)
			w.told(t, w.alice.call(t, "POST "+lockPath(extended)+"/extend", map[string]any{"ttl": 1200}, token[extended]).is(t, 200).with(t, "expiresIn", 1200))
			w.toldInHeader(t, w.alice.call(t, "DELETE "+lockPath(released), nil, token[released]).is(t, 204))
			w.toldInHeader(t, w.admin.call(t, "DELETE /locks/process:"+forced+"?reason=outage", nil).is(t, 204))
			w.alice.call(t, "PUT /processes/"+forced, fields("forced"), token[forced]).problem(t, 409, "lock-not-held")
			if !free(released) || !free(forced) {
				t.Error("a lock given back without Redis is still held")
			}
			w.ready(t, "degraded", "down")

			o.back(redis)
			w.degraded = false
			servicestest.Within(t, backToNormal, func() bool {
				ready := w.anonymous().send(t, "GET /readyz", nil).is(t, 200).at(t, "status") == "ok"
				return ready && free(released) && free(forced) && free(quick)
			}, "after the outage a lock is left without a holder")
			holds(before)
			holds(during)
			holds(extended)
			if ttl := w.bob.call(t, "GET "+lockPath(extended)+"/status", nil).is(t, 200).number(t, "ttl"); ttl < 1100 {
				t.Errorf("a lock extended to 1200 s in the outage has %d s after it", ttl)
			}
			for _, process := range []string{before, during, extended} {
				w.toldInHeader(t, w.alice.call(t, "DELETE "+lockPath(process), nil, token[process]).is(t, 204))
			}
			w.bob.call(t, "GET /locks", nil).is(t, 200).with(t, "items", "[]").with(t, "degraded", false)
			w.alice.call(t, "GET /auth/session", nil).is(t, 200).header(t, "X-Degraded", "")
			w.app.slow.below(t, slowestAllowed)
		})
	}
}

// TestFrozenWhileBusy freezes Redis under requests of many users at once: none
// fails, none is slow, no user is logged out, and no lock stays without a holder.
func TestFrozenWhileBusy(t *testing.T) {
	t.Parallel()
	redis := servicestest.StartRedis(t)
	w := &world{app: start(t, "REDIS_URL=redis://"+redis.Addr, redisTimeout, raceDetector, "RATE_LIMIT_MAX=1000000")}
	w.alice, w.bob = w.app.signIn(t, "alice@example.com"), w.app.signIn(t, "bob@example.com")

	stop := make(chan struct{})
	done := make(chan int)
	for _, c := range []*client{w.alice, w.bob, w.alice, w.bob} {
		made := c.call(t, "POST /processes", map[string]any{"title": "busy"}).is(t, 201).text(t, "id")
		go func() {
			sent := 0
			defer func() { done <- sent }()
			for {
				select {
				case <-stop:
					return
				default:
				}
				sent += work(t, c, made)
			}
		}()
	}
	for range 2 {
		redis.Freeze()
		w.ready(t, "degraded", "down")
		redis.Thaw()
		w.ready(t, "ok", "ok")
	}
	close(stop)
	sent := 0
	for range 4 {
		sent += <-done
	}
	t.Logf("%d requests", sent)
	w.nothingLocked(t)
	w.app.slow.below(t, slowestAllowed)
}

// work is what a busy user does to a process that no other user edits; it returns
// the number of requests.
func work(t *testing.T, c *client, process string) int {
	for _, what := range []string{"GET /auth/session", "GET /processes/" + process, "GET " + lockPath(process) + "/status"} {
		if got := c.call(t, what, nil); got.Status != 200 {
			t.Errorf("%s: %d %s", what, got.Status, got.Body)
		}
	}
	if got := c.call(t, "PATCH /processes/"+process+"/quick-update", map[string]any{"description": "busy"}); got.Status != 200 {
		t.Errorf("%s of %s: %d %s", got.what, c.email, got.Status, got.Body)
	}
	return 4
}

// nothingLocked: soon after recovery no lock is left without a holder.
func (w *world) nothingLocked(t *testing.T) {
	t.Helper()
	servicestest.Within(t, backToNormal, func() bool {
		return fmt.Sprint(w.alice.call(t, "GET /locks", nil).is(t, 200).at(t, "items")) == "[]"
	}, "a lock is left without a holder")
}

// TestSlowMoment: Redis is slow for a moment, too short to count as away. What a
// user gave back in it does not stay locked.
func TestSlowMoment(t *testing.T) {
	t.Parallel()
	redis := servicestest.StartRedis(t)
	w := &world{app: start(t, "REDIS_URL=redis://"+redis.Addr, redisTimeout)}
	w.alice = w.app.signIn(t, "alice@example.com")
	for _, process := range []string{"1", "2", "3"} {
		token := "X-Lock-Token: " + w.alice.call(t, "POST "+lockPath(process), nil).is(t, 201).text(t, "lockToken")
		redis.Do("CLIENT", "PAUSE", "130", "ALL")
		w.alice.call(t, "DELETE "+lockPath(process), nil, token).is(t, 204)
		w.ready(t, "ok", "ok")
		w.nothingLocked(t)
	}
	w.app.slow.below(t, slowestAllowed)
}
