package app

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/services/servicestest"
)

// lockUser is a user with processes of his own, on several instances.
type lockUser struct {
	t      *testing.T
	apps   []*app
	tokens []string // of his session, on each
}

func (u *lockUser) send(on int, method, path, body string, headers ...string) (code int, answer map[string]any) {
	u.t.Helper()
	w := u.apps[on].api(u.tokens[on], method, "/processes"+path, body, headers...)
	if w.Body.Len() > 0 {
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
			u.t.Error(err)
		}
	}
	return w.Code, answer
}

func (u *lockUser) create(n int) (ids []string) {
	u.t.Helper()
	for i := range n {
		code, process := u.send(0, http.MethodPost, "", fmt.Sprintf(`{"title":"limit %d"}`, i))
		id, ok := process["id"].(string)
		if code != http.StatusCreated || !ok {
			u.t.Fatal(code, process)
		}
		ids = append(ids, id)
	}
	return ids
}

func (u *lockUser) wantTooMany(what string, code int, answer map[string]any) {
	u.t.Helper()
	if code != http.StatusTooManyRequests || answer["type"] != "/problems/too-many-locks" || answer["limit"] != 3.0 {
		u.t.Errorf("%s: %d %v", what, code, answer)
	}
}

// startLimited starts instances on one database. Without env it starts them on one Redis.
func startLimited(t *testing.T, instances int, env map[string]string) *lockUser {
	t.Helper()
	acquainted := func() {}
	if env == nil {
		server := servicestest.StartRedis(t)
		env = map[string]string{"REDIS_URL": "redis://" + server.Addr}
		acquainted = func() { // each instance has looked for others, and found the last one
			server.Do("CONFIG", "RESETSTAT")
			servicestest.Eventually(t, func() bool {
				_, stats, _ := strings.Cut(server.Do("INFO", "commandstats"), "cmdstat_pubsub|numsub:calls=")
				calls, _, _ := strings.Cut(stats, ",")
				n, _ := strconv.Atoi(calls)
				return n > 2*instances
			}, "the instances do not look for each other")
		}
	}
	env["LOCK_MAX_PER_USER"], env["DATABASE_URL"] = "3", newDatabase(t)
	u := &lockUser{t: t}
	for range instances {
		a := startApp(t, env)
		u.apps, u.tokens = append(u.apps, a), append(u.tokens, a.signIn(t, "admin@example.com"))
	}
	acquainted()
	return u
}

