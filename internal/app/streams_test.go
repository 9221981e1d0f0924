package app

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/services/servicestest"
)

// stream is what a client has read of the lock events so far.
type stream struct {
	servicestest.LogLines
	header http.Header
	ended  chan struct{}
}

// onSocket is the application on a socket.
func (a *app) onSocket(t *testing.T) (address string) {
	t.Helper()
	server := httptest.NewServer(a.server.Handler)
	t.Cleanup(server.Close) // after the streams, which end with the test's context
	return server.URL
}

func ask(ctx context.Context, t *testing.T, address, token string, query ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/api/v1/locks/events"+strings.Join(query, ""), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = answer.Body.Close() })
	return answer
}

func openStream(t *testing.T, address, token string) *stream {
	t.Helper()
	answer := ask(t.Context(), t, address, token) //nolint:bodyclose // ask does, at the end of the test
	if answer.StatusCode != http.StatusOK || answer.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%d %v", answer.StatusCode, answer.Header)
	}
	s := follow(answer)
	s.has(t, "retry: 1000\n")
	return s
}

// follow reads a stream until it ends.
func follow(answer *http.Response) *stream {
	s := &stream{header: answer.Header, ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		_, _ = io.Copy(s, answer.Body)
	}()
	return s
}

func (s *stream) has(t *testing.T, text string) {
	t.Helper()
	servicestest.Eventually(t, func() bool { return strings.Contains(s.String(), text) }, "no "+text)
}

func (s *stream) hasEnded() bool { return isClosed(s.ended) }

func (s *stream) ends(t *testing.T, why string) {
	t.Helper()
	servicestest.Eventually(t, s.hasEnded, "the stream goes on: "+why)
}

func TestLockEventsAreStreamed(t *testing.T) {
	t.Parallel()
	a := startApp(t, nil)
	address := a.onSocket(t)
	admin, alice := a.signIn(t, "admin@example.com"), a.signIn(t, "alice@example.com")
	s := openStream(t, address, alice)
	decoded[any](t, a.api(alice, http.MethodPost, "/processes/1/lock", ""), http.StatusCreated)
	if w := a.api(admin, http.MethodDelete, "/locks/process:1?reason=x", ""); w.Code != http.StatusNoContent {
		t.Fatal(w.Code)
	}
	s.has(t, `"resource":"process:1","holder":{"userId":"2","email":"alice@example.com"},"fence":`)
	s.has(t, "event: forced")
	if got := s.With("event: "); !slices.Equal(got, []string{"event: acquired\n", "event: forced\n"}) {
		t.Errorf("%q", got)
	}
	if w := a.api(alice, http.MethodPost, "/auth/logout", ""); w.Code != http.StatusNoContent {
		t.Fatal(w.Code)
	}
	servicestest.Within(t, 2*time.Second, s.hasEnded, "the stream goes on: its session has ended")
	s = openStream(t, address, admin)
	a.handlers.Drain()
	s.ends(t, "the server shuts down")
}

// A page that another user has left open asks with the cookie of who is signed in now: it names its
// own user, and gets no events of another one.
func TestStreamsAreOfTheUserNamed(t *testing.T) {
	t.Parallel()
	a := startApp(t, nil)
	address, alice := a.onSocket(t), a.signIn(t, "alice@example.com")
	for query, want := range map[string]int{
		"?user=2": http.StatusOK, "?user=1": http.StatusForbidden, "?user=": http.StatusForbidden, "?user=2&user=2": http.StatusUnprocessableEntity,
	} {
		if answer := ask(t.Context(), t, address, alice, query); answer.StatusCode != want { //nolint:bodyclose // ask does, at the end of the test
			t.Errorf("%s: %d, want %d", query, answer.StatusCode, want)
		}
	}
}

// A stream of lock events is kept alive by heartbeats, and must not be compressed or buffered on
// its way.
func TestStreamsOutliveTheWriteTimeout(t *testing.T) {
	t.Parallel()
	const writeTimeout = 100 * time.Millisecond
	a := startApp(t, nil)
	a.handlers.Heartbeat = writeTimeout / 10
	backend := httptest.NewUnstartedServer(a.server.Handler)
	backend.Config.WriteTimeout = writeTimeout
	backend.Start()
	t.Cleanup(backend.Close)
	to, err := url.Parse(backend.URL)
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewServer(httputil.NewSingleHostReverseProxy(to))
	t.Cleanup(front.Close)
	alice := a.signIn(t, "alice@example.com")
	began := time.Now()
	s := openStream(t, front.URL, alice)
	if cache, buffer := s.header.Get("Cache-Control"), s.header.Get("X-Accel-Buffering"); !strings.Contains(cache, "no-transform") || buffer != "no" {
		t.Errorf("Cache-Control %q, X-Accel-Buffering %q", cache, buffer)
	}
	servicestest.Eventually(t, func() bool {
		return s.hasEnded() || time.Since(began) > 4*writeTimeout && len(s.With(": ")) > 5
	}, "no heartbeats")
	decoded[any](t, a.api(alice, http.MethodPost, "/processes/1/lock", ""), http.StatusCreated)
	s.has(t, "event: acquired")
}

// A client that may have missed events is told by the end of its stream.
func TestStreamsEndWithTheSubscription(t *testing.T) {
	t.Parallel()
	proxy := servicestest.NewProxy(t, servicestest.StartRedis(t).Addr)
	a := startApp(t, map[string]string{"REDIS_URL": "redis://" + proxy.Addr})
	address, alice := a.onSocket(t), a.signIn(t, "alice@example.com")
	for range 2 {
		a.available(t, true)
		s := openStream(t, address, alice)
		proxy.Reset()
		s.ends(t, "there is no subscription")
	}
}

// A user has only so many streams, whatever the session; others have theirs, and a
// stream that has ended makes room.
func TestStreamsOfAUserAreBounded(t *testing.T) {
	t.Parallel()
	a := startApp(t, map[string]string{"STREAMS_PER_USER": "3"})
	address := a.onSocket(t)
	alice, again, bob := a.signIn(t, "alice@example.com"), a.signIn(t, "alice@example.com"), a.signIn(t, "bob@example.com")
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	var streams []*stream
	open := func() (n int) {
		for _, s := range streams {
			if !s.hasEnded() {
				n++
			}
		}
		return n
	}
	for _, token := range []string{alice, again} {
		answer := ask(ctx, t, address, token)    //nolint:bodyclose // ask does, at the end of the test
		for answer.StatusCode == http.StatusOK { // the first three, and one for each that a busy machine has ended meanwhile
			streams = append(streams, follow(answer))
			servicestest.Eventually(t, func() bool { return open() <= 3 }, "more than three streams of a user are open")
			answer = ask(ctx, t, address, token) //nolint:bodyclose // ask does, at the end of the test
		}
		if len(streams) < 3 {
			t.Errorf("%d streams may be open, want 3", len(streams))
		}
		body, err := io.ReadAll(answer.Body)
		if err != nil || answer.StatusCode != http.StatusTooManyRequests || !strings.Contains(string(body), "/problems/too-many-streams") ||
			!strings.Contains(string(body), `"limit":3`) || answer.Header.Get("Retry-After") == "" {
			t.Errorf("a stream too many: %d %v %s, %v", answer.StatusCode, answer.Header, body, err)
		}
	}
	openStream(t, address, bob)
	leave()
	servicestest.Eventually(t, func() bool {
		return ask(t.Context(), t, address, again).StatusCode == http.StatusOK //nolint:bodyclose // ask does, at the end of the test
	}, "no room after streams have ended")
}
