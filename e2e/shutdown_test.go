package e2e

import (
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"syscall"
	"testing"
	"time"

	"gatehouse/services/servicestest"
)

// beginCreate sends a request whose body ends only when finish is called. It
// returns when the server is reading that body.
func (c *client) beginCreate(t *testing.T, title string) (finish func() (status int, err error)) {
	t.Helper()
	body, write := io.Pipe()
	t.Cleanup(func() { write.Close() })
	reading := make(chan struct{})
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got100Continue: func() { close(reading) }})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.app.URL+"/api/v1/processes", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Expect", "100-continue")
	type result struct {
		status int
		err    error
	}
	done := make(chan result, 1)
	go func() {
		res, err := c.app.http.Do(req)
		if err != nil {
			done <- result{0, err}
			return
		}
		res.Body.Close()
		done <- result{res.StatusCode, nil}
	}()
	select {
	case <-reading:
	case got := <-done:
		t.Fatalf("answered before its body was sent: %d %v", got.status, got.err)
	}
	if _, err := io.WriteString(write, `{"title":`); err != nil {
		t.Fatal(err)
	}
	return func() (int, error) {
		go func() {
			_, _ = io.WriteString(write, `"`+title+`"}`)
			write.Close()
		}()
		got := <-done
		return got.status, got.err
	}
}

// TestShutdownDropsNothing stops an instance under requests of all kinds: each
// gets an answer, and waiting ones leave no lock behind.
func TestShutdownDropsNothing(t *testing.T) {
	t.Parallel()
	redis := servicestest.StartRedis(t)
	env := []string{raceDetector, "REDIS_URL=redis://" + redis.Addr, "DATABASE_URL=" + demoDatabase(t)}
	const delay = 5 * time.Second // time for all that is asked in it
	w := &world{app: start(t, append(env, "SHUTDOWN_DELAY="+delay.String())...)}
	w.alice, w.bob, w.viewer = w.app.signIn(t, "alice@example.com"), w.app.signIn(t, "bob@example.com"), w.app.signIn(t, "viewer@example.com")
	w.acquire(t, w.alice, "1", nil)
	waiting := []func() *answer{
		w.bob.waitFor(t, "POST /processes/1/lock", nil, "Prefer: wait=20"),
		w.alice.waitFor(t, "POST /processes/1/lock", nil, "Prefer: wait=30"),
		w.bob.waitFor(t, "PATCH /processes/1/quick-update", map[string]any{"title": "never"}, "Prefer: wait=20"),
	}
	w.waiting(t, w.viewer, "1", int64(len(waiting)))
	titles := []string{"slow one", "slow two", "slow three"}
	var slow []func() (int, error)
	for _, title := range titles {
		slow = append(slow, w.alice.beginCreate(t, title))
	}
	signedIn := w.anonymous().waitFor(t, "POST /auth/login", credentials(w.bob.email, demoPassword))

	w.app.Signal(syscall.SIGTERM)
	stopped := time.Now()
	servicestest.Eventually(t, func() bool { return w.app.ReadyStatus() == 503 }, "/readyz does not answer 503 in the delay")
	w.anonymous().send(t, "GET /readyz", nil).is(t, 503).with(t, "status", "unavailable").with(t, "components.database.status", "ok")
	late := []func() *answer{ // the load balancer has not noticed yet
		w.alice.waitFor(t, "GET /processes", nil), w.alice.waitFor(t, "POST /processes/2/lock", nil),
		w.alice.waitFor(t, "PATCH /processes/3/quick-update", map[string]any{"description": "late"}),
	}
	w.anonymous().send(t, "GET /healthz", nil).is(t, 200)
	for i, status := range []int{200, 201, 200} {
		late[i]().is(t, status)
	}
	for _, answered := range waiting {
		answered().problem(t, 503, "unavailable")
	}
	if took := time.Since(stopped) - delay; took > time.Second+servicestest.Slack(stopped) {
		t.Errorf("waiting requests were answered %v after the delay", took)
	}
	signedIn().is(t, 200)
	servicestest.Eventually(t, func() bool { return w.app.ReadyStatus() == 0 }, "still open after the delay")
	for i, finish := range slow {
		if w.app.HasEnded() {
			t.Fatal("it ended under a request")
		}
		if status, err := finish(); err != nil || status != 201 {
			t.Errorf("%s: %d %v", titles[i], status, err)
		}
	}
	if code := w.app.ExitCode(); code != 0 {
		t.Errorf("exit code %d: %s", code, &w.app.Stderr)
	}

	// Another instance finds all of it, every user still signed in, and the lock as it was.
	w.app = start(t, env...)
	w.viewer = w.viewer.at(w.app)
	list := w.viewer.call(t, "GET /processes", nil).is(t, 200)
	for _, title := range titles {
		if list.item(t, "title", title) == nil {
			t.Errorf("%q was acknowledged and is not there", title)
		}
	}
	if list.item(t, "title", "never") != nil {
		t.Error("a quick update that was refused has been carried out")
	}
	w.viewer.call(t, "GET /processes/1/lock/status", nil).is(t, 200).with(t, "holder.userId", w.alice.id)
	w.waiting(t, w.viewer, "1", 0)
}

