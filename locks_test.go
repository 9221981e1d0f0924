package main

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
	servicestest.Eventually(t, 5*time.Second, func() bool { return !cutOff.handlers.Redis.Available() }, "Redis still counts as available")
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
	servicestest.Eventually(t, 5*time.Second, cutOff.handlers.Redis.Available, "not back")
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
