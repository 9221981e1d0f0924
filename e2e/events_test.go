package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"gatehouse/services/servicestest"
)

// events opens the stream of lock events; the channel gets "name resource email"
// of each and is closed when the stream ends, at the latest after the client's patience.
func (c *client) events(t *testing.T) <-chan string {
	t.Helper()
	return c.eventsOf(t, "")
}

// eventsOf is events with a query, as pages have one: "name resource waiting" of those that say
// nothing but who waits.
func (c *client) eventsOf(t *testing.T, query string) <-chan string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.app.URL+"/api/v1/locks/events"+query, http.NoBody)
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
			err := json.Unmarshal([]byte(data), &doc)
			if query != "" && member(doc, "waiting") == true && doc["at"] != nil && len(doc) == 3 { // and who asked, or what, is not told
				seen <- fmt.Sprint(name, " ", doc["resource"], " waiting")
				continue
			}
			if err != nil || doc["at"] == nil || member(doc, "fence") == absent || len(doc) != 4 {
				t.Errorf("not an event: %s", data)
			}
			seen <- fmt.Sprint(name, " ", doc["resource"], " ", member(doc, "holder.email"))
		}
	}()
	return seen
}

// eventsTell: each event is told, in order.
func (w *world) eventsTell(t *testing.T) {
	events := w.viewer.events(t)
	wants := func(what string) {
		t.Helper()
		if got := <-events; got != what+" process:3 "+w.alice.email {
			t.Fatalf("the event is %q, want %s", got, what)
		}
	}
	token := "X-Lock-Token: " + w.acquire(t, w.alice, "3", nil).text(t, "lockToken")
	wants("acquired")
	w.alice.call(t, "POST /processes/3/lock/extend", nil, token).is(t, 200)
	wants("extended")
	w.alice.call(t, "DELETE /processes/3/lock", nil, token).is(t, 204)
	wants("released")
	w.acquire(t, w.alice, "3", map[string]any{"ttl": 1})
	wants("acquired")
	wants("expired")
	w.acquire(t, w.alice, "3", nil)
	wants("acquired")
	w.admin.call(t, "DELETE /locks/process:3?reason=told", nil).is(t, 204)
	wants("forced")
}

// eventsOfWaiting: a page hears that others wait, which it shows; who is a program hears what the
// contract says, and nothing else.
func (w *world) eventsOfWaiting(t *testing.T) {
	page, program := w.viewer.eventsOf(t, "?user="+w.viewer.id), w.viewer.events(t)
	held := w.acquire(t, w.alice, "3", nil).text(t, "lockToken")
	request := w.bob.call(t, "POST /processes/3/lock/requests", nil).is(t, 201).text(t, "id")
	w.bob.call(t, "DELETE /processes/3/lock/requests/"+request, nil).is(t, 204)
	w.bob.call(t, "POST /processes/3/lock", nil, "Prefer: wait=1").problem(t, 423, "locked")
	heard := []string{<-page}
	for len(heard) < 5 { // asked for, not any more, in the queue, not any more
		heard = append(heard, <-page)
	}
	w.alice.call(t, "DELETE /processes/3/lock", nil, "X-Lock-Token: "+held).is(t, 204)
	for i, event := range heard {
		if want := "extended process:3 waiting"; i > 0 && event != want {
			t.Errorf("the page hears %q, want %s", event, want)
		}
	}
	for _, what := range []string{"acquired", "released"} {
		if got := <-program; got != what+" process:3 "+w.alice.email {
			t.Errorf("a program hears %q, want %s", got, what)
		}
	}
}

func (w *world) eventsEndWithTheSession(t *testing.T) {
	w.anonymous().call(t, "GET /locks/events", nil).problem(t, 401, "unauthenticated")
	leaving := w.app.signIn(t, w.viewer.email)
	events := leaving.events(t)
	out := time.Now()
	leaving.call(t, "POST /auth/logout", nil).is(t, 204)
	if got := <-events; got != "" {
		t.Errorf("after its session the stream tells %q", got)
	}
	if took := time.Since(out); took > 2*time.Second+servicestest.Slack(out) {
		t.Errorf("the stream ended %v after its session", took)
	}
}

func (w *world) eventsEndWithTheInstance(t *testing.T) {
	events := w.viewer.events(t)
	began := time.Now()
	w.app.Stop()
	if took := time.Since(began); took > 5*time.Second+servicestest.Slack(began) {
		t.Errorf("with an open stream it takes %v to end", took)
	}
	if got := <-events; got != "" {
		t.Errorf("at the end the stream tells %q", got)
	}
}
