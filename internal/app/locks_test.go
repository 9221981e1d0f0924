package app

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/services/servicestest"
)

// outage is two instances on one database and one Redis, which only one of them can reach.
type outage struct {
	cutOff, other *app
	proxy         *servicestest.Proxy
}

func newOutage(t *testing.T) outage {
	t.Helper()
	server := servicestest.StartRedis(t)
	o := outage{proxy: servicestest.NewProxy(t, server.Addr)}
	database := newDatabase(t)
	o.cutOff = startApp(t, map[string]string{"REDIS_URL": "redis://" + o.proxy.Addr, "DATABASE_URL": database})
	o.other = startApp(t, map[string]string{"REDIS_URL": "redis://" + server.Addr, "DATABASE_URL": database})
	return o
}

func (o outage) begin(t *testing.T) {
	t.Helper()
	o.proxy.Cut()
	o.cutOff.available(t, false)
}

func (o outage) end(t *testing.T) {
	t.Helper()
	o.proxy.Restore()
	o.cutOff.available(t, true)
}

// grant is what the routes of a lock answer.
type grant struct {
	LockToken      string
	Fence          *int64
	Mine, Degraded bool
	Holder         struct {
		Email string
		Since time.Time
	}
}

// Two instances on one database; one cannot reach Redis and grants by itself what
// the other grants, too. When Redis is back, the one who claims too late is told: 409 on
// the next use of its token, and the conflict is counted.
func TestLockConflictAfterAnOutageIs409(t *testing.T) {
	t.Parallel()
	o := newOutage(t)
	loser, winner := o.cutOff.signIn(t, "alice@example.com"), o.other.signIn(t, "admin@example.com")
	o.begin(t)
	lost := decoded[grant](t, o.cutOff.api(loser, http.MethodPost, "/processes/1/lock", ""), http.StatusCreated)
	won := decoded[grant](t, o.other.api(winner, http.MethodPost, "/processes/1/lock", ""), http.StatusCreated)
	if !lost.Degraded || won.Degraded {
		t.Fatalf("%+v and %+v", lost, won)
	}
	o.end(t)
	for _, use := range []struct{ method, path, body string }{
		{http.MethodPut, "/processes/1", `{"title":"late","status":"draft","description":""}`},
		{http.MethodPost, "/processes/1/lock/extend", ""},
		{http.MethodDelete, "/processes/1/lock", ""},
	} {
		w := o.cutOff.api(loser, use.method, use.path, use.body, "X-Lock-Token", lost.LockToken)
		if w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), "/problems/lock-not-held") || !strings.Contains(w.Body.String(), "admin@example.com") {
			t.Errorf("%s %s: %d %s", use.method, use.path, w.Code, w.Body)
		}
	}
	if w := o.cutOff.do(http.MethodGet, "/metrics", ""); !strings.Contains(w.Body.String(), "\ngatehouse_lock_conflicts_total 1\n") {
		t.Error("the conflict is not counted")
	}
	decoded[grant](t, o.other.api(winner, http.MethodPost, "/processes/1/lock/extend", "", "X-Lock-Token", won.LockToken), http.StatusOK)
}

// Who is refused when Redis cannot be asked is told that it was not, like who is not.
func TestLockRefusalsSayTheyAreDegraded(t *testing.T) {
	t.Parallel()
	a := startCutOff(t, nil)
	alice, admin := a.signIn(t, "alice@example.com"), a.signIn(t, "admin@example.com")
	const put, patch = `{"title":"t","status":"draft","description":""}`, `{"title":"t"}`
	const own = "the token that alice was given"
	var token string
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
		{admin, "GET", "/locks/process:1", "", nil, 200},
		{admin, "GET", "/locks/process:2", "", nil, 404},
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
		headers := slices.Clone(row.headers)
		for i := range headers {
			if headers[i] == own {
				headers[i] = token
			}
		}
		w := a.api(row.user, row.method, row.path, row.body, headers...)
		if w.Code != row.code {
			t.Errorf("%s %s %v: %d %s", row.method, row.path, row.headers, w.Code, w.Body)
		}
		if !strings.Contains(w.Header().Get("X-Degraded"), "locks") {
			t.Errorf("%s %s: %d with X-Degraded %q", row.method, row.path, w.Code, w.Header().Get("X-Degraded"))
		}
		if row.code == http.StatusCreated {
			token = decoded[grant](t, w, row.code).LockToken
		}
	}
}

// An instance that extends without Redis what another granted knows whose it is, and
// since when.
func TestLockTakenOverKeepsItsHolder(t *testing.T) {
	t.Parallel()
	o := newOutage(t)
	alice := o.other.signIn(t, "alice@example.com")
	status := func(a *app) grant {
		t.Helper()
		return decoded[grant](t, a.api(alice, http.MethodGet, "/processes/1/lock/status", ""), http.StatusOK)
	}
	token := decoded[grant](t, o.other.api(alice, http.MethodPost, "/processes/1/lock", ""), http.StatusCreated).LockToken
	want := status(o.other).Holder
	o.begin(t)
	if !decoded[grant](t, o.cutOff.api(alice, http.MethodPost, "/processes/1/lock/extend", "", "X-Lock-Token", token), http.StatusOK).Degraded {
		t.Error("extended with Redis")
	}
	if got := status(o.cutOff); !got.Mine || !got.Degraded || got.Holder.Email != want.Email || !got.Holder.Since.Equal(want.Since) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// Without Redis an acquire that is repeated answers the grant it made, without the fence, which a
// degraded answer leaves out by contract. A sign-in tells that its session was begun without Redis.
func TestRepeatedAcquireAndSignInWithoutRedis(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	a := startApp(t, map[string]string{"REDIS_URL": "redis://" + server.Addr, "REDIS_TIMEOUT": "1s"})
	alice := a.signIn(t, "alice@example.com")
	acquire := func() grant {
		t.Helper()
		return decoded[grant](t, a.api(alice, http.MethodPost, "/processes/1/lock", "", "Idempotency-Key", "k"), http.StatusCreated)
	}
	first := acquire()
	if first.Fence == nil || first.Degraded {
		t.Fatalf("%+v", first)
	}
	server.Kill()
	a.available(t, false)
	if got := acquire(); got.LockToken != first.LockToken || got.Fence != nil || !got.Degraded {
		t.Errorf("repeated: %+v", got)
	}
	if w := a.login("alice@example.com", demoPassword); w.Code != http.StatusOK || w.Header().Get("X-Degraded") != "sessions, rate-limit" {
		t.Errorf("sign-in: %d, X-Degraded %q", w.Code, w.Header().Get("X-Degraded"))
	}
}
