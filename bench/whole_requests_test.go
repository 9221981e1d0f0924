package bench

import (
	"bytes"
	"cmp"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gatehouse/services/servicestest"
)

const (
	httpRounds = 5 // and one before, which warms up
	httpTurn   = 3 * time.Second
)

// subject is one of the programs that are compared, each with a Redis of its own.
type subject struct {
	name     string
	addr     string
	api      string   // what its paths begin with
	session  string   // the path that says who is signed in
	signedIn []string // a header of each user
	folder   string   // where gatehouse runs
	app      int      // process
	redis    *servicestest.RedisServer
	redisPID int
}

// TestWholeRequests compares whole requests over HTTP: gatehouse, what a Gin user would assemble
// (stack), and the least that keeps gatehouse's promises (floor). All have the same disk, the same
// fsync and limits that they count exactly and never reach. `make bench-http` runs it.
func TestWholeRequests(t *testing.T) {
	if os.Getenv("GATEHOUSE_BENCH_HTTP") == "" {
		t.Skip("make bench-http runs it")
	}
	bin := buildSubjects(t)
	stack, floor, gatehouse := startPlain(t, bin, "stack"), startPlain(t, bin, "floor"), startGatehouse(t, bin)
	all := []*subject{stack, floor, gatehouse}
	for _, row := range []struct {
		clients          int
		atLeast, ofFloor float64
	}{{1, 1.15, 0.75}, {16, 1.8, 0.75}, {64, 2.7, 0.75}} {
		what := fmt.Sprintf("edits (lock, PUT, unlock), %d at a time", row.clients)
		compare(t, what, all, row.clients, row.atLeast, row.ofFloor, (*httpClient).edit)
	}
	compare(t, "GET a process, 64 at a time", all, 64, 2.2, 0.75, (*httpClient).readProcess)
	compare(t, "GET the session, 64 at a time", all, 64, 3, 0.75, (*httpClient).readSession)
	for _, s := range all {
		tell("resident memory after it, "+s.name, fmt.Sprintf("%d MB", resident(t, s.app)), "", true)
	}
}

