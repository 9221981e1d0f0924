package app

import (
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"gatehouse/services/servicestest"
)

// Two instances on one database; one cannot reach Redis and grants by itself what
// the other grants, too. When Redis is back, the one who claims too late is told: 409 on
// the next use of its token, and the conflict is counted.
func TestLockConflictAfterAnOutageIs409(t *testing.T) {
	server := servicestest.StartRedis(t)
	proxy := servicestest.NewProxy(t, server.Addr)
	database := filepath.Join(t.TempDir(), "shared.db")
	cutOff := startApp(t, map[string]string{"REDIS_URL": "redis://" + proxy.Addr, "DATABASE_URL": database})
	other := startApp(t, map[string]string{"REDIS_URL": "redis://" + server.Addr, "DATABASE_URL": database, "REDIS_TIMEOUT": "5s"})
	loser := cutOff.signIn(t, "alice@example.com")
	winner := other.signIn(t, "admin@example.com")
	proxy.Cut()
	servicestest.Eventually(t, func() bool { return !cutOff.handlers.Redis.Available() }, "Redis still counts as available")
	lock := func(a *app, user string, degraded bool) (token string) {
		t.Helper()
		w := a.do(http.MethodPost, "/api/v1/processes/1/lock", "", "Authorization", "Bearer "+user)
		var answer struct {
			LockToken string
			Degraded  bool
		}
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != http.StatusCreated || answer.Degraded != degraded {
			t.Fatalf("%d %s, %v", w.Code, w.Body, err)
		}
		return answer.LockToken
	}
	lost, won := lock(cutOff, loser, true), lock(other, winner, false)
	proxy.Restore()
	servicestest.Eventually(t, cutOff.handlers.Redis.Available, "not back")
	body := `{"title":"late","status":"draft","description":""}`
	for _, use := range []struct{ method, path, body string }{
		{http.MethodPut, "/api/v1/processes/1", body},
		{http.MethodPost, "/api/v1/processes/1/lock/extend", ""},
		{http.MethodDelete, "/api/v1/processes/1/lock", ""},
	} {
		w := cutOff.do(use.method, use.path, use.body, "Authorization", "Bearer "+loser, "X-Lock-Token", lost, "Content-Type", "application/json")
		if w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), "/problems/lock-not-held") || !strings.Contains(w.Body.String(), "admin@example.com") {
			t.Errorf("%s %s: %d %s", use.method, use.path, w.Code, w.Body)
		}
	}
	if w := cutOff.do(http.MethodGet, "/metrics", ""); !strings.Contains(w.Body.String(), "\ngatehouse_lock_conflicts_total 1\n") {
		t.Error("the conflict is not counted")
	}
	if w := other.do(http.MethodPost, "/api/v1/processes/1/lock/extend", "", "Authorization", "Bearer "+winner, "X-Lock-Token", won); w.Code != http.StatusOK {
		t.Errorf("the winner: %d %s", w.Code, w.Body)
	}
}

// Who is refused when Redis cannot be asked is told that it was not, like who is not.
func TestLockRefusalsSayThatTheyWereDecidedWithoutRedis(t *testing.T) {
	a := startApp(t, map[string]string{"REDIS_URL": "redis://" + servicestest.FreeAddr(t)})
	alice, admin := a.signIn(t, "alice@example.com"), a.signIn(t, "admin@example.com")
	const put, patch = `{"title":"t","status":"draft","description":""}`, `{"title":"t"}`
	const own = "the token that alice was given"
	var token struct{ LockToken string }
	for _, row := range []struct {
		user, method, path, body string
		headers                  []string
		code                     int
	}{
		{alice, "POST", "/processes/1/lock", "", []string{"If-Match", `"99"`}, 412},
		{alice, "POST", "/processes/1/lock", "", nil, 201},
		{admin, "POST", "/processes/1/lock", "", nil, 423},
		{admin, "POST", "/processes/1/lock", "", []string{"Prefer", "wait=1"}, 423},
		{admin, "GET", "/processes/1/lock/status", "", nil, 200},
		{admin, "GET", "/locks", "", nil, 200},
		{admin, "PUT", "/processes/1", put, []string{"X-Lock-Token", "forged"}, 409},
		{admin, "DELETE", "/processes/1", "", []string{"X-Lock-Token", "forged"}, 409},
		{admin, "POST", "/processes/1/lock/extend", "", []string{"X-Lock-Token", "forged"}, 409},
		{admin, "DELETE", "/processes/1/lock", "", []string{"X-Lock-Token", "forged"}, 409},
		{admin, "DELETE", "/locks/process:1?reason=r&fence=1", "", nil, 409},
		{admin, "DELETE", "/locks/process:2?reason=r", "", nil, 404},
		{admin, "PATCH", "/processes/1/quick-update", patch, []string{"Prefer", "wait=0"}, 423},
		{admin, "PATCH", "/processes/2/quick-update", patch, []string{"If-Match", `"99"`}, 412},
		{alice, "PUT", "/processes/1", put, []string{"X-Lock-Token", own, "If-Match", `"99"`}, 412},
		{alice, "DELETE", "/processes/1", "", []string{"X-Lock-Token", own, "If-Match", `"99"`}, 412},
		{alice, "POST", "/processes/1/lock/extend", "", []string{"X-Lock-Token", own}, 200},
		{alice, "DELETE", "/processes/1/lock", "", []string{"X-Lock-Token", own}, 204},
		{alice, "DELETE", "/processes/1/lock", "", []string{"X-Lock-Token", own}, 409},
		{alice, "POST", "/processes/1/lock/extend", "", []string{"X-Lock-Token", own}, 409},
		{alice, "PUT", "/processes/1", put, []string{"X-Lock-Token", own}, 409},
	} {
		headers := append([]string{"Authorization", "Bearer " + row.user, "Content-Type", "application/json"}, row.headers...)
		for i := range headers {
			if headers[i] == own {
				headers[i] = token.LockToken
			}
		}
		w := a.do(row.method, "/api/v1"+row.path, row.body, headers...)
		if w.Code != row.code {
			t.Errorf("%s %s %v: %d %s", row.method, row.path, row.headers, w.Code, w.Body)
		}
		if !strings.Contains(w.Header().Get("X-Degraded"), "locks") {
			t.Errorf("%s %s: %d with X-Degraded %q", row.method, row.path, w.Code, w.Header().Get("X-Degraded"))
		}
		if row.code == http.StatusCreated {
			_ = json.Unmarshal(w.Body.Bytes(), &token)
		}
	}
}

