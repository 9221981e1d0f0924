package app

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// stillSession is how long an open request may outlive what is known of its session:
// copies count for 2 s, it asks every second, and the database takes a second not to
// answer. The rest is for a busy machine.
const stillSession = (2+1+1)*time.Second + time.Second

// An instance that is cut off from the database cannot hear of a revoke: what is
// open there ends, as a new request would be refused.
func TestOpenRequestsEndWithoutTheDatabase(t *testing.T) {
	database := servicestest.StartPostgresServer(t)
	a := startApp(t, map[string]string{"DATABASE_URL": database.URL, "DATABASE_TIMEOUT": "1s"})
	server := httptest.NewServer(a.server.Handler)
	t.Cleanup(server.Close) // after the stream, which ends with the test's context
	alice := a.signIn(t, "alice@example.com")
	if w := a.do(http.MethodPost, "/api/v1/processes/1/lock", "", "Authorization", "Bearer "+alice); w.Code != http.StatusCreated {
		t.Fatal(w.Code)
	}
	stream, _ := openStream(t, server.URL, alice)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for stream.Scan() {
			continue
		}
	}()
	waited := make(chan int, 1)
	go func() {
		waited <- a.do(http.MethodPost, "/api/v1/processes/1/lock", "", "Authorization", "Bearer "+alice, "Prefer", "wait=30").Code
	}()
	servicestest.Eventually(t, func() bool { return a.waiting(t, alice, "1") == 1 }, "nobody waits")

	database.Freeze()
	defer database.Thaw()
	late, stop := context.WithTimeout(t.Context(), stillSession)
	defer stop()
	select {
	case <-ended:
	case <-late.Done():
		t.Error("the stream goes on without the database")
	}
	select {
	case status := <-waited:
		if status != http.StatusServiceUnavailable {
			t.Errorf("the wait ends with %d, want 503", status)
		}
	case <-late.Done():
		t.Error("a request still waits without the database")
	}
}

// A flood of sign-ins is answered, if with 503, and who is signed in notices little
// of it.
func TestSignInFloodStarvesNobody(t *testing.T) {
	a := startApp(t, nil)
	alice := a.signIn(t, "alice@example.com")
	var flood sync.WaitGroup
	for i := range 400 {
		flood.Go(func() {
			began := time.Now()
			w := a.do(http.MethodPost, "/api/v1/auth/login", fmt.Sprintf(`{"email":"nobody-%d@example.com","password":"a wrong guess"}`, i), "Content-Type", "application/json")
			if w.Code != http.StatusUnauthorized && (w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "") {
				t.Errorf("a sign-in of the flood: %d %s", w.Code, w.Body)
			}
			if took := time.Since(began); took > 10*time.Second { // 3 s, and a busy machine
				t.Errorf("a sign-in of the flood took %v", took)
			}
		})
	}
	over := make(chan struct{})
	go func() { flood.Wait(); close(over) }()
	asked, slowest := 0, time.Duration(0)
	for done := false; !done; asked++ {
		began := time.Now()
		if w := a.do(http.MethodGet, "/api/v1/auth/session", "", "Authorization", "Bearer "+alice); w.Code != http.StatusOK {
			t.Fatalf("in the flood: %d %s", w.Code, w.Body)
		}
		slowest = max(slowest, time.Since(began))
		select {
		case <-over:
			done = true
		default:
		}
	}
	if asked < 20 || slowest > 2*time.Second {
		t.Errorf("%d requests beside the flood, the slowest took %v", asked, slowest)
	}
	t.Logf("%d requests beside the flood, the slowest took %v", asked, slowest)
}

// Who loses the right to write while waiting for a lock gets none and writes
// nothing, also if the lock is granted right after.
func TestLostRoleReachesWaitingRequests(t *testing.T) {
	a := startApp(t, nil)
	bearer := func(token string) []string {
		return []string{"Authorization", "Bearer " + token, "Content-Type", "application/json", "Prefer", "wait=30"}
	}
	admin, alice, bob := a.signIn(t, "admin@example.com"), a.signIn(t, "alice@example.com"), a.signIn(t, "bob@example.com")
	var me struct{ User models.UserRef }
	if err := json.Unmarshal(a.do(http.MethodGet, "/api/v1/auth/session", "", bearer(bob)...).Body.Bytes(), &me); err != nil || me.User.ID == "" {
		t.Fatal(err)
	}
	roles := func(role string) {
		t.Helper()
		if w := a.do(http.MethodPatch, "/api/v1/users/"+me.User.ID, `{"roles":["`+role+`"]}`, bearer(admin)...); w.Code != http.StatusOK {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	for _, row := range []struct {
		name, method, path, body string
		granted                  bool
	}{
		{"quick update", http.MethodPatch, "/quick-update", `{"title":"bob's"}`, false},
		{"quick update, granted", http.MethodPatch, "/quick-update", `{"title":"bob's"}`, true},
		{"lock", http.MethodPost, "/lock", "", false},
		{"lock, granted", http.MethodPost, "/lock", "", true},
	} {
		roles(models.RoleEditor)
		w := a.do(http.MethodPost, "/api/v1/processes/1/lock", "", bearer(alice)...)
		var held struct{ LockToken string }
		if err := json.Unmarshal(w.Body.Bytes(), &held); err != nil || w.Code != http.StatusCreated {
			t.Fatalf("%s: %d %s", row.name, w.Code, w.Body)
		}
		release := func() {
			t.Helper()
			if w := a.do(http.MethodDelete, "/api/v1/processes/1/lock", "", append(bearer(alice), "X-Lock-Token", held.LockToken)...); w.Code != http.StatusNoContent {
				t.Fatalf("%s: %d %s", row.name, w.Code, w.Body)
			}
		}
		answer := make(chan *httptest.ResponseRecorder, 1)
		go func() { answer <- a.do(row.method, "/api/v1/processes/1"+row.path, row.body, bearer(bob)...) }()
		servicestest.Eventually(t, func() bool { return a.waiting(t, alice, "1") == 1 }, "nobody waits")
		roles(models.RoleViewer)
		if row.granted {
			release()
		}
		select {
		case w := <-answer:
			if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "/problems/forbidden") {
				t.Errorf("%s: %d %s", row.name, w.Code, w.Body)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("%s: still waits", row.name)
		}
		if !row.granted {
			release()
		}
		if w := a.do(http.MethodGet, "/api/v1/processes/1", "", bearer(alice)...); strings.Contains(w.Body.String(), "bob's") {
			t.Errorf("%s: written", row.name)
		}
	}
}