// buildSubjects returns the folder with the programs. They are built without MessagePack, as make
// build builds gatehouse.
func buildSubjects(t *testing.T) (bin string) {
	t.Helper()
	bin = t.TempDir()
	for _, build := range [][]string{
		{"-C", "..", "-tags=nomsgpack", "-o", filepath.Join(bin, "gatehouse"), "."}, {"-tags=nomsgpack", "-o", bin, "./stack", "./floor"},
	} {
		if out, err := exec.Command("go", append([]string{"build"}, build...)...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	return bin
}

// startPlain starts stack or floor.
func startPlain(t *testing.T, bin, name string) *subject {
	t.Helper()
	s := &subject{name: name, addr: servicestest.FreeAddr(t), session: "/session", redis: servicestest.StartRedis(t)}
	program := servicestest.Start(t, exec.Command(filepath.Join(bin, name), s.addr, s.redis.Addr, filepath.Join(t.TempDir(), "database")))
	s.app, s.redisPID = program.Pid(), pidOf(t, s.redis)
	servicestest.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", s.addr)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	}, name+" does not serve")
	for _, user := range []string{"alice", "bob", "admin"} {
		c := s.connect(t)
		in, err := c.send("POST", "/login?user="+user, "", "")
		_, cookie, _ := strings.Cut(string(in.head), "Set-Cookie: ")
		cookie, _, _ = strings.Cut(cookie, ";")
		if err != nil || in.status != http.StatusNoContent || cookie == "" {
			t.Fatalf("%s: sign in: %d, %v", name, in.status, err)
		}
		s.signedIn = append(s.signedIn, "Cookie: "+cookie+"\r\n")
		_ = c.conn.Close()
	}
	return s
}

func startGatehouse(t *testing.T, bin string) *subject {
	t.Helper()
	s := &subject{name: "gatehouse", addr: servicestest.FreeAddr(t), api: "/api/v1", session: "/auth/session", redis: servicestest.StartRedis(t)}
	cmd := exec.Command(filepath.Join(bin, "gatehouse"))
	log, err := os.Create(filepath.Join(t.TempDir(), "log")) // a pipe would make the bench read each line
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout = log
	program := servicestest.StartGatehouse(t, cmd,
		"ADDR="+s.addr, "REDIS_URL=redis://"+s.redis.Addr, "RATE_LIMIT_MAX=1000000", "LOGIN_RATE_LIMIT_MAX=1000", "LOCK_MAX_PER_USER=100")
	program.URL = "http://" + s.addr
	servicestest.Eventually(t, func() bool {
		if program.HasEnded() {
			words, _ := os.ReadFile(log.Name())
			t.Fatalf("gatehouse ended at its start\n%s%s", words, program.Said())
		}
		return program.ReadyStatus() == http.StatusOK
	}, "gatehouse is not ready")
	s.app, s.redisPID, s.folder = program.Pid(), pidOf(t, s.redis), program.Dir
	for _, user := range []string{"alice", "bob", "admin"} {
		c := s.connect(t)
		body, err := c.want(http.StatusOK, "POST", "/auth/login", "", fmt.Sprintf(`{"email":"%s@example.com","password":"gatehouse-demo"}`, user))
		if err != nil {
			t.Fatalf("gatehouse: sign in: %v", err)
		}
		s.signedIn = append(s.signedIn, "Authorization: Bearer "+field(body, "token")+"\r\n")
		_ = c.conn.Close()
	}
	return s
}

// measured is what one turn of a subject showed.
type measured struct {
	perSecond float64
	// Processor time a piece of work; lua: that of scripts, as Redis says; client: of what is here.
	app, redis, lua, client time.Duration
	slowest                 time.Duration // of the quickest 99 %
}

// compare lets the subjects take turns, and tells ratios of their medians.
func compare(t *testing.T, what string, all []*subject, clients int, atLeast, ofFloor float64, work func(*httpClient) error) {
	t.Helper()
	speed, tellEach := takeTurns(t, all, clients, work)
	tellRatio(what+" / stack", speed, "gatehouse", "stack", atLeast)
	tellRatio(what+" / floor", speed, "gatehouse", "floor", ofFloor)
	tellEach()
}

// takeTurns lets the subjects take turns, and returns how many pieces of work each does in a
// second. All are medians, and so is what tellEach tells of the processor time.
func takeTurns(t *testing.T, all []*subject, clients int, work func(*httpClient) error) (speed map[string]float64, tellEach func()) {
	t.Helper()
	turns := map[string][]measured{}
	connected := map[string][]*httpClient{}
	for _, s := range all {
		for i := range clients {
			connected[s.name] = append(connected[s.name], s.client(t, i))
		}
	}
	for round := range httpRounds + 1 {
		for _, s := range all {
			m := s.turn(t, connected[s.name], work)
			if round > 0 {
				turns[s.name] = append(turns[s.name], m)
			}
		}
	}
	for _, clients := range connected {
		for _, c := range clients {
			_ = c.conn.Close()
		}
	}
	speed = map[string]float64{}
	for _, s := range all {
		speed[s.name] = median(turns[s.name], func(m measured) float64 { return m.perSecond })
	}
	return speed, func() {
		for _, s := range all {
			micros := func(of func(measured) time.Duration) float64 {
				return median(turns[s.name], func(m measured) float64 { return float64(of(m).Microseconds()) })
			}
			tell("  processor time each, "+s.name, fmt.Sprintf("%.0f us + Redis %.0f us (its scripts %.0f), and the client's %.0f us; p99 %.1f ms",
				micros(func(m measured) time.Duration { return m.app }), micros(func(m measured) time.Duration { return m.redis }),
				micros(func(m measured) time.Duration { return m.lua }), micros(func(m measured) time.Duration { return m.client }),
				micros(func(m measured) time.Duration { return m.slowest })/1000), "", true)
		}
	}
}

func median(all []measured, of func(measured) float64) float64 {
	var values []float64
	for _, m := range all {
		values = append(values, of(m))
	}
	slices.SortFunc(values, cmp.Compare[float64])
	return values[len(values)/2]
}

// turn lets all clients work for a while.
func (s *subject) turn(t *testing.T, clients []*httpClient, work func(*httpClient) error) (m measured) {
	t.Helper()
	app, server, scripts, own := processorTime(t, s.app), processorTime(t, s.redisPID), scriptTime(s.redis), processorTime(t, os.Getpid())
	var over atomic.Bool
	timer := time.AfterFunc(httpTurn, func() { over.Store(true) })
	defer timer.Stop()
	var wg sync.WaitGroup
	took := make([][]time.Duration, len(clients))
	start := time.Now()
	for i, c := range clients {
		wg.Go(func() {
			for !over.Load() {
				began := time.Now()
				if err := work(c); err != nil {
					t.Errorf("%s: %v", s.name, err)
					return
				}
				took[i] = append(took[i], time.Since(began))
			}
		})
	}
	wg.Wait()
	passed := time.Since(start)
	each := slices.Concat(took...)
	if len(each) == 0 {
		t.FailNow()
	}
	slices.Sort(each)
	n := time.Duration(len(each))
	return measured{
		perSecond: float64(len(each)) / passed.Seconds(), slowest: each[len(each)*99/100],
		app: (processorTime(t, s.app) - app) / n, redis: (processorTime(t, s.redisPID) - server) / n,
		lua: (scriptTime(s.redis) - scripts) / n, client: (processorTime(t, os.Getpid()) - own) / n,
	}
}

func pidOf(t *testing.T, server *servicestest.RedisServer) int {
	t.Helper()
	pid, err := strconv.Atoi(strings.TrimSpace(info(server, "server", `process_id:(\d+)`)[0]))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// scriptTime is how long the server has run scripts, with all that they call.
func scriptTime(server *servicestest.RedisServer) (sum time.Duration) {
	for _, found := range info(server, "commandstats", `cmdstat_eval(?:sha)?:calls=\d+,usec=(\d+)`) {
		micros, _ := strconv.Atoi(found)
		sum += time.Duration(micros) * time.Microsecond
	}
	return sum
}

// scriptCalls is how many scripts the server has run.
func scriptCalls(server *servicestest.RedisServer) (sum int) {
	for _, found := range info(server, "commandstats", `cmdstat_eval(?:sha)?:calls=(\d+)`) {
		n, _ := strconv.Atoi(found)
		sum += n
	}
	return sum
}

func info(server *servicestest.RedisServer, section, pattern string) (found []string) {
	for _, match := range regexp.MustCompile(pattern).FindAllStringSubmatch(server.Do("INFO", section), -1) {
		found = append(found, match[1])
	}
	return found
}

// processorTime is what a process has used of the processors.
func processorTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond // ticks of 1/100 s
}

// resident is the memory of a process, in MB.
func resident(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kilobytes, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kilobytes >> 10
}