// No user, an administrator neither, can lock more than LOCK_MAX_PER_USER processes on
// all instances together.
func TestLocksOfOneUserAreLimited(t *testing.T) {
	t.Parallel()
	u := startLimited(t, 2, nil)
	ids := u.create(6)
	var lockTokens []string
	for i := range 3 {
		code, lock := u.send(i%2, http.MethodPost, "/"+ids[i]+"/lock", `{"ttl":3600}`, "Idempotency-Key", ids[i])
		if code != http.StatusCreated {
			t.Fatal(code, lock)
		}
		lockTokens = append(lockTokens, lock["lockToken"].(string))
	}
	for on := range 2 {
		code, answer := u.send(on, http.MethodPost, "/"+ids[3]+"/lock", "")
		u.wantTooMany("one more", code, answer)
		code, answer = u.send(on, http.MethodPost, "/"+ids[3]+"/lock", "", "Idempotency-Key", "another")
		u.wantTooMany("with a key", code, answer)
		start := time.Now()
		code, answer = u.send(on, http.MethodPost, "/"+ids[3]+"/lock", "", "Prefer", "wait=30")
		u.wantTooMany("with patience", code, answer)
		if took := time.Since(start); took > 9*time.Second+servicestest.Slack(start) { // which is at most 20 s
			t.Errorf("it waited for what is refused: %v", took)
		}
		if code, status := u.send(on, http.MethodGet, "/"+ids[3]+"/lock/status", ""); code != http.StatusOK || status["isLocked"] != false {
			t.Errorf("left behind: %d %v", code, status)
		}
		if code, lock := u.send(on, http.MethodPost, "/"+ids[0]+"/lock", "", "Idempotency-Key", ids[0]); code != http.StatusCreated || lock["lockToken"] != lockTokens[0] {
			t.Errorf("the same grant again: %d %v", code, lock)
		}
		if code, lock := u.send(on, http.MethodPost, "/"+ids[0]+"/lock", "", "Idempotency-Key", ids[0], "Prefer", "wait=5"); code != http.StatusCreated || lock["lockToken"] != lockTokens[0] {
			t.Errorf("the same grant again, with patience: %d %v", code, lock)
		}
		if code, process := u.send(on, http.MethodPatch, "/"+ids[4]+"/quick-update", `{"title":"quick"}`); code != http.StatusOK {
			t.Errorf("quick update: %d %v", code, process)
		}
		if code, answer := u.send(on, http.MethodPost, "/"+ids[0]+"/lock/extend", "", "X-Lock-Token", lockTokens[0]); code != http.StatusOK {
			t.Errorf("extend: %d %v", code, answer)
		}
	}
	alice := u.apps[1].signIn(t, "alice@example.com")
	if w := u.apps[1].api(alice, http.MethodPost, "/processes/"+ids[3]+"/lock", ""); w.Code != http.StatusCreated {
		t.Errorf("another user: %d %s", w.Code, w.Body)
	}
	if code, answer := u.send(1, http.MethodDelete, "/"+ids[0]+"/lock", "", "X-Lock-Token", lockTokens[0]); code != http.StatusNoContent {
		t.Errorf("release: %d %v", code, answer)
	}
	if code, lock := u.send(0, http.MethodPost, "/"+ids[5]+"/lock", ""); code != http.StatusCreated {
		t.Errorf("after a release: %d %v", code, lock)
	}
	if w := u.apps[0].do(http.MethodGet, "/problems/too-many-locks", ""); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), "Too many locks") {
		t.Errorf("the help page: %d", w.Code)
	}
}

// Of many requests at the same time, on two instances and over all shards, never more stand than
// are allowed. Those that were refused leave nothing behind: the user can have the rest.
func TestLocksOfOneUserAreLimitedAtOnce(t *testing.T) {
	t.Parallel()
	u := startLimited(t, 2, nil)
	ids := u.create(24)
	for round := range 3 {
		var wg sync.WaitGroup
		var mu sync.Mutex
		held := map[string]string{}
		for i, id := range ids {
			wg.Go(func() {
				code, lock := u.send(i%2, http.MethodPost, "/"+id+"/lock", "")
				mu.Lock()
				defer mu.Unlock()
				if code == http.StatusCreated {
					held[id] = lock["lockToken"].(string)
				} else {
					u.wantTooMany(id, code, lock)
				}
			})
		}
		wg.Wait()
		if len(held) > 3 {
			t.Errorf("round %d: %d locks", round, len(held))
		}
		for i, id := range ids[:6] {
			if held[id] != "" {
				continue
			}
			code, lock := u.send(i%2, http.MethodPost, "/"+id+"/lock", "")
			if len(held) == 3 {
				u.wantTooMany(id, code, lock)
			} else if code == http.StatusCreated {
				held[id] = lock["lockToken"].(string)
			} else {
				t.Errorf("round %d, beside %d locks: %d %v", round, len(held), code, lock)
			}
		}
		for id, token := range held {
			if code, answer := u.send(0, http.MethodDelete, "/"+id+"/lock", "", "X-Lock-Token", token); code != http.StatusNoContent {
				t.Errorf("release: %d %v", code, answer)
			}
		}
	}
}

// Without Redis an instance counts what it knows.
func TestLocksOfOneUserAreLimitedWithoutRedis(t *testing.T) {
	t.Parallel()
	u := startLimited(t, 1, map[string]string{"REDIS_ENABLED": "false"})
	ids := u.create(4)
	for i, id := range ids {
		code, lock := u.send(0, http.MethodPost, "/"+id+"/lock", "")
		if i == 3 {
			u.wantTooMany("one more", code, lock)
		} else if code != http.StatusCreated || lock["degraded"] != true {
			t.Errorf("%d %v", code, lock)
		}
	}
}
