package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// events opens the stream of lock events; the channel gets "name resource email"
// of each and is closed when the stream ends.
func (c *client) events(t *testing.T) <-chan string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.app.URL+"/api/v1/locks/events", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	res, err := c.app.http.Do(req) //nolint:bodyclose // closed by the reader below
	if err != nil {
		t.Fatal(err)
	}
	if kind := res.Header.Get("Content-Type"); res.StatusCode != http.StatusOK || !strings.HasPrefix(kind, "text/event-stream") {
		t.Fatalf("the stream: %d %s", res.StatusCode, kind)
	}
	seen := make(chan string, 100)
	go func() {
		defer close(seen)
		defer res.Body.Close()
		name := ""
		for lines := bufio.NewScanner(res.Body); lines.Scan(); {
			if event, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
				name = event
			}
			data, ok := strings.CutPrefix(lines.Text(), "data: ")
			if !ok {
				continue
			}
			var doc map[string]any
			if err := json.Unmarshal([]byte(data), &doc); err != nil || doc["at"] == nil || member(doc, "fence") == absent || len(doc) != 4 {
				t.Errorf("not an event: %s", data)
			}
			seen <- fmt.Sprint(name, " ", doc["resource"], " ", member(doc, "holder.email"))
		}
	}()
	return seen
}

// next waits for the next event, "" at the end of the stream.
func next(t *testing.T, events <-chan string, within time.Duration) string {
	t.Helper()
	select {
	case event := <-events:
		return event
	case <-time.After(within):
		t.Fatalf("no event within %v", within)
		return ""
	}
}

// TestEvents: the stream tells what happens to locks, wherever Redis is, and ends
// with the session and with the server.
func TestEvents(t *testing.T) {
	for name, env := range redisModes() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &world{app: start(t, env(t)), degraded: name == "without-redis"}
			w.alice, w.admin, w.viewer = w.app.signIn(t, "alice@example.com"), w.app.signIn(t, "admin@example.com"), w.app.signIn(t, "viewer@example.com")
			w.anonymous().call(t, "GET /locks/events", nil).problem(t, 401, "unauthenticated")
			events, ending := w.viewer.events(t), w.app.signIn(t, "viewer@example.com")
			wants := func(what string) {
				t.Helper()
				if got := next(t, events, 3*time.Second); got != what+" process:1 "+w.alice.email {
					t.Fatalf("the event is %q, want %s", got, what)
				}
			}
			token := "X-Lock-Token: " + w.acquire(t, w.alice, "1", nil).text(t, "lockToken")
			wants("acquired")
			w.alice.call(t, "POST /processes/1/lock/extend", nil, token).is(t, 200)
			wants("extended")
			w.alice.call(t, "DELETE /processes/1/lock", nil, token).is(t, 204)
			wants("released")
			w.acquire(t, w.alice, "1", map[string]any{"ttl": 1})
			wants("acquired")
			wants("expired")
			w.acquire(t, w.alice, "1", nil)
			wants("acquired")
			w.admin.call(t, "DELETE /locks/process:1?reason=told", nil).is(t, 204)
			wants("forced")

			cut := ending.events(t)
			ending.call(t, "POST /auth/logout", nil).is(t, 204)
			if got := next(t, cut, 3*time.Second); got != "" {
				t.Errorf("after its session the stream tells %q", got)
			}

			stopped := time.Now()
			w.app.Signal(syscall.SIGTERM)
			if got := next(t, events, 3*time.Second); got != "" {
				t.Errorf("at the end the stream tells %q", got)
			}
			if code := w.app.ExitCode(); code != 0 {
				t.Errorf("exit code %d: %s", code, &w.app.Stderr)
			}
			if took := time.Since(stopped); took > 4*time.Second {
				t.Errorf("it took %v to end", took)
			}
		})
	}
}
