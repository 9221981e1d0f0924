package e2e

import (
	"context"
	"net/http"
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

// TestLockExpires: a lock ends with its time, its token with it, and a waiter
// gets it then.
func TestLockExpires(t *testing.T) {
	for name, env := range redisModes() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &world{app: start(t, env(t), "RATE_LIMIT_MAX=1000000"), degraded: name == "without-redis"}
			w.alice, w.bob = w.app.signIn(t, "alice@example.com"), w.app.signIn(t, "bob@example.com")
			sent := time.Now()
			token := "X-Lock-Token: " + w.acquire(t, w.alice, "1", map[string]any{"ttl": 1}).text(t, "lockToken")
			waiter := w.bob.waitFor(t, "POST /processes/1/lock", map[string]any{"ttl": 30}, "Prefer: wait=10")
			for held := true; held; {
				now := time.Now()
				got := w.alice.call(t, "GET /processes/1/lock/status", nil).is(t, 200)
				held = got.at(t, "mine") == true
				if age := now.Sub(sent); !held && age < 900*time.Millisecond || held && age > 1500*time.Millisecond {
					t.Fatalf("after %v of 1 s: %s", age, got.Body)
				}
			}
			w.granted(t, waiter(), "1")
			for _, what := range []string{"POST /processes/1/lock/extend", "DELETE /processes/1/lock", "DELETE /processes/1"} {
				w.alice.call(t, what, nil, token).problem(t, 409, "lock-not-held").with(t, "isLocked", true).with(t, "holder.email", w.bob.email)
			}
			w.alice.call(t, "PUT /processes/1", fields("late"), token).problem(t, 409, "lock-not-held")
		})
	}
}

// TestWaitsEnd: a waiting request that outlives its session ends with 401, one
// whose client has gone leaves the queue, and neither gets the lock later.
func TestWaitsEnd(t *testing.T) {
	for name, env := range redisModes() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &world{app: start(t, env(t), "RATE_LIMIT_MAX=1000000"), degraded: name == "without-redis"}
			w.alice, w.bob, w.viewer = w.app.signIn(t, "alice@example.com"), w.app.signIn(t, "bob@example.com"), w.app.signIn(t, "viewer@example.com")
			token := "X-Lock-Token: " + w.acquire(t, w.alice, "1", nil).text(t, "lockToken")

			other := w.app.signIn(t, w.bob.email)
			ended := w.bob.waitFor(t, "POST /processes/1/lock", nil, "Prefer: wait=30")
			w.waiting(t, w.viewer, "1", 1)
			ctx, leave := context.WithCancel(t.Context())
			gone := make(chan error)
			go func() {
				req, _ := http.NewRequestWithContext(ctx, http.MethodPost, w.app.URL+"/api/v1/processes/1/lock", http.NoBody)
				req.Header.Set("Authorization", "Bearer "+other.token)
				req.Header.Set("Prefer", "wait=30")
				res, err := w.app.http.Do(req)
				if err == nil {
					res.Body.Close()
				}
				gone <- err
			}()
			w.waiting(t, w.viewer, "1", 2)

			leave()
			if err := <-gone; err == nil {
				t.Error("answered although the client has gone")
			}
			w.waiting(t, w.viewer, "1", 1)
			w.bob.call(t, "POST /auth/logout", nil).is(t, 204)
			out := time.Now()
			ended().problem(t, 401, "unauthenticated")
			if took := time.Since(out); took > 2*time.Second {
				t.Errorf("the wait ended %v after its session", took)
			}
			w.waiting(t, w.viewer, "1", 0)
			w.alice.call(t, "DELETE /processes/1/lock", nil, token).is(t, 204)
			w.alice.call(t, "GET /processes/1/lock/status", nil).is(t, 200).with(t, "isLocked", false)
		})
	}
}

// TestSessionsExpire: unused after the idle time, and at the longest life
// however much it is used.
func TestSessionsExpire(t *testing.T) {
	t.Parallel()
	a := start(t, "RATE_LIMIT_MAX=1000000", "SESSION_IDLE_TIMEOUT=1s", "SESSION_ABSOLUTE_TIMEOUT=3s")
	idle, busy := a.signIn(t, "alice@example.com"), a.signIn(t, "bob@example.com")
	ends := busy.call(t, "GET /auth/session", nil).is(t, 200).moment(t, "expiresAt")
	began, looked := time.Now(), false
	for busy.call(t, "GET /auth/session", nil).Status == 200 {
		if time.Since(ends) > time.Second {
			t.Fatal("it outlives its longest life")
		}
		if !looked && time.Since(began) > 1500*time.Millisecond {
			idle.call(t, "GET /auth/session", nil).problem(t, 401, "unauthenticated")
			looked = true
		}
	}
	if early := time.Until(ends); early > 0 {
		t.Errorf("a session in use ended %v before its time", early)
	}
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
