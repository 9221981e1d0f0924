package bench

import (
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	_ "modernc.org/sqlite"
)

// What a full gatehouse has more than a new one.
const (
	manyProcesses = 100_000
	manySessions  = 100_000 // each used
	manyUsers     = 1_000
	manyLocks     = 5_000 // held all the time
	growthGoal    = 1 / 1.25
)

// TestGrowth compares whole requests to a gatehouse that is full with those to a new one. Rows are
// put into its database, as many as would take too long to create one by one; then each session is
// used, and the locks are taken, over HTTP. `make bench-http` runs it.
func TestGrowth(t *testing.T) {
	if os.Getenv("GATEHOUSE_BENCH_HTTP") == "" {
		t.Skip("make bench-http runs it")
	}
	bin := buildSubjects(t)
	small, full := startGatehouse(t, bin), startGatehouse(t, bin)
	small.name, full.name = "new", "full"
	full.fill(t)
	all := []*subject{small, full}
	for _, row := range []struct {
		what    string
		clients int
		work    func(*httpClient) error
	}{
		{"edits, 1 at a time", 1, (*httpClient).edit},
		{"edits, 16 at a time", 16, (*httpClient).edit},
		{"edits, 64 at a time", 64, (*httpClient).edit},
		{"GET a process, 64 at a time", 64, (*httpClient).readProcess},
		{"GET the session, 64 at a time", 64, (*httpClient).readSession},
	} {
		speed, tellEach := takeTurns(t, all, row.clients, row.work)
		tellRatio(row.what+": full / new", speed, full.name, small.name, growthGoal)
		tellEach()
	}
	for _, s := range all {
		tell("resident memory after it, "+s.name, fmt.Sprintf("%d MB", resident(t, s.app)), "", true)
	}
	if locks := len(strings.Fields(full.redis.Do("KEYS", "*}lock:process:*"))); locks < manyLocks {
		t.Errorf("only %d of %d locks are still held", locks, manyLocks)
	}
}

// fill brings a gatehouse to its size.
func (s *subject) fill(t *testing.T) {
	t.Helper()
	first := s.client(t, 0)
	tokens := s.fillDatabase(t, strings.TrimPrefix(first.path, "/processes/"))
	const at = 16
	var clients sync.WaitGroup
	for i := range at {
		c := s.connect(t)
		clients.Go(func() {
			defer c.conn.Close()
			for n := i; n < len(tokens) && !t.Failed(); n += at {
				c.header = "Authorization: Bearer " + tokens[n] + "\r\n"
				if err := c.readSession(); err != nil {
					t.Errorf("session %d: %v", n, err)
				}
				if n >= manyLocks {
					continue
				}
				path := fmt.Sprintf("/processes/%d/lock", 1000+n)
				if _, err := c.want(http.StatusCreated, "POST", path, "", `{"ttl":3600}`); err != nil {
					t.Error(err)
				}
			}
		})
	}
	clients.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// fillDatabase multiplies a process, the user who created it and the session, and returns tokens of
// the sessions. One user comes after the other.
func (s *subject) fillDatabase(t *testing.T, process string) (tokens []string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(s.folder, "gatehouse.db")+"?_pragma=busy_timeout(60000)&_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	do := func(statement string, args ...any) {
		t.Helper()
		if _, err := tx.Exec(statement, args...); err != nil {
			t.Fatal(err)
		}
	}
	const numbers = `WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < $1) `
	do(numbers+`INSERT INTO users (email, email_key, password_hash, roles, admin, created_at)
		SELECT n || email, n || email_key, password_hash, roles, admin, created_at FROM users, numbers WHERE email = 'alice@example.com'`, manyUsers)
	do(numbers+`INSERT INTO processes (title, title_folded, status, description, version, created_at, updated_at, updated_by, updated_by_email)
		SELECT title || n, title_folded || n, status, description, version, created_at, updated_at - n, updated_by, updated_by_email
		  FROM processes, numbers WHERE id = $2`, manyProcesses, process)
	insert, err := tx.Prepare(`INSERT INTO sessions (hash, id, user_id, epoch, era, version, created_at, last_seen, idle_at, expires_at, user_agent, ip)
		SELECT $1, $2, (SELECT id FROM users WHERE email = $3 || 'alice@example.com'), epoch, era, version, created_at, last_seen, idle_at, expires_at, user_agent, ip
		  FROM (SELECT * FROM sessions LIMIT 1)`)
	if err != nil {
		t.Fatal(err)
	}
	for n := range manySessions {
		raw := make([]byte, 32)
		_, _ = rand.Read(raw)
		token := base64.RawURLEncoding.EncodeToString(raw)
		hash := sha256.Sum256([]byte(token))
		if _, err := insert.Exec(hex.EncodeToString(hash[:]), rand.Text(), 1+n%manyUsers); err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, token)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	return tokens
}