// An instance that extends without Redis what another granted knows whose it is, and
// since when.
func TestLockTakenOverWithoutRedisKeepsItsHolder(t *testing.T) {
	server := servicestest.StartRedis(t)
	proxy := servicestest.NewProxy(t, server.Addr)
	database := filepath.Join(t.TempDir(), "shared.db")
	granter := startApp(t, map[string]string{"REDIS_URL": "redis://" + server.Addr, "DATABASE_URL": database, "REDIS_TIMEOUT": "5s"})
	extender := startApp(t, map[string]string{"REDIS_URL": "redis://" + proxy.Addr, "DATABASE_URL": database})
	alice := granter.signIn(t, "alice@example.com")
	type status struct {
		LockToken      string
		Mine, Degraded bool
		Holder         struct {
			Email string
			Since time.Time
		}
	}
	ask := func(a *app, method, path string, headers ...string) (answer status) {
		t.Helper()
		w := a.do(method, "/api/v1/processes/1/lock"+path, "", append(headers, "Authorization", "Bearer "+alice)...)
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code >= 300 {
			t.Fatalf("%s %s: %d %s, %v", method, path, w.Code, w.Body, err)
		}
		return answer
	}
	token := ask(granter, "POST", "").LockToken
	want := ask(granter, "GET", "/status").Holder
	proxy.Cut()
	servicestest.Eventually(t, func() bool { return !extender.handlers.Redis.Available() }, "Redis still counts as available")
	if !ask(extender, "POST", "/extend", "X-Lock-Token", token).Degraded {
		t.Error("extended with Redis")
	}
	if got := ask(extender, "GET", "/status"); !got.Mine || !got.Degraded || got.Holder.Email != want.Email || !got.Holder.Since.Equal(want.Since) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// Without Redis an acquire that is repeated answers the grant it made, without the fence, which a
// degraded answer leaves out by contract. A sign-in tells that its session was begun without Redis.
func TestRepeatedAcquireAndSignInWithoutRedis(t *testing.T) {
	server := servicestest.StartRedis(t)
	a := startApp(t, map[string]string{"REDIS_URL": "redis://" + server.Addr, "REDIS_TIMEOUT": "1s"})
	user := a.signIn(t, "alice@example.com")
	type answer struct {
		LockToken string
		Fence     *int64
		Degraded  bool
	}
	acquire := func() (got answer) {
		t.Helper()
		w := a.do(http.MethodPost, "/api/v1/processes/1/lock", "", "Authorization", "Bearer "+user, "Idempotency-Key", "k")
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusCreated {
			t.Fatalf("%d %s, %v", w.Code, w.Body, err)
		}
		return got
	}
	first := acquire()
	if first.Fence == nil || first.Degraded {
		t.Fatalf("%+v", first)
	}
	server.Freeze()
	servicestest.Eventually(t, func() bool { return !a.handlers.Redis.Available() }, "Redis still counts as available")
	if got := acquire(); got.LockToken != first.LockToken || got.Fence != nil || !got.Degraded {
		t.Errorf("repeated: %+v", got)
	}
	w := a.do(http.MethodPost, "/api/v1/auth/login", `{"email":"alice@example.com","password":"`+demoPassword+`"}`, "Content-Type", "application/json")
	if w.Code != http.StatusOK || w.Header().Get("X-Degraded") != "sessions, rate-limit" {
		t.Errorf("sign-in: %d, X-Degraded %q", w.Code, w.Header().Get("X-Degraded"))
	}
}
