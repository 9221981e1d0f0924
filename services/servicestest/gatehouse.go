package servicestest

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Gatehouse is one instance of the program: a process with an environment of its own.
type Gatehouse struct {
	*Process

	URL string // http://host:port, once it is ready
	Dir string // where it runs

	http *http.Client
}

// BuildGatehouse builds the program, which is in the folder above, into dir, with the flags of go
// build in GOFLAGS, where make test has its own, and with these. It is for TestMain, which has no
// test to fail.
func BuildGatehouse(dir string, flags ...string) (binary string, err error) {
	if built.IsZero() {
		built = time.Now()
		if sources, err = sourcesOf(".."); err != nil {
			return "", err
		}
	}
	// go run keeps what it has linked, go build does not.
	args := slices.Concat([]string{"run", "-buildvcs=false"}, flags, []string{"-exec", `sh -c 'cp "$1" "$0"' '` + dir + `'`, ".."})
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("build gatehouse: %w\n%s", err, out)
	}
	return filepath.Join(dir, "gatehouse"), nil
}

// sources are what the program was built from: the files of this module, and their folders, to
// which one may be added.
var (
	sources []string
	built   time.Time // when BuildGatehouse began
)

func sourcesOf(folder string) ([]string, error) {
	const files = `{{with .Module}}{{if .Main}}{{.GoMod}}
{{range $.GoFiles}}{{$.Dir}}/{{.}}
{{end}}{{range $.EmbedFiles}}{{$.Dir}}/{{.}}
{{end}}{{end}}{{end}}`
	var said strings.Builder
	list := exec.Command("go", "list", "-deps", "-f", files, folder)
	list.Stderr = &said
	out, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("list what gatehouse is built from: %w\n%s", err, said.String())
	}
	found := strings.FieldsFunc(string(out), func(r rune) bool { return r == '\n' })
	root := ""
	for _, file := range found {
		if filepath.Base(file) == "go.mod" {
			root = filepath.Dir(file)
		}
	}
	for _, file := range found {
		if folder := filepath.Dir(file); folder != root { // where tests, too, write
			found = append(found, folder)
		}
	}
	slices.Sort(found)
	return slices.Compact(found), nil
}

// lookAtSources makes the results of tests depend on the program. go test does not know that they
// run it, but notes each file that a test looks at: it would show results of another program, from
// its cache.
var lookAtSources = sync.OnceFunc(func() {
	for _, file := range sources {
		_, _ = os.Stat(file)
	}
})

// Unchanged is an error if the program has changed since BuildGatehouse. go test would take the
// results for those of the program as it is now. TestMain asks at its end.
func Unchanged() error {
	for _, file := range sources {
		if info, err := os.Stat(file); err != nil || info.ModTime().After(built) {
			return fmt.Errorf("%s was changed while its tests ran: run them again", file)
		}
	}
	return nil
}

// StartGatehouse starts cmd, which is an instance or becomes one, on a free port. Unless cmd says
// where, it runs in a new folder. env are NAME=value pairs; nothing else of the environment
// reaches it. When the test ends it is killed, and fails the test if it told of a panic or of a
// data race.
func StartGatehouse(t testing.TB, cmd *exec.Cmd, env ...string) *Gatehouse {
	t.Helper()
	if cmd.Dir == "" {
		cmd.Dir = t.TempDir()
	}
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + cmd.Dir, "ADDR=127.0.0.1:0"}, env...)
	g := &Gatehouse{
		Dir:  cmd.Dir,
		http: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: Patience},
	}
	t.Cleanup(func() { g.inspect(t) })
	g.Process = Start(t, cmd)
	return g
}

// WaitReady waits until the instance answers /readyz with 200.
func (g *Gatehouse) WaitReady() {
	g.t.Helper()
	Eventually(g.t, func() bool {
		if g.HasEnded() {
			g.t.Fatalf("gatehouse ended at its start\n%s", g.Said())
		}
		return g.findURL() && g.ReadyStatus() == http.StatusOK
	}, "gatehouse is not ready")
}

var served = regexp.MustCompile(`(?:Page +http://|"?serving"?.*"?addr"?[=:]"?)(127\.0\.0\.1:\d+)`)

// findURL reads from the instance's own words where it serves.
func (g *Gatehouse) findURL() bool {
	found := served.FindStringSubmatch(g.Stdout.String())
	if found == nil {
		return false
	}
	g.URL = "http://" + found[1]
	return true
}

// ReadyStatus is the status of /readyz, 0 if no server answers.
func (g *Gatehouse) ReadyStatus() int {
	res, err := g.http.Get(g.URL + "/readyz")
	if err != nil {
		return 0
	}
	_ = res.Body.Close()
	return res.StatusCode
}

// Stop ends the instance, unless the test did, and holds it to a clean exit.
func (g *Gatehouse) Stop() {
	g.t.Helper()
	if g.HasEnded() {
		return
	}
	g.StopWith(syscall.SIGTERM)
}

// StopWith ends the instance with a signal and holds it to a clean exit.
func (g *Gatehouse) StopWith(sig os.Signal) {
	g.t.Helper()
	g.Signal(sig)
	if code := g.ExitCode(); code != 0 {
		g.t.Errorf("gatehouse exits with %d after %v\n%s", code, sig, g.lastWords())
	}
}

// Said is all that the instance wrote.
func (g *Gatehouse) Said() string { return g.Stdout.String() + g.Stderr.String() }

func (g *Gatehouse) lastWords() string { return g.Stdout.Last(60) + g.Stderr.String() }

// inspect looks through what the instance said in its life.
func (g *Gatehouse) inspect(t testing.TB) {
	if g.Process == nil {
		return
	}
	for _, bad := range []string{"DATA RACE", "panic", "fatal error:"} {
		if _, after, found := strings.Cut(g.Said(), bad); found {
			t.Errorf("gatehouse said %s%.4000s", bad, after)
		}
	}
	if t.Failed() {
		t.Logf("the last words of gatehouse:\n%s", g.lastWords())
	}
}
