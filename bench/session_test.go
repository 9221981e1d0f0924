package bench

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gin-contrib/sessions"
	redissessions "github.com/gin-contrib/sessions/redis"
	"github.com/gin-gonic/gin"
	"github.com/redis/rueidis"

	"gatehouse/middleware"
	"gatehouse/models"
	"gatehouse/services/redis"
	"gatehouse/services/servicestest"
	"gatehouse/services/session"
	"gatehouse/services/store"
)

// sessionWorld is one instance with its database, and Redis if there is a server.
type sessionWorld struct {
	cache *session.Cache
	db    *store.Store
	path  string
}

func newSessions(t testing.TB, server *servicestest.RedisServer) sessionWorld {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	path := filepath.Join(t.TempDir(), "sessions.db")
	db, err := store.Open(t.Context(), store.Options{URL: path, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	opt := redis.Options{Disabled: server == nil, KeyPrefix: "bench:", Logger: quiet}
	if server != nil {
		opt.Client = rueidis.ClientOption{InitAddress: []string{server.Addr}}
	}
	rdb := redis.New(opt)
	if server != nil {
		servicestest.Eventually(t, rdb.Available, "Redis did not become available")
	}
	cache, err := session.NewCache(rdb, db, session.Options{MaxPerUser: 1_000_000, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.Background()
		if err := errors.Join(cache.Close(ctx), rdb.Close(ctx), db.Close()); err != nil {
			t.Error(err)
		}
	})
	return sessionWorld{cache, db, path}
}

// signIn begins n sessions of one user and returns their tokens when all of them
// have been read often enough to stay in memory.
func (w sessionWorld) signIn(t testing.TB, n int) (tokens []string) {
	t.Helper()
	user, err := w.db.CreateUser(t.Context(), "ann@example.com", "hash", []string{models.RoleEditor})
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		token, _, err := w.cache.Create(t.Context(), models.Session{User: models.UserRef{ID: user.ID}, Epoch: 1, UserAgent: "bench", IP: "192.0.2.1"})
		if err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, token)
	}
	for range 2 {
		time.Sleep(2100 * time.Millisecond) // until the copies of the sign-in are too old, and Redis tells of changes
		for _, token := range tokens {
			if _, err := w.cache.Get(t.Context(), token); err != nil {
				t.Fatal(err)
			}
		}
	}
	return tokens
}

