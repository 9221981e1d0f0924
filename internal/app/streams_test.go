package app

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"gatehouse/services/servicestest"
)

// A stream of lock events outlives the server's WriteTimeout behind a proxy, is kept
// alive by heartbeats, and must not be compressed or buffered on its way.
func TestLockEventsThroughAProxyOutliveTheWriteTimeout(t *testing.T) {
	const writeTimeout = 300 * time.Millisecond
	a := startApp(t, nil)
	a.handlers.Heartbeat = 30 * time.Millisecond
	backend := httptest.NewUnstartedServer(a.server.Handler)
	backend.Config.WriteTimeout = writeTimeout
	backend.Start()
	t.Cleanup(backend.Close) // after the streams
	to, err := url.Parse(backend.URL)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(httputil.NewSingleHostReverseProxy(to))
	t.Cleanup(front.Close)
	defer time.AfterFunc(30*time.Second, front.CloseClientConnections).Stop() // or a failing test waits for the stream
	user := a.signIn(t, "alice@example.com")
	stream, header := openStream(t, front.URL, user)
	if got := header.Get("Cache-Control"); !strings.Contains(got, "no-transform") {
		t.Errorf("Cache-Control: %s", got)
	}
	if got := header.Get("X-Accel-Buffering"); got != "no" {
		t.Errorf("X-Accel-Buffering: %s", got)
	}
	heartbeats := 0
	for start := time.Now(); time.Since(start) < 4*writeTimeout; {
		if !stream.Scan() {
			t.Fatalf("the stream ended after %v: %v", time.Since(start), stream.Err())
		}
		if strings.HasPrefix(stream.Text(), ": ") {
			heartbeats++
		}
	}
	if heartbeats < 5 {
		t.Errorf("%d heartbeats", heartbeats)
	}
	if w := a.do(http.MethodPost, "/api/v1/processes/1/lock", "", "Authorization", "Bearer "+user); w.Code != http.StatusCreated {
		t.Fatal(w.Code)
	}
	for stream.Scan() && stream.Text() != "event: acquired" {
		continue
	}
	if stream.Text() != "event: acquired" {
		t.Errorf("no event: %v", stream.Err())
	}
	a.handlers.Drain()
	for stream.Scan() {
		continue
	}
}

// A client that may have missed events is told by the end of its stream.
func TestLockEventsEndWithTheSubscription(t *testing.T) {
	server := servicestest.StartRedis(t)
	proxy := servicestest.NewProxy(t, server.Addr)
	a := startApp(t, map[string]string{"REDIS_URL": "redis://" + proxy.Addr})
	front := httptest.NewServer(a.server.Handler)
	t.Cleanup(front.Close)
	defer time.AfterFunc(30*time.Second, front.CloseClientConnections).Stop() // or a failing test waits for the stream
	user := a.signIn(t, "alice@example.com")
	stream, _ := openStream(t, front.URL, user)
	for range 2 {
		proxy.Reset()
		start := time.Now()
		for stream.Scan() { // to its end, which must come by itself
			continue
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Fatalf("the stream goes on for %v without a subscription", took)
		}
		servicestest.Eventually(t, a.handlers.Redis.Available, "not back")
		stream, _ = openStream(t, front.URL, user)
	}
}

// openStream opens the stream of lock events and reads its first line.
func openStream(t *testing.T, at, user string) (*bufio.Scanner, http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, at+"/api/v1/locks/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+user)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = answer.Body.Close() })
	stream := bufio.NewScanner(answer.Body)
	if answer.StatusCode != http.StatusOK || !stream.Scan() {
		t.Fatalf("%d %v", answer.StatusCode, answer.Header)
	}
	return stream, answer.Header
}

// A user has only so many streams, whatever the session; others have theirs, and a
// stream that has ended makes room.
func TestStreamsOfAUserAreBounded(t *testing.T) {
	a := startApp(t, map[string]string{"STREAMS_PER_USER": "3"})
	front := httptest.NewServer(a.server.Handler)
	t.Cleanup(front.Close)
	defer time.AfterFunc(30*time.Second, front.CloseClientConnections).Stop() // or a failing test waits for the stream
	alice, again, bob := a.signIn(t, "alice@example.com"), a.signIn(t, "alice@example.com"), a.signIn(t, "bob@example.com")
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	ask := func(ctx context.Context, user string) (status int, header http.Header, body string) {
		t.Helper()
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, front.URL+"/api/v1/locks/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+user)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = answer.Body.Close() })
		if answer.StatusCode != http.StatusOK {
			text, _ := io.ReadAll(answer.Body)
			body = string(text)
		}
		return answer.StatusCode, answer.Header, body
	}
	for range 3 {
		if status, _, body := ask(ctx, alice); status != http.StatusOK {
			t.Fatal(status, body)
		}
	}
	for _, token := range []string{alice, again} {
		status, header, body := ask(ctx, token)
		if status != http.StatusTooManyRequests || !strings.Contains(body, "/problems/too-many-streams") ||
			!strings.Contains(body, `"limit":3`) || header.Get("Retry-After") == "" {
			t.Errorf("a stream too many: %d %v %s", status, header, body)
		}
	}
	openStream(t, front.URL, bob)
	leave()
	servicestest.Eventually(t, func() bool {
		status, _, _ := ask(t.Context(), again)
		return status == http.StatusOK
	}, "no room after streams have ended")
	a.handlers.Drain()
}
