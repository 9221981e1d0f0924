package e2e

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"gatehouse/services/servicestest"
)

const (
	fewFiles    = 128
	streamsEach = 20 // the default of STREAMS_PER_USER
)

// TestCrowdOfConnections: with room for few files, one viewer's streams, requests that
// wait and connections that nothing is sent on shut no other client out.
func TestCrowdOfConnections(t *testing.T) {
	t.Parallel()
	limited := exec.Command("sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$0"`, fewFiles), raceBinary)
	a := launchCommand(t, limited, raceDetector, "DATABASE_URL="+demoDatabase(t))
	a.WaitReady()
	t.Cleanup(a.Stop)
	viewer, alice := a.signIn(t, "viewer@example.com"), a.signIn(t, "alice@example.com")
	viewer.app = a.withClient(&http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1000}})

	begun, open := viewer.openStreams(t, 150)
	if begun < streamsEach {
		t.Errorf("%d streams have begun, there is room for %d", begun, streamsEach)
	}
	// Of the instance's own accord one ends, where it may have missed events, before another begins.
	servicestest.Eventually(t, func() bool { return open.Load() <= streamsEach }, "more streams are open than a user may have")
	alice.served(t, "beside the streams")

	for range 300 {
		conn, err := net.Dial("tcp", strings.TrimPrefix(a.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
	}
	alice.served(t, "beside silent connections")

	for i := range 300 {
		conn, err := net.Dial("tcp", strings.TrimPrefix(a.URL, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		what := []string{"GET /healthz", "POST /nowhere", "DELETE /api/v1/auth/logout"}[i%3]
		if _, err := fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n", what); err != nil && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Fatal(err)
		}
	}
	alice.served(t, "beside requests whose bodies do not come")

	// Of those who would wait for a lock only some may; the others are told at once.
	lock := alice.call(t, "POST /processes/1/lock", nil).is(t, 201).text(t, "lockToken")
	bob := a.signIn(t, "bob@example.com")
	bob.app = a.withClient(&http.Client{Timeout: servicestest.Patience})
	answers := make(chan *answer, 60)
	for range cap(answers) {
		go func() { answers <- bob.call(t, "POST /processes/1/lock", nil, "Prefer: wait=30") }()
	}
	waiting := func() int {
		return int(alice.call(t, "GET /processes/1/lock/status", nil).is(t, 200).number(t, "waiting"))
	}
	servicestest.Eventually(t, func() bool { return waiting() == 10 }, "not as many wait as there is room for")
	alice.served(t, "beside waiting requests")
	servicestest.Eventually(t, func() bool { return a.files(t) <= fewFiles-10 }, "nearly all files stay open")
	alice.call(t, "DELETE /processes/1/lock", nil, "X-Lock-Token: "+lock).is(t, 204)
	applied := 0
	for range cap(answers) {
		got := <-answers
		if got.Header.Get("Preference-Applied") != "" {
			applied++
		}
		if got.Status != 201 {
			got.problem(t, 423, "locked")
			continue
		}
		bob.call(t, "DELETE /processes/1/lock", nil, "X-Lock-Token: "+got.text(t, "lockToken")).is(t, 204)
	}
	if applied != 10 {
		t.Errorf("%d waited, want 10", applied)
	}
}

// withClient is the same instance seen with other connections.
func (a *app) withClient(client *http.Client) *app {
	client.Transport = onceMore{cmp.Or(client.Transport, http.DefaultTransport)}
	return &app{Gatehouse: a.Gatehouse, http: client}
}

// onceMore asks again on another connection if the first was closed: where there is room for few, a
// busy machine may be too late with the request of one.
type onceMore struct{ http.RoundTripper }

func (o onceMore) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := o.RoundTripper.RoundTrip(r)
	if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		return res, err
	}
	if r.GetBody != nil {
		if r.Body, err = r.GetBody(); err != nil {
			return nil, err
		}
	}
	return o.RoundTripper.RoundTrip(r)
}

// openStreams asks for so many event streams at the same time, each on a connection of its
// own that stays open until the test ends, and returns how many have begun, and are open.
func (c *client) openStreams(t *testing.T, asked int) (begun int32, open *atomic.Int32) {
	t.Helper()
	var given atomic.Int32
	var all sync.WaitGroup
	open = new(atomic.Int32)
	for range asked {
		all.Go(func() {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.app.URL+"/api/v1/locks/events", http.NoBody)
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("Authorization", "Bearer "+c.token)
			res, err := c.app.http.Do(req) //nolint:bodyclose // a stream is read, and closed, beside this
			if err != nil {                // it was closed to make room for another, just before its request came
				return
			}
			if res.StatusCode == http.StatusOK {
				given.Add(1)
				open.Add(1)
				go func() {
					defer res.Body.Close()
					_, _ = io.Copy(io.Discard, res.Body)
					open.Add(-1)
				}()
				return
			}
			defer res.Body.Close()
			body, _ := io.ReadAll(res.Body)
			if res.StatusCode != http.StatusTooManyRequests || !strings.Contains(string(body), "/problems/too-many-streams") {
				t.Errorf("a stream too many: %d %s", res.StatusCode, body)
			}
		})
	}
	all.Wait()
	return given.Load(), open
}

// served checks that another user is answered, each time on a new connection.
func (c *client) served(t *testing.T, when string) {
	t.Helper()
	fresh := c.at(c.app.withClient(&http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: servicestest.Patience}))
	for range 5 {
		for _, path := range []string{"/healthz", "/readyz", "/api/v1/auth/session"} {
			if got := fresh.send(t, "GET "+path, nil); got.Status != http.StatusOK {
				t.Fatalf("%s: %s: %d %s", when, path, got.Status, got.Body)
			}
		}
	}
}

// files is how many files, connections included, the instance has open.
func (a *app) files(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", a.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d files are open", len(entries))
	return len(entries)
}
