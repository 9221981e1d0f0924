package app

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"gatehouse/services/servicestest"
)

// lockDetails is what GET /locks/:resource answers.
type lockDetails struct {
	Resource, Reason string
	Holder           struct{ UserID, Email string }
	Since, ExpiresAt time.Time
	Fence            *int64
	Waiting          int
	LastActiveAt     *time.Time
	Queue            []struct {
		UserID, Email string
		Since         time.Time
	}
	History []struct {
		Holder  *struct{ UserID, Email string }
		Since   *time.Time
		Fence   *int64
		EndedBy struct {
			How, Reason string
			By          *struct{ UserID, Email string }
			At          time.Time
		}
	}
	Degraded bool
}

// Two instances on one Redis: what happens at one is told at the other.
func TestLockDetails(t *testing.T) {
	t.Parallel()
	server := servicestest.StartRedis(t)
	env := map[string]string{"REDIS_URL": "redis://" + server.Addr, "DATABASE_URL": newDatabase(t)}
	a, other := startApp(t, env), startApp(t, env)
	admin, alice, bob, vic := a.signIn(t, "admin@example.com"), a.signIn(t, "alice@example.com"), a.signIn(t, "bob@example.com"), other.signIn(t, "viewer@example.com")
	look := func() lockDetails {
		t.Helper()
		return decoded[lockDetails](t, other.api(vic, http.MethodGet, "/locks/process:1", ""), http.StatusOK)
	}
	acquire := func(user, body string) grant {
		t.Helper()
		return decoded[grant](t, a.api(user, http.MethodPost, "/processes/1/lock", body), http.StatusCreated)
	}

	t.Run("says what is wrong with a name, and that a lock is free", func(t *testing.T) {
		for path, want := range map[string]struct {
			status int
			text   string
		}{
			"/locks/process:1":                    {http.StatusNotFound, "/problems/not-found"},
			"/locks/process:4711":                 {http.StatusNotFound, "/problems/not-found"},
			"/locks/job:nightly":                  {http.StatusNotFound, "/problems/not-found"},
			"/locks/1":                            {http.StatusUnprocessableEntity, `"field":"resource"`},
			"/locks/process:1%2F2":                {http.StatusUnprocessableEntity, `"field":"resource"`},
			"/locks/process:%00":                  {http.StatusUnprocessableEntity, `"field":"resource"`},
			"/locks/" + strings.Repeat("x", 9000): {http.StatusUnprocessableEntity, `"field":"resource"`},
			"/locks/process:1?reason=x":           {http.StatusUnprocessableEntity, `"field":"reason"`},
		} {
			r := httptest.NewRequest(http.MethodGet, "/api/v1"+path, nil)
			r.Header.Set("Authorization", "Bearer "+vic)
			w := httptest.NewRecorder()
			other.server.Handler.ServeHTTP(w, r)
			if w.Code != want.status || !strings.Contains(w.Body.String(), want.text) {
				t.Errorf("%.40s: %d %s", path, w.Code, w.Body)
			}
		}
	})

	t.Run("tells of the holder, of who waits anywhere, and how it went before", func(t *testing.T) {
		acquire(bob, `{"reason":"two interviews"}`)
		if w := a.api(admin, http.MethodDelete, "/locks/process:1?reason=on+holiday", ""); w.Code != http.StatusNoContent {
			t.Fatal(w.Code)
		}
		held := acquire(bob, `{"reason":"the last one"}`)
		waited := make(chan *httptest.ResponseRecorder)
		go func() { waited <- a.api(alice, http.MethodPost, "/processes/1/lock", "", "Prefer", "wait=30") }()
		a.waits(t, alice, "1")

		w := other.api(vic, http.MethodGet, "/locks/process:1", "")
		got := decoded[lockDetails](t, w, http.StatusOK)
		if got.Resource != "process:1" || got.Reason != "the last one" || got.Holder.Email != "bob@example.com" || *got.Fence != *held.Fence ||
			got.Waiting != 1 || got.LastActiveAt == nil || got.Degraded || !got.ExpiresAt.After(got.Since) {
			t.Errorf("%+v", got)
		}
		if len(got.Queue) != 1 || got.Queue[0].Email != "alice@example.com" || got.Queue[0].UserID == "" || time.Since(got.Queue[0].Since).Abs() > time.Minute {
			t.Errorf("the queue: %+v", got.Queue)
		}
		if len(got.History) != 1 {
			t.Fatalf("the history: %s", w.Body)
		}
		ended := got.History[0]
		if ended.Holder == nil || ended.Holder.Email != "bob@example.com" || ended.Since == nil || ended.Fence == nil || *ended.Fence >= *held.Fence ||
			ended.EndedBy.How != "forced" || ended.EndedBy.By.Email != "admin@example.com" || ended.EndedBy.Reason != "on holiday" || ended.EndedBy.At.Before(*ended.Since) {
			t.Errorf("the history: %s", w.Body)
		}
		for _, secret := range []string{held.LockToken, "grant", "oken", "instance"} {
			if strings.Contains(w.Body.String(), secret) {
				t.Errorf("it has %q: %s", secret, w.Body)
			}
		}
		if w := a.api(bob, http.MethodDelete, "/processes/1/lock", "", "X-Lock-Token", held.LockToken); w.Code != http.StatusNoContent {
			t.Fatal(w.Code)
		}
		if w := <-waited; w.Code != http.StatusCreated {
			t.Errorf("the waiter: %d %s", w.Code, w.Body)
		}
	})

	t.Run("comes back after Redis has lost all", func(t *testing.T) {
		before := look()
		server.Do("FLUSHALL")
		servicestest.Eventually(t, func() bool {
			w := other.api(vic, http.MethodGet, "/locks/process:1", "")
			if w.Code == http.StatusNotFound { // its holder's instance has not reasserted it yet
				return false
			}
			got := decoded[lockDetails](t, w, http.StatusOK)
			if got.Holder != before.Holder || got.Reason != before.Reason || len(got.History) == 0 {
				t.Fatalf("%+v, and before %+v", got, before)
			}
			return true
		}, "the lock is not known again")
	})
}