// An authenticated request through the middleware, warm, beside a bare handler
// and a request that reads its session with gin-contrib/sessions/redis.
func TestSessionRequest(t *testing.T) {
	gin.SetMode(gin.ReleaseMode)
	server := servicestest.StartRedis(t)
	w := newSessions(t, server)
	tokens := w.signIn(t, keyNumber)

	answer := func(c *gin.Context) { c.String(http.StatusOK, "ok") }
	bare := gin.New()
	bare.GET("/", answer)
	// What no session middleware can leave out: it hashes the token, finds what that
	// belongs to, and hands it to the handler. It checks nothing.
	var known sync.Map
	for _, token := range tokens {
		known.Store(sha256.Sum256([]byte(token)), &models.Session{ID: token})
	}
	least := gin.New()
	least.Use(func(c *gin.Context) {
		session, ok := known.Load(sha256.Sum256([]byte(strings.TrimPrefix(c.Request.Header.Get("Authorization"), "Bearer "))))
		if !ok {
			c.AbortWithStatus(http.StatusUnauthorized)
			return
		}
		c.Set("session", session)
	})
	least.GET("/", answer)
	ours := gin.New()
	ours.Use(middleware.LoadSession(w.cache, "bench"), middleware.RequireSession())
	ours.GET("/", answer)
	peers, err := redissessions.NewStore(64, "tcp", server.Addr, "", "", []byte(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	peer := gin.New()
	peer.Use(sessions.Sessions("bench", peers))
	peer.GET("/set", func(c *gin.Context) {
		session := sessions.Default(c)
		session.Set("user", "1")
		if err := session.Save(); err != nil {
			c.Status(http.StatusInternalServerError)
		}
	})
	peer.GET("/", func(c *gin.Context) {
		if sessions.Default(c).Get("user") == nil {
			c.Status(http.StatusUnauthorized)
			return
		}
		answer(c)
	})
	begun := httptest.NewRecorder()
	peer.ServeHTTP(begun, httptest.NewRequest(http.MethodGet, "/set", nil))
	peerCookie := begun.Result().Header.Get("Set-Cookie")

	ask := func(app http.Handler, name, value string) error {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set(name, value)
		w := httptest.NewRecorder()
		app.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			return fmt.Errorf("status %d", w.Code)
		}
		return nil
	}
	speed := race(t, workers,
		contender{"bare gin", func(i int64) error { // sent the same, it does not look
			return ask(bare, "Authorization", "Bearer "+tokens[i%keyNumber])
		}},
		contender{"least session", func(i int64) error {
			return ask(least, "Authorization", "Bearer "+tokens[i%keyNumber])
		}},
		contender{"gatehouse session", func(i int64) error {
			return ask(ours, "Authorization", "Bearer "+tokens[i%keyNumber])
		}},
		contender{"gin-contrib/sessions/redis", func(int64) error { return ask(peer, "Cookie", peerCookie) }},
	)
	tellRatio("authenticated request / bare gin", speed, "gatehouse session", "bare gin", 0.8)
	tellRatio("the least: hash, map, context key / bare gin", speed, "least session", "bare gin", 0)
	tellRatio("authenticated request / gin-contrib/sessions/redis", speed, "gatehouse session", "gin-contrib/sessions/redis", 15)
	tellRatio("bare gin / gin-contrib/sessions/redis: no session at all", speed, "bare gin", "gin-contrib/sessions/redis", 0)
}

// session.Cache.Get, warm, beside the least that can find something by a token's
// hash: a sync.Map.
func TestSessionGet(t *testing.T) {
	server := servicestest.StartRedis(t)
	w := newSessions(t, server)
	tokens := w.signIn(t, keyNumber)
	var least sync.Map
	for _, token := range tokens {
		least.Store(sha256.Sum256([]byte(token)), &models.Session{ID: token})
	}
	const batch = 100 // so that the harness does not count
	speed := race(t, workers,
		contender{"sync.Map and SHA-256", func(i int64) error {
			for n := range int64(batch) {
				if _, ok := least.Load(sha256.Sum256([]byte(tokens[(i+n)%keyNumber]))); !ok {
					return models.ErrNotFound
				}
			}
			return nil
		}},
		contender{"session.Cache.Get", func(i int64) error {
			for n := range int64(batch) {
				if _, err := w.cache.Get(context.Background(), tokens[(i+n)%keyNumber]); err != nil {
					return err
				}
			}
			return nil
		}},
	)
	cost := speed["sync.Map and SHA-256"] / speed["session.Cache.Get"]
	tell("session.Cache.Get / sync.Map and SHA-256", fmt.Sprintf("%.2f x the time", cost), "<= 3 x", cost <= 3)
	allocations := testing.AllocsPerRun(1000, func() { _, _ = w.cache.Get(context.Background(), tokens[0]) })
	tell("session.Cache.Get, allocations", fmt.Sprint(allocations), "<= 2", allocations <= 2)

	served := func() (n int) {
		for line := range strings.Lines(server.Do("INFO", "commandstats")) {
			var calls int
			name, rest, _ := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":")
			if _, err := fmt.Sscanf(rest, "calls=%d", &calls); err == nil && slices.Contains([]string{"get", "eval", "evalsha", "multi", "exec", "pttl"}, name) {
				n += calls
			}
		}
		return n
	}
	before := served()
	for i := range 100_000 {
		if _, err := w.cache.Get(context.Background(), tokens[i%keyNumber]); err != nil {
			t.Fatal(err)
		}
	}
	per1000 := float64(served()-before) / 100
	tell("Redis commands per 1,000 warm reads", fmt.Sprint(per1000), "0", per1000 == 0)
}

