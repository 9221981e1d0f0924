package e2e

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"gatehouse/services/servicestest"
)

// app is one instance of gatehouse, and what the tests know of it.
type app struct {
	*servicestest.Gatehouse

	http *http.Client
	slow slowest

	mu      sync.Mutex
	secrets []string // what must never be in its output
}

// start starts an instance that is ready and, when the test ends, ends it and
// holds it to a clean exit. env are NAME=value pairs. Unless env says otherwise
// it has an embedded Redis, a SQLite file with the demo in it, and no rate limit
// that a test meets by accident.
func start(t *testing.T, env ...string) *app {
	t.Helper()
	a := startWithoutRedis(t, env...)
	servicestest.Eventually(t, func() bool {
		return a.anonymous().send(t, "GET /readyz", nil).at(t, "components.redis.status") != "down"
	}, "the instance does not find its Redis")
	return a
}

// startWithoutRedis is start where no server answers in Redis's place.
func startWithoutRedis(t *testing.T, env ...string) *app {
	t.Helper()
	a := launch(t, append([]string{"DATABASE_URL=" + demoDatabase(t)}, env...)...)
	a.WaitReady()
	t.Cleanup(a.Stop)
	return a
}

// demo is a database that an instance has filled and left: hashing the passwords
// for each instance would take most of the tests' time.
var demo struct {
	sync.Mutex
	file []byte
}

// demoDatabase is the path of a new SQLite file with the demo in it.
func demoDatabase(t *testing.T) string {
	t.Helper()
	demo.Lock()
	defer demo.Unlock()
	if demo.file == nil {
		a := launch(t, "REDIS_ENABLED=false")
		a.WaitReady()
		a.Stop()
		content, err := os.ReadFile(filepath.Join(a.Dir, "gatehouse.db"))
		if err != nil {
			t.Fatal(err)
		}
		demo.file = content
	}
	path := filepath.Join(t.TempDir(), "demo.db")
	if err := os.WriteFile(path, demo.file, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// raceDetector in an instance's environment makes it one with the race detector, for tests in
// which many things happen at the same time.
const raceDetector = "GORACE=atexit_sleep_ms=50" // not the second that it sleeps by default

// launch starts an instance, with an empty database, and leaves everything else
// to the test. It is killed when the test ends.
func launch(t *testing.T, env ...string) *app {
	t.Helper()
	program := binary
	if slices.Contains(env, raceDetector) {
		program = raceBinary
	}
	return launchCommand(t, exec.Command(program), env...)
}

// launchCommand is launch for a command that becomes an instance.
func launchCommand(t *testing.T, cmd *exec.Cmd, env ...string) *app {
	t.Helper()
	a := &app{http: &http.Client{
		Transport:     &http.Transport{MaxIdleConnsPerHost: 16, ExpectContinueTimeout: servicestest.Patience},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       servicestest.Patience,
	}}
	t.Cleanup(func() { a.keepsSecrets(t) })
	servicestest.MeasureDisk()
	a.Gatehouse = servicestest.StartGatehouse(t, cmd, append([]string{
		"RATE_LIMIT_MAX=1000", "LOGIN_RATE_LIMIT_MAX=1000",
		// What is there may be slow on a machine that runs other tests, too.
		"REDIS_TIMEOUT=5s", "DATABASE_TIMEOUT=10s",
	}, env...)...)
	t.Cleanup(a.http.CloseIdleConnections)
	return a
}

// keepSecret names what the instance must not log.
func (a *app) keepSecret(secret string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.secrets = append(a.secrets, secret)
}

// keepsSecrets looks for them in all that the instance said in its life.
func (a *app) keepsSecrets(t *testing.T) {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := a.Said()
	for _, secret := range a.secrets {
		if at := strings.Index(all, secret); at >= 0 {
			start := strings.LastIndexByte(all[:at], '\n') + 1
			t.Errorf("a secret is in the log: %.300s", all[start:])
		}
	}
}
