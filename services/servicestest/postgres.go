package servicestest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Postgres is a real PostgreSQL server that a test may freeze and stop. It ends
// with the test, or with the test binary, however that ends.
type Postgres struct {
	URL  string // of a new, empty database
	Addr string // host:port, for a proxy

	pid    int
	end    io.Closer     // closing it ends the server
	exited chan struct{} // closed when it has ended
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

// StartPostgresServer starts a server for this test alone.
func StartPostgresServer(t testing.TB) *Postgres {
	t.Helper()
	needPostgres(t)
	server, err := startPostgres()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	server.URL = server.url("postgres")
	return server
}

var (
	databases      atomic.Int64
	sharedPostgres = sync.OnceValues(startPostgres)
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
	p.end.Close()
	<-p.exited
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

func signal(pids []int, sig syscall.Signal) {
	for _, pid := range pids {
		syscall.Kill(pid, sig) // one that has ended meanwhile is no matter
	}
}

// childrenOf lists the processes whose parent is pid.
func childrenOf(pid int) []int {
	var children []int
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// "pid (name) state ppid ...", where the name may contain anything
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		child, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err == nil && len(fields) > 1 && fields[1] == strconv.Itoa(pid) {
			children = append(children, child)
		}
	}
	return children
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

// postgresTool is the newest installed one, "" if there is none. Debian keeps
// them off the PATH.
func postgresTool(name string) string {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if len(found) == 0 {
		path, _ := exec.LookPath(name)
		return path
	}
	return found[len(found)-1]
}

func needPostgres(t testing.TB) {
	t.Helper()
	_, err := serverAccount()
	if postgresTool("postgres") == "" || postgresTool("initdb") == "" || err != nil {
		missing(t, "postgres", "postgresql")
	}
}

// guard runs the server and ends it, frozen or not, with its data when its
// standard input closes: when the test binary closes it or dies.
const guard = `dir=$1; shift
"$@" >"$dir/log" 2>&1 </dev/null & pid=$!
echo $pid
cat >/dev/null
kill -CONT $(cat /proc/$pid/task/$pid/children 2>/dev/null) $pid 2>/dev/null
kill -QUIT $pid 2>/dev/null
wait $pid
rm -rf "$dir"`

func startPostgres() (*Postgres, error) {
	account, err := serverAccount()
	if err != nil {
		return nil, err
	}
	for attempt := 0; ; attempt++ {
		p, err := initPostgres(account)
		if err == nil || attempt == 3 { // another process may have taken its port
			return p, err
		}
	}
}

func initPostgres(account *syscall.SysProcAttr) (*Postgres, error) {
	// Not below t.TempDir, which the server's account may not enter.
	dir, err := os.MkdirTemp("/tmp", "postgres-test-")
	if err != nil {
		return nil, err
	}
	if account.Credential != nil {
		if err := os.Chown(dir, int(account.Credential.Uid), int(account.Credential.Gid)); err != nil {
			return nil, err
		}
	}
	if err := initData(account, dir); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return runPostgres(account, dir)
}

// pristine is the data of a server before its first start. The next one copies it: initdb takes
// longer than all else.
var pristine atomic.Pointer[string]

func initData(account *syscall.SysProcAttr, dir string) error {
	run := func(name string, args ...string) error {
		cmd := exec.Command(name, args...)
		cmd.SysProcAttr, cmd.Dir = account, dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", name, err, out)
		}
		return nil
	}
	data, kept := filepath.Join(dir, "data"), filepath.Join(dir, "pristine")
	if from := pristine.Load(); from != nil {
		if run("cp", "-a", *from, data) == nil {
			return nil
		}
		os.RemoveAll(data) // the server that had it has ended meanwhile
	}
	if err := run(postgresTool("initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"); err != nil {
		return err
	}
	if err := run("cp", "-a", data, kept); err != nil {
		return err
	}
	pristine.Store(&kept)
	return nil
}

// serverAccount says how to run a server: as the user postgres if the tests run as root,
// because PostgreSQL refuses root, and out of reach of signals that are meant for
// the terminal or the process group of the tests.
func serverAccount() (*syscall.SysProcAttr, error) {
	attr := &syscall.SysProcAttr{Setsid: true}
	if os.Getuid() != 0 {
		return attr, nil
	}
	account, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("no account to run PostgreSQL: %w", err)
	}
	uid, err := strconv.ParseUint(account.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(account.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return attr, nil
}

// runPostgres starts the server on a port that was free a moment ago. The
// guard deletes dir when the server has ended.
func runPostgres(account *syscall.SysProcAttr, dir string) (*Postgres, error) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := free.Addr().String()
	free.Close()
	_, port, _ := net.SplitHostPort(addr)
	settings := []string{
		"listen_addresses=127.0.0.1", "port=" + port, "unix_socket_directories=", "max_connections=200",
		"fsync=off", "full_page_writes=off", "synchronous_commit=off", "shared_buffers=32MB",
	}
	args := []string{"-c", guard, "guard", dir, postgresTool("postgres"), "-D", filepath.Join(dir, "data")}
	for _, setting := range settings {
		args = append(args, "-c", setting)
	}
	cmd := exec.Command("sh", args...)
	cmd.SysProcAttr, cmd.Dir = account, dir
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return nil, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return nil, err
	}
	p := &Postgres{Addr: addr, pid: pid, end: stdin, exited: make(chan struct{})}
	go func() {
		cmd.Wait()
		close(p.exited)
	}()
	if err := p.waitReady(filepath.Join(dir, "log")); err != nil {
		p.Stop()
		return nil, err
	}
	return p, nil
}

func (p *Postgres) waitReady(log string) error {
	host, port, _ := net.SplitHostPort(p.Addr)
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := exec.Command(postgresTool("pg_isready"), "-q", "-h", host, "-p", port, "-U", "postgres").Run()
		if err == nil {
			return nil
		}
		if syscall.Kill(p.pid, 0) != nil || time.Now().After(deadline) {
			text, _ := os.ReadFile(log)
			return fmt.Errorf("PostgreSQL does not start: %w: %s", err, text)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
