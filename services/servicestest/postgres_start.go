package servicestest

import (
	"bufio"
	"errors"
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
	"syscall"
	"testing"
	"time"
)

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

// guard runs the server, and again for each line that it reads, once the server was killed. It ends
// the server, frozen or not, with its data when its standard input closes: when the test binary
// closes it or dies.
const guard = `dir=$1; shift
run() { "$@" >>"$dir/log" 2>&1 </dev/null & pid=$!; echo $pid; }
run "$@"
while read -r again; do wait $pid; run "$@"; done
kill -CONT $(cat /proc/$pid/task/$pid/children 2>/dev/null) $pid 2>/dev/null
kill -QUIT $pid 2>/dev/null
wait $pid
rm -rf "$dir"`

// errEnded is of a server that ends at its start: another process may have taken its port.
var errEnded = errors.New("PostgreSQL ends at its start")

func startPostgres(settings ...string) (*Postgres, error) {
	account, err := serverAccount()
	if err != nil {
		return nil, err
	}
	from, err := pristine()
	if err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		addr, err := freeAddr()
		if err != nil {
			return nil, err
		}
		p, err := copyPostgres(account, from.dir, addr, settings...)
		if err == nil || attempt == portsTried || !errors.Is(err, errEnded) {
			return p, err
		}
	}
}

// copyPostgres starts a server at addr with a copy of the data in from.
func copyPostgres(account *syscall.SysProcAttr, from, addr string, settings ...string) (*Postgres, error) {
	dir, err := serverFolder(account)
	if err != nil {
		return nil, err
	}
	if err := runAs(account, dir, "cp", "-a", filepath.Join(from, "data"), dir); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return runPostgres(account, dir, addr, settings)
}

// pristineData is the data of a server before its first start, which all servers of the test
// binary copy: initdb takes longer than all else. It is deleted when end is closed, at the
// latest with the test binary.
type pristineData struct {
	dir string
	end io.Closer
}

var pristine = sync.OnceValues(initData)

func initData() (*pristineData, error) {
	account, err := serverAccount()
	if err != nil {
		return nil, err
	}
	dir, err := serverFolder(account)
	if err != nil {
		return nil, err
	}
	keeper := exec.Command("sh", "-c", `cat >/dev/null; rm -rf "$1"`, "keeper", dir)
	keeper.SysProcAttr = account
	stdin, err := keeper.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := keeper.Start(); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	go func() { _ = keeper.Wait() }()
	err = runAs(account, dir, postgresTool("initdb"), "-D", filepath.Join(dir, "data"), "-U", "postgres",
		"-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	if err != nil {
		stdin.Close()
		return nil, err
	}
	return &pristineData{dir, stdin}, nil
}

// serverFolder makes a folder for a server, not below t.TempDir, which the server's account may
// not enter.
func serverFolder(account *syscall.SysProcAttr) (dir string, err error) {
	dir, err = os.MkdirTemp("/tmp", "postgres-test-")
	if err != nil || account.Credential == nil {
		return dir, err
	}
	return dir, os.Chown(dir, int(account.Credential.Uid), int(account.Credential.Gid))
}

func runAs(account *syscall.SysProcAttr, dir, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr, cmd.Dir = account, dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
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

// runPostgres starts the server whose data is in dir. The guard deletes dir when the server has
// ended. The settings come after those of all servers, and win.
func runPostgres(account *syscall.SysProcAttr, dir, addr string, settings []string) (*Postgres, error) {
	_, port, _ := net.SplitHostPort(addr)
	always := []string{
		"listen_addresses=127.0.0.1", "port=" + port, "unix_socket_directories=", "max_connections=200",
		"fsync=off", "full_page_writes=off", "synchronous_commit=off", "shared_buffers=32MB",
	}
	args := []string{"-c", guard, "guard", dir, postgresTool("postgres"), "-D", filepath.Join(dir, "data")}
	for _, setting := range append(always, settings...) {
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
	p := &Postgres{Addr: addr, dir: dir, guard: stdin, pids: bufio.NewReader(stdout), exited: make(chan struct{})}
	if err := p.readPid(); err != nil {
		return nil, err
	}
	go func() {
		cmd.Wait()
		close(p.exited)
	}()
	if err := p.waitReady(dir); err != nil {
		p.Stop()
		return nil, err
	}
	return p, nil
}

// readPid reads the number of the process that the guard has started.
func (p *Postgres) readPid() error {
	line, err := p.pids.ReadString('\n')
	if err != nil {
		return err
	}
	p.pid, err = strconv.Atoi(strings.TrimSpace(line))
	return err
}

// waitReady waits until the server itself says in its folder that it is ready: on its port another
// server may answer, which took it meanwhile.
func (p *Postgres) waitReady(dir string) error {
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		text, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
		lines := strings.Split(string(text), "\n") // its pid, ..., in the eighth line its state
		if err == nil && len(lines) > 7 && lines[0] == strconv.Itoa(p.pid) && strings.TrimSpace(lines[7]) == "ready" {
			return nil
		}
		log := func() []byte {
			text, _ := os.ReadFile(filepath.Join(dir, "log"))
			return text
		}
		if state, _, ok := processState(p.pid); !ok || state == "Z" {
			return fmt.Errorf("%w: %s", errEnded, log())
		}
		if time.Since(began) > Patience {
			return fmt.Errorf("PostgreSQL is not ready after %v: %s", Patience, log())
		}
	}
}
