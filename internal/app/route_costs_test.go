package app

import (
	"bufio"
	"fmt"
	"maps"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"gatehouse/e2e/document"
	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// TestRouteCosts holds the hot routes to what ARCHITECTURE.md says that a request costs: commands
// to Redis, and statements to the database.
func TestRouteCosts(t *testing.T) {
	t.Parallel()
	redis, postgres := servicestest.StartRedis(t), servicestest.StartPostgresServer(t)
	// Blocks would make the key of a test that is quick enough busy.
	a := startApp(t, map[string]string{"REDIS_URL": "redis://" + redis.Addr, "DATABASE_URL": postgres.URL, "RATE_LIMIT_LEASE": "0"})
	token := a.signIn(t, "alice@example.com")
	m := meter{redis, postgres, monitor(t, redis), t}
	postgres.LogStatements(t)
	servicestest.Eventually(t, func() bool {
		m.postgres.Do(t, "SELECT 'logging'")
		return strings.Contains(postgres.Log(t), "SELECT 'logging'")
	}, "PostgreSQL does not log its statements")

	var lockToken string
	fields := `{"title": "Measured", "status": "active", "description": "Often."}`
	steps := []struct {
		route, body string
		status      int
	}{
		{"GET /auth/session", "", http.StatusOK},
		{"GET /processes/:id", "", http.StatusOK},
		{"POST /processes/:id/lock", "", http.StatusCreated},
		{"GET /processes/:id/lock/status", "", http.StatusOK},
		{"GET /locks/:resource", "", http.StatusOK},
		{"POST /processes/:id/lock/extend", "", http.StatusOK},
		{"PUT /processes/:id", fields, http.StatusOK},
		{"DELETE /processes/:id/lock", "", http.StatusNoContent},
		{"PATCH /processes/:id/quick-update", fields, http.StatusOK},
	}
	got, want := map[string]costs{}, costsInArchitecture(t)
	// The first round loads scripts and prepares statements; on a busy machine a call may come too
	// late, and is sent twice.
	for round := 0; round < 2 || round < 6 && !maps.Equal(got, want); round++ {
		id := decoded[models.Process](t, a.api(token, "POST", "/processes", `{"title": "Measured"}`), http.StatusCreated).ID
		for _, step := range steps {
			method, path, _ := strings.Cut(step.route, " ")
			got[step.route] = m.costs(id, func() {
				w := a.api(token, method, strings.NewReplacer(":id", id, ":resource", "process:"+id).Replace(path), step.body, "X-Lock-Token", lockToken)
				if w.Code != step.status {
					t.Fatalf("%s: %d %s", step.route, w.Code, w.Body)
				}
				if step.route == "POST /processes/:id/lock" {
					lockToken = decoded[struct{ LockToken string }](t, w, step.status).LockToken
				}
			})
		}
	}
	t.Run("the page of a process reads nothing twice", func(t *testing.T) {
		id := decoded[models.Process](t, a.api(token, "POST", "/processes", `{"title": "Shown"}`), http.StatusCreated).ID
		decoded[struct{ LockToken string }](t, a.api(token, "POST", "/processes/"+id+"/lock", ""), http.StatusCreated)
		var got costs
		want := costs{redis: 2, database: 2}
		for round := 0; round < 2 || round < 6 && got != want; round++ { // as above
			got = m.costs(id, func() {
				if w := a.do("GET", "/processes/"+id, "", "Cookie", "gatehouse="+token); w.Code != http.StatusOK {
					t.Fatalf("%d %s", w.Code, w.Body)
				}
			})
		}
		if got != want {
			t.Errorf("it costs %+v, want %+v", got, want)
		}
	})
	for _, step := range steps {
		if got[step.route] != want[step.route] {
			t.Errorf("%s costs %+v, says ARCHITECTURE.md, and not %+v", step.route, want[step.route], got[step.route])
		}
		delete(want, step.route)
	}
	if len(want) > 0 {
		t.Errorf("ARCHITECTURE.md says what other routes cost, too: %v", want)
	}
}

// costs is what one request sends.
type costs struct{ redis, database int }

var costRow = regexp.MustCompile("(?m)^\\| `([A-Z]+ /[^`]*)` \\| (\\d+) \\| (\\d+) \\|")

func costsInArchitecture(t *testing.T) map[string]costs {
	t.Helper()
	all := map[string]costs{}
	for _, row := range costRow.FindAllStringSubmatch(document.Read(t, "ARCHITECTURE.md").Text, -1) {
		redis, _ := strconv.Atoi(row[2])
		database, _ := strconv.Atoi(row[3])
		all[row[1]] = costs{redis, database}
	}
	return all
}

// meter counts what reaches both servers.
type meter struct {
	redis    *servicestest.RedisServer
	postgres *servicestest.Postgres
	seen     *bufio.Scanner // what Redis executes
	t        *testing.T
}

// monitor shows each command that Redis executes.
func monitor(t *testing.T, redis *servicestest.RedisServer) *bufio.Scanner {
	t.Helper()
	conn, err := net.Dial("tcp", redis.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := fmt.Fprint(conn, "MONITOR\r\n"); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, 1<<20)
	if !lines.Scan() || lines.Text() != "+OK" {
		t.Fatalf("MONITOR: %s, %v", lines.Text(), lines.Err())
	}
	return lines
}

var (
	ofScripts  = regexp.MustCompile(` lua\] `)
	flushes    = regexp.MustCompile(`rate:reset:|"GET" "[^"]*rate:`)
	settling   = regexp.MustCompile(`r\.process_id > COALESCE`) // Processes.KeepSettling, once a second
	statements = regexp.MustCompile(`^ +execute .*: (?s:.*)\b(processes|process_versions|drafts|users|audit|lock_ends WHERE resource)\b`)
)

// costs counts what do sends about the process and its user. Meanwhile instances also send
// heartbeats, read logs, and write what can wait: no request waits for those.
func (m meter) costs(process string, do func()) (c costs) {
	m.t.Helper()
	mark := strconv.Itoa(len(m.postgres.Log(m.t)))
	m.redis.Do("ECHO", "before-"+mark)
	m.postgres.Do(m.t, "SELECT 'before-"+mark+"'")
	do()
	m.redis.Do("ECHO", "after-"+mark)
	m.postgres.Do(m.t, "SELECT 'after-"+mark+"'")
	for counting := false; m.seen.Scan() && !strings.Contains(m.seen.Text(), "after-"+mark); {
		line := m.seen.Text()
		about := strings.Contains(line, "process:"+process+`"`) || strings.Contains(line, ":user:") || strings.HasSuffix(line, `locks" "2"`)
		if counting && about && !ofScripts.MatchString(line) && !flushes.MatchString(line) {
			c.redis++
		}
		counting = counting || strings.Contains(line, "before-"+mark)
	}
	_, during, _ := strings.Cut(m.postgres.Log(m.t), "before-"+mark)
	during, _, _ = strings.Cut(during, "after-"+mark)
	for entry := range strings.SplitSeq(during, " LOG: ") {
		if statements.MatchString(entry) && !settling.MatchString(entry) {
			c.database++
		}
	}
	return c
}
