// Package proof holds gatehouse to its largest promise from the outside: whatever
// goes wrong, no acknowledged edit is lost. `make proof` runs the long version.
package proof

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"gatehouse/services/servicestest"
)

// binary is the gatehouse that TestMain has built.
var binary string

func TestMain(m *testing.M) {
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "gatehouse-proof-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "gatehouse")
	// Not stamped with the commit: tests also run where there is none.
	out, err := exec.Command("go", "build", "-buildvcs=false", "-o", binary, "..").CombinedOutput()
	if err != nil {
		fmt.Fprintf(os.Stderr, "build gatehouse: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// instance is one gatehouse process behind a proxy to Redis of its own.
type instance struct {
	URL   string
	redis *servicestest.Proxy

	cmd    *exec.Cmd
	output *output
}

var served = regexp.MustCompile(`(?:Page +http://|"?serving"?.*"?addr"?[=:]"?)(127\.0\.0\.1:\d+)`)

// start starts an instance and waits until it is ready.
func start(t *testing.T, database string, redis *servicestest.RedisServer) *instance {
	t.Helper()
	i := &instance{redis: servicestest.NewProxy(t, redis.Addr), output: &output{}}
	i.cmd = exec.Command(binary)
	i.cmd.Dir = t.TempDir()
	i.cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + i.cmd.Dir, "ADDR=127.0.0.1:0", "DATABASE_URL=" + database, "REDIS_URL=redis://" + i.redis.Addr,
		"RATE_LIMIT_MAX=1000000", "RATE_LIMIT_ALGORITHM=gcra", "LOGIN_RATE_LIMIT_MAX=1000", "LOG_LEVEL=warn",
	}
	i.cmd.Stdout, i.cmd.Stderr = i.output, i.output
	i.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := i.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = i.cmd.Process.Kill()
		_ = i.cmd.Wait()
		if bytes.Contains(i.output.bytes(), []byte("panic")) {
			t.Errorf("gatehouse said panic:\n%.4000s", i.output.bytes())
		}
	})
	servicestest.Eventually(t, 20*time.Second, func() bool {
		if found := served.FindSubmatch(i.output.bytes()); found != nil {
			i.URL = "http://" + string(found[1])
		}
		return i.URL != "" && i.ready()
	}, "gatehouse is not ready")
	return i
}

func (i *instance) ready() bool {
	res, err := http.Get(i.URL + "/readyz")
	if err != nil {
		return false
	}
	_ = res.Body.Close()
	return res.StatusCode == http.StatusOK
}

func (i *instance) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := i.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
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

func (o *output) bytes() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Clone(o.buf.Bytes())
}
