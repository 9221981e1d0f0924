package servicestest

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// RedisServer is a real redis-server process that a test may freeze, kill and
// restart. It ends with the test.
type RedisServer struct {
	Addr string // host:port

	t    testing.TB
	port string
	args []string

	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended

	config string // of a sentinel
}

// StartRedis starts redis-server on a free port, without persistence unless args
// ask for it.
func StartRedis(t testing.TB, args ...string) *RedisServer {
	t.Helper()
	Need(t, "redis", "redis-server")
	for range portsTried {
		addr := FreeAddr(t)
		_, port, _ := net.SplitHostPort(addr)
		s := &RedisServer{Addr: addr, t: t, port: port, args: args}
		if s.launch() {
			t.Cleanup(s.Kill)
			return s
		}
	}
	t.Fatalf("redis-server ends at its start, on %d ports", portsTried)
	return nil
}

// portsTried is how often a server is started: another process may have taken a port that was
// free a moment ago, and answer there in its place.
const portsTried = 20

// FreeAddr returns a loopback address, host:port, on which nothing listens.
func FreeAddr(t testing.TB) string {
	t.Helper()
	addr, err := freeAddr()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// freeAddr chooses below the ports that the system gives to connections: one of those could be
// taken before the server listens, or while a killed one is away. No other test binary chooses the
// same as long as this one runs.
func freeAddr() (string, error) {
	for tried := 1; ; tried++ {
		port := 10_000 + rand.IntN(22_000)
		err := reserve(port)
		if err == nil {
			var l net.Listener
			if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
				return l.Addr().String(), l.Close()
			}
		}
		if tried == portsTried {
			return "", err
		}
	}
}

// reserved are names that the system frees when the test binary ends, however it does.
var reserved struct {
	mu    sync.Mutex
	names []net.Listener
}

// reserve takes the name of a port, an abstract socket, and fails if a test binary has it.
func reserve(port int) error {
	name, err := net.Listen("unix", fmt.Sprintf("@gatehouse-test-port-%d", port))
	if err != nil {
		return err
	}
	reserved.mu.Lock()
	defer reserved.mu.Unlock()
	reserved.names = append(reserved.names, name)
	return nil
}

// Start starts the process again on the same port, after Kill.
func (s *RedisServer) Start() {
	s.t.Helper()
	for range portsTried {
		if s.launch() {
			return
		}
		time.Sleep(100 * time.Millisecond) // another process has the port for a moment
	}
	s.t.Fatalf("redis-server ends at its start: is %s taken?", s.Addr)
}

// launch starts the process and reports whether it serves; it does not if it ended.
func (s *RedisServer) launch() bool {
	s.t.Helper()
	args := append([]string{"--port", s.port, "--bind", "127.0.0.1", "--save", "", "--dir", s.t.TempDir()}, s.args...)
	if s.config != "" {
		args = []string{s.config, "--sentinel", "--port", s.port, "--bind", "127.0.0.1"}
	}
	cmd, exited := exec.Command("redis-server", args...), make(chan struct{})
	// The server must not outlive a test binary that is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	s.cmd, s.exited = cmd, exited
	own, ended := fmt.Sprintf("process_id:%d\r", cmd.Process.Pid), false
	Eventually(s.t, func() bool {
		select {
		case <-exited:
			ended = true
			return true
		default:
		}
		reply, err := s.try(aMoment, "INFO", "server")
		if err != nil || !strings.Contains(reply, own) {
			return false
		}
		_, err = s.try(aMoment, "PING") // an error while it loads its file
		return err == nil
	}, "redis-server did not start")
	return !ended
}

// Kill ends the process at once. Killing twice is harmless.
func (s *RedisServer) Kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	<-s.exited
	s.cmd = nil
}

// Restart kills the process and starts it on the same port.
func (s *RedisServer) Restart() {
	s.t.Helper()
	s.Kill()
	s.Start()
}

// Follow makes the server a replica of master.
func (s *RedisServer) Follow(master *RedisServer) {
	s.t.Helper()
	s.Do("REPLICAOF", "127.0.0.1", master.port)
}

// LoseMaster makes a replica keep its data and receive no more, as when the network between it
// and its master fails. A sentinel repairs that within seconds: kill the master before.
func (s *RedisServer) LoseMaster() {
	s.t.Helper()
	s.Do("REPLICAOF", "127.0.0.1", "1") // nothing listens there
}

// Promote makes a replica a master, with the data that it has.
func (s *RedisServer) Promote() {
	s.t.Helper()
	s.Do("REPLICAOF", "NO", "ONE")
}

// Freeze stops the process without closing anything (SIGSTOP): connections stay
// open and nothing answers.
func (s *RedisServer) Freeze() { s.signal(syscall.SIGSTOP) }

// Thaw lets a frozen process go on.
func (s *RedisServer) Thaw() { s.signal(syscall.SIGCONT) }

func (s *RedisServer) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// Do sends one command on a connection of its own and returns the reply as text; the items of
// an array are separated by line feeds. It fails the test on an error.
func (s *RedisServer) Do(args ...string) string {
	s.t.Helper()
	reply, err := s.try(Patience, args...)
	if err != nil {
		s.t.Fatalf("redis %v: %v", args, err)
	}
	return reply
}

// aMoment is what a server that is asked again and again has for each answer.
const aMoment = 2 * time.Second

func (s *RedisServer) try(limit time.Duration, args ...string) (string, error) {
	conn, err := net.DialTimeout("tcp", s.Addr, limit)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, arg := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(arg), arg)
	}
	if _, err := conn.Write([]byte(b.String())); err != nil {
		return "", err
	}
	r := bufio.NewReader(conn)
	return readReply(r)
}

func readReply(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimRight(line, "\r\n")
	var n int
	switch line[0] {
	case '-':
		return "", errors.New(line[1:])
	case '$':
		if _, err := fmt.Sscan(line[1:], &n); err != nil || n < 0 {
			return "", err
		}
		buf := make([]byte, n+2)
		for read := 0; read < len(buf); {
			m, err := r.Read(buf[read:])
			if err != nil {
				return "", err
			}
			read += m
		}
		return string(buf[:n]), nil
	case '*':
		if _, err := fmt.Sscan(line[1:], &n); err != nil {
			return "", err
		}
		var items []string
		for range n {
			item, err := readReply(r)
			if err != nil {
				return "", err
			}
			items = append(items, item)
		}
		return strings.Join(items, "\n"), nil
	}
	return strings.TrimLeft(line, "+:"), nil
}
