package app

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// openWithoutDatabase is how long an open request may outlive what is known of its session: copies
// count for 2 s, it asks every second, and the database has a while to answer.
const (
	databaseTimeout     = 5 * time.Second // no busy machine reaches it
	openWithoutDatabase = 2*time.Second + time.Second + databaseTimeout
)

// An instance that is cut off from the database cannot hear of a revoke: what is
// open there ends, as a new request would be refused.
func TestOpenRequestsEndWithoutTheDatabase(t *testing.T) {
	t.Parallel()
	database := servicestest.StartPostgresServer(t)
	a := startApp(t, map[string]string{"DATABASE_URL": database.URL, "DATABASE_TIMEOUT": databaseTimeout.String()})
	address, alice := a.onSocket(t), a.signIn(t, "alice@example.com")
	decoded[any](t, a.api(alice, http.MethodPost, "/processes/1/lock", ""), http.StatusCreated)
	s := openStream(t, address, alice)
	var status atomic.Int64
	var waiter sync.WaitGroup
	waiter.Go(func() {
		status.Store(int64(a.api(alice, http.MethodPost, "/processes/1/lock", "", "Prefer", "wait=30").Code))
	})
	defer waiter.Wait()
	a.waits(t, alice, "1")

	database.Freeze()
	defer database.Thaw()
	servicestest.Within(t, openWithoutDatabase, func() bool { return s.hasEnded() && status.Load() != 0 }, "a stream goes on, or a request waits, without the database")
	if got := status.Load(); got != http.StatusServiceUnavailable {
		t.Errorf("the wait ends with %d, want 503", got)
	}
}

// A flood of sign-ins is answered, if with 503, and who is signed in notices little
// of it. How long each waits is in services, see TestPasswordFloodIsAnswered.
func TestSignInFloodStarvesNobody(t *testing.T) { // alone: it needs all of the processors
	a := startApp(t, nil)
	alice := a.signIn(t, "alice@example.com")
	var flood sync.WaitGroup
	for i := range 150 { // 100 may wait, for 3 s
		flood.Go(func() {
			w := a.login(fmt.Sprintf("nobody-%d@example.com", i), "a wrong guess")
			if w.Code != http.StatusUnauthorized && (w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "") {
				t.Errorf("a sign-in of the flood: %d %s", w.Code, w.Body)
			}
		})
	}
	over := make(chan struct{})
	go func() { flood.Wait(); close(over) }()
	for asked := 0; ; asked++ {
		began := time.Now()
		if w := a.api(alice, http.MethodGet, "/auth/session", ""); w.Code != http.StatusOK {
			t.Fatalf("in the flood: %d %s", w.Code, w.Body)
		}
		if took := time.Since(began); took > time.Second+servicestest.Slack(began) {
			t.Errorf("a request beside the flood took %v", took)
		}
		select {
		case <-over:
			if asked < 3 { // the flood takes 3 s, and each its bound at most
				t.Errorf("only %d requests beside the flood", asked)
			}
			return
		default:
		}
	}
}

// Who loses the right to write while waiting for a lock gets none and writes
// nothing, also if the lock is granted right after.
func TestLostRoleReachesWaitingRequests(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, method, path, body string
		granted                  bool
	}{
		{"quick update", http.MethodPatch, "/quick-update", `{"title":"bob's"}`, false},
		{"quick update, granted", http.MethodPatch, "/quick-update", `{"title":"bob's"}`, true},
		{"lock", http.MethodPost, "/lock", "", false},
		{"lock, granted", http.MethodPost, "/lock", "", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			a := startApp(t, nil)
			admin, alice, bob := a.signIn(t, "admin@example.com"), a.signIn(t, "alice@example.com"), a.signIn(t, "bob@example.com")
			me := decoded[struct{ User models.UserRef }](t, a.api(bob, http.MethodGet, "/auth/session", ""), http.StatusOK).User
			held := decoded[struct{ LockToken string }](t, a.api(alice, http.MethodPost, "/processes/1/lock", ""), http.StatusCreated)
			answer := make(chan *httptest.ResponseRecorder, 1)
			go func() { answer <- a.api(bob, row.method, "/processes/1"+row.path, row.body, "Prefer", "wait=30") }()
			a.waits(t, alice, "1")
			decoded[any](t, a.api(admin, http.MethodPatch, "/users/"+me.ID, `{"roles":["viewer"]}`), http.StatusOK)
			if row.granted {
				if w := a.api(alice, http.MethodDelete, "/processes/1/lock", "", "X-Lock-Token", held.LockToken); w.Code != http.StatusNoContent {
					t.Fatalf("%d %s", w.Code, w.Body)
				}
			}
			servicestest.Within(t, 2*time.Second, func() bool { return len(answer) == 1 }, "it still waits")
			if w := <-answer; w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "/problems/forbidden") {
				t.Errorf("%d %s", w.Code, w.Body)
			}
			if w := a.api(alice, http.MethodGet, "/processes/1", ""); strings.Contains(w.Body.String(), "bob's") {
				t.Error("written")
			}
		})
	}
}
