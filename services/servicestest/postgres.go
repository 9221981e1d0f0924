package servicestest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// Postgres is a real PostgreSQL server that a test may freeze and stop. It ends
// with the test, or with the test binary, however that ends.
type Postgres struct {
	URL  string // of a new, empty database
	Addr string // host:port, for a proxy

	dir    string
	pid    int
	guard  io.WriteCloser // a line starts the server again, closing it ends the server
	pids   *bufio.Reader  // a line for each start
	exited chan struct{}  // closed when it has ended
	frozen []int
}

// StartPostgres returns the URL of a new, empty database. The server is shared
// by the whole test binary: do not stop it, use StartPostgresServer for that.
func StartPostgres(t testing.TB) (url string) {
	t.Helper()
	server, name := newDatabase(t)
	t.Cleanup(func() {
		if err := server.admin("dropdb", "--force", name); err != nil {
			t.Error(err)
		}
	})
	return server.url(name)
}

// KeptPostgres is StartPostgres for a database that several tests share: it ends with the test
// binary.
func KeptPostgres(t testing.TB) (url string) {
	t.Helper()
	server, name := newDatabase(t)
	return server.url(name)
}

func newDatabase(t testing.TB) (server *Postgres, name string) {
	t.Helper()
	needPostgres(t)
	server, err := sharedPostgres()
	if err != nil {
		t.Fatal(err)
	}
	name = fmt.Sprintf("test_%d", databases.Add(1))
	if err := server.admin("createdb", name); err != nil {
		t.Fatal(err)
	}
	return server, name
}

// StartPostgresServer starts a server for this test alone. Settings, name=value, come on top of
// those of all servers here, which trade what a crash may lose for speed.
func StartPostgresServer(t testing.TB, settings ...string) *Postgres {
	t.Helper()
	needPostgres(t)
	server, err := startPostgres(settings...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	server.URL = server.url("postgres")
	return server
}

var (
	databases      atomic.Int64
	sharedPostgres = sync.OnceValues(func() (*Postgres, error) { return startPostgres() })
)

// Freeze stops all processes of the server, as if its machine hung: connections
// stay open and nothing answers.
func (p *Postgres) Freeze() {
	signal([]int{p.pid}, syscall.SIGSTOP) // no new children from here on
	p.frozen = append(childrenOf(p.pid), p.pid)
	signal(p.frozen, syscall.SIGSTOP)
}

// Thaw lets a frozen server go on where it was.
func (p *Postgres) Thaw() {
	signal(p.frozen, syscall.SIGCONT)
	p.frozen = nil
}

// Stop ends the server at once, as a crash would, and deletes its data.
func (p *Postgres) Stop() {
	p.Thaw()
	p.guard.Close()
	<-p.exited
}

// Kill ends all processes of the server at once (SIGKILL), which leaves its data as it is for
// Start.
func (p *Postgres) Kill(t testing.TB) {
	t.Helper()
	p.Freeze() // so that none starts another meanwhile
	killed := p.frozen
	p.frozen = nil
	signal(killed, syscall.SIGKILL)
	Eventually(t, func() bool {
		return !slices.ContainsFunc(killed, func(pid int) bool {
			state, _, ok := processState(pid)
			return ok && state != "Z"
		})
	}, "PostgreSQL is still there")
}

// Start starts the server again after Kill, and returns when it has recovered.
func (p *Postgres) Start(t testing.TB) {
	t.Helper()
	if _, err := io.WriteString(p.guard, "again\n"); err != nil {
		t.Fatal(err)
	}
	err := p.readPid()
	if err == nil {
		err = p.waitReady(p.dir)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// SetReadOnly makes the server refuse writes, as it does when it has become a standby,
// or take them again. Connections learn of it a moment later.
func (p *Postgres) SetReadOnly(t testing.TB, on bool) {
	t.Helper()
	p.Do(t, fmt.Sprintf("ALTER SYSTEM SET default_transaction_read_only = %t", on), "SELECT pg_reload_conf()")
}

// Do runs statements as the superuser, each in a transaction of its own.
func (p *Postgres) Do(t testing.TB, statements ...string) {
	t.Helper()
	args := []string{"-q"}
	for _, statement := range statements {
		args = append(args, "-c", statement)
	}
	if err := p.admin("psql", append(args, "postgres")...); err != nil {
		t.Fatal(err)
	}
}

// LogStatements makes the server log each statement that begins from now on, for Log.
func (p *Postgres) LogStatements(t testing.TB) {
	t.Helper()
	p.Do(t, "ALTER SYSTEM SET log_statement = 'all'", "SELECT pg_reload_conf()")
}

// Log is all that the server has logged.
func (p *Postgres) Log(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(p.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func signal(pids []int, sig syscall.Signal) {
	for _, pid := range pids {
		syscall.Kill(pid, sig) // one that has ended meanwhile is no matter
	}
}

// childrenOf lists the processes whose parent is pid.
func childrenOf(pid int) []int {
	var children []int
	folders, _ := filepath.Glob("/proc/[0-9]*")
	for _, folder := range folders {
		child, err := strconv.Atoi(filepath.Base(folder))
		if _, parent, ok := processState(child); err == nil && ok && parent == strconv.Itoa(pid) {
			children = append(children, child)
		}
	}
	return children
}

// processState says what the kernel knows of a process; ok is false of one that is gone.
func processState(pid int) (state, parent string, ok bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", "", false
	}
	// "pid (name) state ppid ...", where the name may contain anything
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 2 {
		return "", "", false
	}
	return fields[0], fields[1], true
}

func (p *Postgres) url(database string) string {
	return "postgres://postgres@" + p.Addr + "/" + database + "?sslmode=disable"
}

func (p *Postgres) admin(tool string, args ...string) error {
	host, port, _ := net.SplitHostPort(p.Addr)
	args = append([]string{"-h", host, "-p", port, "-U", "postgres"}, args...)
	out, err := exec.Command(postgresTool(tool), args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", tool, err, out)
	}
	return nil
}