// A connection on which nothing was sent, such as a browser opens ahead, is no request.
func TestShutdownOfASilentConnection(t *testing.T) {
	t.Parallel()
	a := launch(t, "SHUTDOWN_TIMEOUT=300ms", "DATABASE_URL="+demoDatabase(t))
	a.WaitReady()
	conn, err := net.Dial("tcp", strings.TrimPrefix(a.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	a.anonymous().call(t, "GET /auth/session", nil).is(t, 401) // by now the connection is accepted
	a.Signal(syscall.SIGTERM)
	if code := a.ExitCode(); code != 0 {
		t.Errorf("exit code %d: %s", code, &a.Stderr)
	}
}

func TestShutdownCutsOff(t *testing.T) {
	t.Parallel()
	a := launch(t, "SHUTDOWN_TIMEOUT=300ms", "DATABASE_URL="+demoDatabase(t))
	a.WaitReady()
	finish := a.signIn(t, "alice@example.com").beginCreate(t, "too slow")
	a.Signal(syscall.SIGTERM)
	if code := a.ExitCode(); code != 1 || !strings.Contains(a.Stderr.String(), "SHUTDOWN_TIMEOUT") {
		t.Errorf("exit code %d: %s", code, &a.Stderr)
	}
	if status, err := finish(); err == nil {
		t.Errorf("a request that was cut off got %d", status)
	}
}

// TestShutdownIsQuick: with nothing to wait for an instance ends at once, also
// when Redis or the database does not answer any more.
func TestShutdownIsQuick(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(t *testing.T) (a *app, sig syscall.Signal){
		"idle":      func(t *testing.T) (*app, syscall.Signal) { return start(t), syscall.SIGTERM },
		"interrupt": func(t *testing.T) (*app, syscall.Signal) { return start(t), syscall.SIGINT },
		"Redis-frozen": func(t *testing.T) (*app, syscall.Signal) {
			redis := servicestest.StartRedis(t)
			a := start(t, "REDIS_URL=redis://"+redis.Addr, redisTimeout)
			a.signIn(t, "alice@example.com").call(t, "POST /processes/1/lock", nil).is(t, 201)
			redis.Freeze()
			return a, syscall.SIGTERM
		},
		"database-frozen": func(t *testing.T) (*app, syscall.Signal) {
			database := servicestest.StartPostgresServer(t)
			a := start(t, "DATABASE_URL="+database.URL, "DATABASE_TIMEOUT=5s")
			a.signIn(t, "alice@example.com").call(t, "GET /auth/session", nil).is(t, 200)
			database.Freeze()
			return a, syscall.SIGTERM
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, sig := prepare(t)
			began := time.Now()
			a.Signal(sig)
			if code := a.ExitCode(); code != 0 {
				t.Errorf("exit code %d: %s", code, &a.Stderr)
			}
			if took := time.Since(began); took > 5*time.Second+servicestest.Slack(began) {
				t.Errorf("it took %v to end", took)
			}
		})
	}
}
