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
	"strings"
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
	flags := []string{"-race=false"}
	if servicestest.LongProof() {
		overlay, err := ownClocks(dir)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		flags = []string{"-overlay", overlay}
	}
	binary, err = servicestest.BuildGatehouse(dir, flags...)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if err := servicestest.Unchanged(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
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
	*servicestest.Gatehouse
	redis *servicestest.Proxy
}

// start starts an instance and waits until it is ready. In the long proof its clock
// is so many seconds off.
func start(t *testing.T, database string, redis *servicestest.RedisServer, offset int) *instance {
	t.Helper()
	i := &instance{redis: servicestest.NewProxy(t, redis.Addr)}
	i.Gatehouse = servicestest.StartGatehouse(t, exec.Command(binary),
		"DATABASE_URL="+database, "REDIS_URL=redis://"+i.redis.Addr, "RATE_LIMIT_MAX=1000000", "RATE_LIMIT_ALGORITHM=gcra",
		"LOGIN_RATE_LIMIT_MAX=1000", "LOG_LEVEL=warn",
		"GORACE=atexit_sleep_ms=50", // not the second that the race detector sleeps by default
		fmt.Sprintf("%s=%d", clockOffset, offset))
	i.WaitReady()
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
