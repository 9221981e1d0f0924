package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"gatehouse/services/servicestest"
)

// stillSession is how long an open request may outlive what is known of its session:
// copies count for 2 s, it asks every second, and the database takes a second not to
// answer. The rest is for a busy machine.
const stillSession = (2+1+1)*time.Second + time.Second

// call sends a request that may take long to a server of the application.
func call(ctx context.Context, t *testing.T, url, token, method, path string, headers ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, url+"/api/v1"+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = answer.Body.Close() })
	return answer
}

// An instance that is cut off from the database cannot hear of a revoke: what is
// open there ends, as a new request would be refused.
func TestOpenRequestsEndWithoutTheDatabase(t *testing.T) {
	database := servicestest.StartPostgresServer(t)
	a := startApp(t, map[string]string{"DATABASE_URL": database.URL, "DATABASE_TIMEOUT": "1s"})
	server := httptest.NewServer(a.server.Handler)
	defer server.Close()
	alice := a.signIn(t, "alice@example.com")
	if answer := call(t.Context(), t, server.URL, alice, http.MethodPost, "/processes/1/lock"); answer.StatusCode != http.StatusCreated {
		t.Fatal(answer.StatusCode)
	}
	open, hangUp := context.WithCancel(t.Context())
	defer hangUp() // or a failing test waits for it
	stream := call(open, t, server.URL, alice, http.MethodGet, "/locks/events")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, stream.Body)
	}()
	waited := make(chan int, 1)
	go func() {
		waited <- a.do(http.MethodPost, "/api/v1/processes/1/lock", "", "Authorization", "Bearer "+alice, "Prefer", "wait=30").Code
	}()
	servicestest.Eventually(t, 5*time.Second, func() bool { return a.waiting(t, alice, "1") == 1 }, "nobody waits")

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
