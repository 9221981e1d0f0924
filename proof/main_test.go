// Package proof holds gatehouse to its largest promise from the outside: whatever
// goes wrong, no acknowledged edit is lost. `make proof` runs the long version.
package proof

import (
	"bytes"
	"encoding/json"
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
	args := []string{"build", "-buildvcs=false", "-o", binary}
	if servicestest.LongProof() {
		overlay, err := ownClocks(dir)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		args = append(args, "-overlay", overlay)
	}
	out, err := exec.Command("go", append(args, "..")...).CombinedOutput()
	if err != nil {
		fmt.Fprintf(os.Stderr, "build gatehouse: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// clockOffset is the variable of a process built with ownClocks.
const clockOffset = "PROOF_CLOCK_OFFSET"

// ownClocks makes an overlay for go build by which time.Now is so many seconds off
// as the process's environment says. Nothing else can do that to one process: a
// static Go program asks the kernel, past libfaketime, and production has no
// variable for it. All packages are compiled anew, so this is for the long proof.
func ownClocks(dir string) (overlay string, err error) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOROOT: %w", err)
	}
	folder := filepath.Join(string(bytes.TrimSpace(root)), "src", "time")
	source, err := os.ReadFile(filepath.Join(folder, "time.go"))
	if err != nil {
		return "", err
	}
	const read = "\tsec, nsec, mono := runtimeNow()\n"
	if bytes.Count(source, []byte(read)) != 1 {
		return "", errors.New("time.Now of this Go is not as ownClocks knows it")
	}
	files := map[string]string{
		"time.go": strings.Replace(string(source), read, read+"\tsec += clockOffset\n", 1),
		"clock_offset.go": `package time

import "syscall"

var clockOffset = func() (seconds int64) {
	text, _ := syscall.Getenv("` + clockOffset + `")
	n, _ := atoi(text)
	return int64(n)
}()
`,
	}
	replace := map[string]string{}
	for name, text := range files {
		replace[filepath.Join(folder, name)] = filepath.Join(dir, name)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return "", err
		}
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, text, 0o600)
}

// instance is one gatehouse process behind a proxy to Redis of its own.
type instance struct {
	URL   string
	redis *servicestest.Proxy

	cmd    *exec.Cmd
	output *output
}

var served = regexp.MustCompile(`(?:Page +http://|"?serving"?.*"?addr"?[=:]"?)(127\.0\.0\.1:\d+)`)

// start starts an instance and waits until it is ready. In the long proof its clock
// is so many seconds off.
func start(t *testing.T, database string, redis *servicestest.RedisServer, offset int) *instance {
	t.Helper()
	i := &instance{redis: servicestest.NewProxy(t, redis.Addr), output: &output{}}
	i.cmd = exec.Command(binary)
	i.cmd.Dir = t.TempDir()
	i.cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + i.cmd.Dir, "ADDR=127.0.0.1:0", "DATABASE_URL=" + database, "REDIS_URL=redis://" + i.redis.Addr,
		"RATE_LIMIT_MAX=1000000", "RATE_LIMIT_ALGORITHM=gcra", "LOGIN_RATE_LIMIT_MAX=1000", "LOG_LEVEL=warn", fmt.Sprintf("%s=%d", clockOffset, offset),
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
	servicestest.Eventually(t, func() bool {
		if found := served.FindSubmatch(i.output.bytes()); found != nil {
			i.URL = "http://" + string(found[1])
		}
		return i.URL != "" && i.ready()
	}, "gatehouse is not ready")
	if servicestest.LongProof() {
		if off := time.Until(i.clock(t)); (off - time.Duration(offset)*time.Second).Abs() > 2*time.Second {
			t.Fatalf("the clock of an instance is %v off, not %d s", off, offset)
		}
	}
	return i
}

// clock is what the instance says the time is.
func (i *instance) clock(t *testing.T) time.Time {
	t.Helper()
	res, err := http.Get(i.URL + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	now, err := http.ParseTime(res.Header.Get("Date"))
	if err != nil {
		t.Fatal(err)
	}
	return now
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
