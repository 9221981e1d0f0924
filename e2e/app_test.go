package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gatehouse/services/servicestest"
)

const (
	startPatience = 15 * time.Second // on a machine busy with other tests
	stopPatience  = 20 * time.Second
)

// app is one instance of gatehouse: a process with an environment of its own.
type app struct {
	URL    string        // http://host:port
	Took   time.Duration // from the start of the process until it was ready
	Dir    string        // where it runs
	Stdout *output
	Stderr *output

	cmd     *exec.Cmd
	started time.Time
	exited  chan struct{} // closed when it has ended
	http    *http.Client
	slow    slowest

	mu      sync.Mutex
	secrets []string // what must never be in its output
}

// start starts an instance that is ready and, when the test ends, ends it and
// holds it to a clean exit. env are NAME=value pairs; nothing else of the
// environment reaches it. Unless env says otherwise it has an embedded Redis, a
// SQLite file with the demo in it, and no rate limit that a test meets by accident.
func start(t *testing.T, env ...string) *app {
	t.Helper()
	a := launch(t, append([]string{"DATABASE_URL=" + demoDatabase(t)}, env...)...)
	a.waitReady(t)
	t.Cleanup(func() { a.stop(t) })
	return a
}

// demoFile is a database that an instance has filled with the demo and left:
// hashing the passwords for each instance would take most of the tests' time.
var demoFile = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "gatehouse-demo-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command(binary)
	cmd.Dir, cmd.Env = dir, []string{"ADDR=127.0.0.1:0", "REDIS_ENABLED=false"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdout := &output{}
	cmd.Stdout, cmd.Stderr = stdout, stdout
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	deadline := time.Now().Add(startPatience)
	for !served.MatchString(stdout.String()) && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
	}
	if err := errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()); err != nil {
		return nil, fmt.Errorf("fill the demo database: %w\n%s", err, stdout)
	}
	return os.ReadFile(filepath.Join(dir, "gatehouse.db"))
})

// demoDatabase is the path of a new SQLite file with the demo in it.
func demoDatabase(t *testing.T) string {
	t.Helper()
	content, err := demoFile()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "demo.db")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// launch starts an instance, with an empty database, and leaves everything else
// to the test. It is killed when the test ends.
func launch(t *testing.T, env ...string) *app {
	t.Helper()
	return launchIn(t, t.TempDir(), env...)
}

// launchIn is launch in a directory that the test has prepared.
func launchIn(t *testing.T, dir string, env ...string) *app {
	t.Helper()
	return launchCommand(t, exec.Command(binary), dir, env...)
}

// launchCommand is launchIn for a command that becomes an instance.
func launchCommand(t *testing.T, cmd *exec.Cmd, dir string, env ...string) *app {
	t.Helper()
	a := &app{
		Dir: dir, Stdout: &output{}, Stderr: &output{}, exited: make(chan struct{}),
		http: &http.Client{
			Transport:     &http.Transport{MaxIdleConnsPerHost: 16, ExpectContinueTimeout: time.Minute},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Timeout:       45 * time.Second,
		},
	}
	a.cmd = cmd
	a.cmd.Dir = a.Dir
	a.cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + a.Dir, "GORACE=atexit_sleep_ms=50", // not the second that it sleeps by default
		"ADDR=127.0.0.1:0", "RATE_LIMIT_MAX=1000", "LOGIN_RATE_LIMIT_MAX=1000",
		// A Redis that is there may be slow on a machine that runs other tests, too.
		"REDIS_TIMEOUT=500ms",
	}, env...)
	a.cmd.Stdout, a.cmd.Stderr = a.Stdout, a.Stderr
	// It must not outlive a test binary that is killed.
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	a.started = time.Now()
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = a.cmd.Wait()
		close(a.exited)
	}()
	t.Cleanup(func() {
		_ = a.cmd.Process.Kill()
		<-a.exited
		a.http.CloseIdleConnections()
		a.inspect(t)
	})
	return a
}

// waitReady waits until the instance answers /readyz with 200.
func (a *app) waitReady(t *testing.T) {
	t.Helper()
	servicestest.Eventually(t, func() bool {
		if a.hasExited() {
			t.Fatalf("gatehouse ended at its start\n%s%s", a.Stdout, a.Stderr)
		}
		return a.findURL() && a.readyStatus() == http.StatusOK
	}, "gatehouse is not ready")
	a.Took = time.Since(a.started)
}

var served = regexp.MustCompile(`(?:Page +http://|"?serving"?.*"?addr"?[=:]"?)(127\.0\.0\.1:\d+)`)

// findURL reads from the instance's own words where it serves.
func (a *app) findURL() bool {
	found := served.FindStringSubmatch(a.Stdout.String())
	if found == nil {
		return false
	}
	a.URL = "http://" + found[1]
	return true
}

// readyStatus is the status of /readyz, 0 if nobody answers.
func (a *app) readyStatus() int {
	res, err := a.http.Get(a.URL + "/readyz")
	if err != nil {
		return 0
	}
	res.Body.Close()
	return res.StatusCode
}

func (a *app) hasExited() bool {
	select {
	case <-a.exited:
		return true
	default:
		return false
	}
}

func (a *app) signal(t *testing.T, sig os.Signal) {
	t.Helper()
	if err := a.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// wait returns the exit code of an instance that is about to end.
func (a *app) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-a.exited:
	case <-time.After(stopPatience):
		t.Fatalf("gatehouse does not end\n%s%s", a.Stdout.tail(), a.Stderr)
	}
	return a.cmd.ProcessState.ExitCode()
}

// stop ends the instance, unless the test did, and holds it to a clean exit.
func (a *app) stop(t *testing.T) {
	t.Helper()
	if a.hasExited() {
		return
	}
	if err := a.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	if code := a.wait(t); code != 0 {
		t.Errorf("gatehouse exits with %d after SIGTERM\n%s%s", code, a.Stdout.tail(), a.Stderr)
	}
}

// inspect looks through what the instance has said.
func (a *app) inspect(t *testing.T) {
	all := a.Stdout.String() + a.Stderr.String()
	for _, bad := range []string{"DATA RACE", "panic", "fatal error:"} {
		if at := strings.Index(all, bad); at >= 0 {
			t.Errorf("gatehouse said %q:\n%.4000s", bad, all[at:])
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, secret := range a.secrets {
		if at := strings.Index(all, secret); at >= 0 {
			start := strings.LastIndexByte(all[:at], '\n') + 1
			t.Errorf("a secret is in the log: %.300s", all[start:])
		}
	}
	if t.Failed() {
		t.Logf("the last words of gatehouse:\n%s%s", a.Stdout.tail(), a.Stderr)
	}
}

// keepSecret tells inspect what must not be logged.
func (a *app) keepSecret(secret string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.secrets = append(a.secrets, secret)
}

// output collects what a process writes.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// tail is the end of it, for a failure's log.
func (o *output) tail() string {
	lines := strings.SplitAfter(o.String(), "\n")
	return strings.Join(lines[max(0, len(lines)-60):], "")
}
