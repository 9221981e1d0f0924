package app

import (
	"context"
	"database/sql"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/servicestest"
)

// BenchmarkFloor is what Gin, encoding/json, rueidis, database/sql and the driver of SQLite cost
// for the work of BenchmarkRoutes: the same headers, document, statement and command, each call
// with a deadline, and nothing else. There is no session, limit, log, metric, check or lock token.
func BenchmarkFloor(b *testing.B) {
	f := newFloor(b)
	for _, row := range []struct {
		name, method, path, body string
		handler                  gin.HandlerFunc
	}{
		{"GET session", "GET", "/session", "", f.session},
		{"GET process", "GET", "/processes/:id", "", f.process},
		{"PUT", "PUT", "/processes/:id", `{"title": "Measured", "status": "active", "description": "Often."}`, f.replace},
		{"lock", "POST", "/processes/:id/lock", `{"ttl": 300}`, f.lock},
	} {
		gin.SetMode(gin.ReleaseMode)
		router := gin.New()
		router.Use(f.headers)
		router.Handle(row.method, row.path, row.handler)
		b.Run(row.name, func(b *testing.B) {
			r := httptest.NewRequest(row.method, strings.Replace(row.path, ":id", "1", 1), http.NoBody)
			b.ReportAllocs()
			for b.Loop() {
				r.Body = readCloser{strings.NewReader(row.body)}
				w := discard{header: http.Header{}}
				router.ServeHTTP(&w, r)
				if w.status >= http.StatusBadRequest {
					b.Fatalf("%s: %d", row.name, w.status)
				}
			}
		})
	}
}

type floor struct {
	redis        rueidis.Client
	script       *rueidis.Lua
	db           *sql.DB
	find, update *sql.Stmt
}

func newFloor(b *testing.B) *floor {
	redis, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{servicestest.StartRedis(b).Addr}, DisableCache: true, AlwaysPipelining: true,
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(redis.Close)
	db, err := sql.Open("sqlite", "file:"+filepath.Join(b.TempDir(), "floor")+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	f := &floor{redis: redis, db: db, script: rueidis.NewLuaScript(`return redis.call('SET', KEYS[1], ARGV[1])`)}
	const columns = `id, title, status, description, version, created_at, updated_at, updated_by, updated_by_email`
	if _, err := db.Exec(`CREATE TABLE processes (id INTEGER PRIMARY KEY, title TEXT, status TEXT, description TEXT, version INTEGER,
		created_at INTEGER, updated_at INTEGER, updated_by INTEGER, updated_by_email TEXT);
		INSERT INTO processes VALUES (1, 'Measured', 'active', 'Often.', 1, 1790000000000000, 1790000000000000, 1, 'alice@example.com')`); err != nil {
		b.Fatal(err)
	}
	if f.find, err = db.Prepare(`SELECT ` + columns + ` FROM processes WHERE id = $1`); err != nil {
		b.Fatal(err)
	}
	if f.update, err = db.Prepare(`UPDATE processes SET title = $2, status = $3, description = $4, version = version + 1, updated_at = $5, updated_by = $6
		WHERE id = $1 RETURNING ` + columns); err != nil {
		b.Fatal(err)
	}
	return f
}

// headers sets as many as an answer of gatehouse has.
func (f *floor) headers(c *gin.Context) {
	header := c.Writer.Header()
	for _, name := range [...]string{
		"X-Request-Id", "Content-Security-Policy", "X-Content-Type-Options", "X-Frame-Options", "Referrer-Policy", "Cross-Origin-Opener-Policy",
		"Cross-Origin-Resource-Policy", "Cache-Control", "Ratelimit-Policy", "Ratelimit", "X-Ratelimit-Limit", "X-Ratelimit-Remaining", "X-Ratelimit-Reset", "Etag",
	} {
		header[name] = floorValue[:]
	}
}

var floorValue = [...]string{"value"}

func (f *floor) session(c *gin.Context) {
	type session struct {
		ID, UserAgent, IP                string
		User                             models.UserRef
		CreatedAt, LastSeenAt, ExpiresAt time.Time
	}
	now := time.Now()
	c.JSON(http.StatusOK, session{ID: "id", User: models.UserRef{ID: "1"}, CreatedAt: now, LastSeenAt: now, ExpiresAt: now})
}

func (f *floor) process(c *gin.Context) {
	ctx, cancel := context.WithTimeout(c.Request.Context(), time.Second)
	defer cancel()
	f.answer(c, f.find.QueryRowContext(ctx, c.Param("id")))
}

func (f *floor) replace(c *gin.Context) {
	var body struct{ Title, Status, Description *string }
	raw, err := io.ReadAll(c.Request.Body)
	if err == nil {
		err = json.Unmarshal(raw, &body)
	}
	if err != nil {
		_ = c.AbortWithError(http.StatusBadRequest, err)
		return
	}
	ctx, cancel := context.WithTimeout(c.Request.Context(), time.Second)
	defer cancel()
	f.redis.Do(ctx, f.redis.B().Get().Key("lock").Build())
	tx, err := f.db.BeginTx(ctx, nil)
	if err != nil {
		_ = c.AbortWithError(http.StatusServiceUnavailable, err)
		return
	}
	defer tx.Rollback()
	update := tx.StmtContext(ctx, f.update)
	defer update.Close()
	f.answer(c, update.QueryRowContext(ctx, c.Param("id"), *body.Title, *body.Status, *body.Description, time.Now().UnixMicro(), 1))
	_ = tx.Commit()
}

func (f *floor) lock(c *gin.Context) {
	var body struct{ TTL *int64 }
	raw, err := io.ReadAll(c.Request.Body)
	if err == nil {
		err = json.Unmarshal(raw, &body)
	}
	if err != nil {
		_ = c.AbortWithError(http.StatusBadRequest, err)
		return
	}
	ctx, cancel := context.WithTimeout(c.Request.Context(), time.Second)
	defer cancel()
	f.script.Exec(ctx, f.redis, []string{"lock"}, []string{strconv.FormatInt(*body.TTL, 10)})
	f.answer(c, f.find.QueryRowContext(ctx, c.Param("id")))
}

func (f *floor) answer(c *gin.Context, row *sql.Row) {
	var p models.Process
	var created, updated int64
	if err := row.Scan(&p.ID, &p.Title, &p.Status, &p.Description, &p.Version, &created, &updated, &p.UpdatedBy.ID, &p.UpdatedBy.Email); err != nil {
		_ = c.AbortWithError(http.StatusNotFound, err)
		return
	}
	p.CreatedAt, p.UpdatedAt = time.UnixMicro(created), time.UnixMicro(updated)
	c.JSON(http.StatusOK, p)
}