// insertSessions adds sessions of a user behind everybody's back.
func insertSessions(t testing.TB, path, user, name string, n int) {
	t.Helper()
	raw, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	raw.SetMaxOpenConns(1)
	now := time.Now()
	_, err = raw.Exec(fmt.Sprintf(`PRAGMA busy_timeout = 10000; WITH RECURSIVE many(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM many WHERE i < %d)
		INSERT INTO sessions (hash, id, user_id, epoch, data, version, created_at, last_seen, idle_at, expires_at, user_agent, ip, era)
		SELECT hex(randomblob(32)), '%s-' || i, %s, (SELECT epoch FROM users WHERE id = %s), NULL, 0, %d, %d, %d, %d, 'bench', '192.0.2.1', 1 FROM many`,
		n, name, user, user, now.UnixMicro(), now.UnixMicro(), now.Add(time.Hour).UnixMicro(), now.Add(2*time.Hour).UnixMicro()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := raw.Exec(`PRAGMA wal_checkpoint(TRUNCATE)`); err != nil { // or the next write pays for these
		t.Fatal(err)
	}
}

// Ending all sessions of a user who has 10,000, beside a user who has one.
func TestSessionEndAll(t *testing.T) {
	w := newSessions(t, nil)
	took := map[int][]time.Duration{}
	for round := range 12 {
		for _, n := range []int{1, 10_000} {
			user, err := w.db.CreateUser(t.Context(), fmt.Sprintf("u%d-%d@example.com", round, n), "hash", []string{models.RoleViewer})
			if err != nil {
				t.Fatal(err)
			}
			insertSessions(t, w.path, user.ID, user.Email, n)
			start := time.Now()
			if err := w.cache.DeleteUser(t.Context(), user.ID); err != nil {
				t.Fatal(err)
			}
			took[n] = append(took[n], time.Since(start))
		}
	}
	median := func(n int) time.Duration { slices.Sort(took[n]); return took[n][len(took[n])/2] }
	ratio := float64(median(10_000)) / float64(median(1))
	tell("end all of a user with 10,000 sessions / with 1", fmt.Sprintf("%.2f x (%v / %v)", ratio, median(10_000), median(1)), "<= 2 x", ratio <= 2)
}

// A thousand sessions in the database, and a million.
func TestSessionMillion(t *testing.T) {
	if testing.Short() {
		t.Skip("makes a million sessions")
	}
	few, many := newSessions(t, servicestest.StartRedis(t)), newSessions(t, servicestest.StartRedis(t))
	fewTokens, manyTokens := few.signIn(t, keyNumber), many.signIn(t, keyNumber)
	users := make([]models.User, 100)
	for i := range users {
		for _, w := range []sessionWorld{few, many} {
			user, err := w.db.CreateUser(t.Context(), fmt.Sprintf("u%d@example.com", i), "hash", []string{models.RoleViewer})
			if err != nil {
				t.Fatal(err)
			}
			users[i] = user
		}
		insertSessions(t, few.path, users[i].ID, users[i].Email, 10)
		n := 10_100
		if i == 0 {
			n = 10 // who is counted and listed
		}
		insertSessions(t, many.path, users[i].ID, users[i].Email, n)
	}
	get := func(w sessionWorld, tokens []string) func(int64) error {
		return func(i int64) error {
			_, err := w.cache.Get(context.Background(), tokens[i%keyNumber])
			return err
		}
	}
	count := func(w sessionWorld) func(int64) error {
		return func(int64) error {
			n, err := w.cache.Count(context.Background(), users[0].ID)
			if err == nil && n != 10 {
				return fmt.Errorf("%d sessions", n)
			}
			return err
		}
	}
	list := func(w sessionWorld) func(int64) error {
		return func(int64) error { _, err := w.cache.List(context.Background(), users[0].ID); return err }
	}
	speed := race(t, workers, contender{"read of 1,000", get(few, fewTokens)}, contender{"read of 1,000,000", get(many, manyTokens)})
	ratio := speed["read of 1,000"] / speed["read of 1,000,000"]
	tell("warm read, 1,000,000 sessions / 1,000", fmt.Sprintf("%.2f x the time", ratio), "< 1.2 x", ratio < 1.2)
	speed = race(t, 4, contender{"count of 1,000", count(few)}, contender{"count of 1,000,000", count(many)},
		contender{"list of 1,000", list(few)}, contender{"list of 1,000,000", list(many)})
	for _, what := range []string{"count", "list"} { // by index: TestSessionQueriesUseAnIndex
		ratio := speed[what+" of 1,000"] / speed[what+" of 1,000,000"]
		tell(what+" of one user, 1,000,000 sessions / 1,000", fmt.Sprintf("%.2f x the time", ratio), "<= 1.5 x", ratio <= 1.5)
	}
	var slowest time.Duration // the only queries that look at all of them, once a minute, some at a time
	for after := ""; ; {
		start := time.Now()
		next, _, err := many.db.CleanUpSessions(t.Context(), start, after, 500)
		if err != nil {
			t.Fatal(err)
		}
		slowest = max(slowest, time.Since(start))
		if next == "" {
			break
		}
		after = next
	}
	tell("slowest batch of a clean-up that finds nothing in 1,000,000 sessions", slowest.Round(time.Millisecond).String(), "< 100 ms", slowest < 100*time.Millisecond)
}
