// Command floor does what gatehouse promises for an edit, and nothing else: sessions in memory, one
// script a request for the limit, one to acquire (fence, index, event), one to release, a plain
// read to check, prepared statements, writes that come together in one transaction, and a history.
// It has no log, no metrics, no queue, nothing for a Redis that is away, and does not say why it
// refuses. It shows what this machine can do at most.
//
//	floor ADDRESS REDIS DATABASE
package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/redis/rueidis"
	_ "modernc.org/sqlite"
)

// Each takes one hit of a limit of 10^8 a minute: the arrival of the next that is not too early.
var gcra = rueidis.NewLuaScript(`local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local next = math.max(now, tonumber(redis.call('GET', KEYS[1]) or 0)) + 0.6
if next - now > 60000000 then return -1 end
redis.call('SET', KEYS[1], next, 'PX', math.ceil((next - now) / 1000) + 1)
return math.floor((60000000 - next + now) / 0.6)`)

var acquire = rueidis.NewLuaScript(`if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local fence = redis.call('INCR', KEYS[3])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('ZADD', KEYS[2], ARGV[3], KEYS[1])
redis.call('PUBLISH', '{l}events', 'acquired ' .. KEYS[1])
return fence`)

var release = rueidis.NewLuaScript(`if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], KEYS[1])
redis.call('PUBLISH', '{l}events', 'released ' .. KEYS[1])
return 1`)

type process struct {
	ID          int64     `json:"id,string"`
	Title       string    `json:"title"`
	Status      string    `json:"status"`
	Description string    `json:"description"`
	Version     int64     `json:"version"`
	UpdatedAt   time.Time `json:"updatedAt"`
	UpdatedBy   string    `json:"updatedBy"`
}

type server struct {
	redis    rueidis.Client
	sessions sync.Map // token -> user
	find     *sql.Stmt
	writes   chan write
}

// write is one that waits for its transaction.
type write struct {
	statement string
	args      []any
	done      chan written
}

type written struct {
	process process
	err     error
}

const (
	lockToken = "X-Lock-Token"
	columns   = `id, title, status, description, version, updated_at, updated_by`
	insert    = `INSERT INTO processes (title, status, description, version, updated_at, updated_by) VALUES (?, ?, ?, 1, ?, ?) RETURNING ` + columns
	update    = `UPDATE processes SET title = ?, status = ?, description = ?, version = version + 1, updated_at = ?, updated_by = ?
		WHERE id = ? RETURNING ` + columns
)

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: floor ADDRESS REDIS DATABASE")
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		log.Fatal(err)
	}
}

func run(address, redisAddress, database string) error {
	db, err := sql.Open("sqlite", "file:"+database+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=busy_timeout(5000)&_txlock=immediate")
	if err != nil {
		return err
	}
	if _, err := db.Exec(`
		CREATE TABLE processes (id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT NOT NULL, status TEXT NOT NULL,
			description TEXT NOT NULL, version INTEGER NOT NULL, updated_at INTEGER NOT NULL, updated_by TEXT NOT NULL);
		CREATE TABLE versions (process INTEGER NOT NULL, version INTEGER NOT NULL, title TEXT NOT NULL, status TEXT NOT NULL,
			description TEXT NOT NULL, at INTEGER NOT NULL, who TEXT NOT NULL, PRIMARY KEY (process, version));
		CREATE TRIGGER created AFTER INSERT ON processes BEGIN
			INSERT INTO versions VALUES (NEW.id, NEW.version, NEW.title, NEW.status, NEW.description, NEW.updated_at, NEW.updated_by); END;
		CREATE TRIGGER changed AFTER UPDATE ON processes BEGIN
			INSERT INTO versions VALUES (NEW.id, NEW.version, NEW.title, NEW.status, NEW.description, NEW.updated_at, NEW.updated_by); END;
	`); err != nil {
		return err
	}
	s := &server{writes: make(chan write, 1024)}
	if s.find, err = db.Prepare(`SELECT ` + columns + ` FROM processes WHERE id = ?`); err != nil {
		return err
	}
	if s.redis, err = rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{redisAddress}, DisableCache: true, AlwaysPipelining: true}); err != nil {
		return err
	}
	go s.commit(db)

	gin.SetMode(gin.ReleaseMode)
	router := gin.New()
	router.POST("/login", func(c *gin.Context) {
		token := rand.Text()
		s.sessions.Store(token, c.Query("user"))
		c.SetCookie("session", token, 0, "/", "", false, true)
		c.Status(http.StatusNoContent)
	})
	signedIn := router.Group("/", s.mustBeSignedIn)
	signedIn.GET("/session", func(c *gin.Context) { answer(c, http.StatusOK, map[string]string{"user": c.GetString("user")}) })
	signedIn.POST("/processes", func(c *gin.Context) { s.write(c, http.StatusCreated, insert) })
	signedIn.GET("/processes/:id", s.read)
	signedIn.POST("/processes/:id/lock", s.lock)
	signedIn.PUT("/processes/:id", s.replace)
	signedIn.DELETE("/processes/:id/lock", s.unlock)
	return (&http.Server{Addr: address, Handler: router, ReadHeaderTimeout: time.Minute}).ListenAndServe()
}

func (s *server) mustBeSignedIn(c *gin.Context) {
	token, _ := c.Cookie("session")
	user, ok := s.sessions.Load(token)
	if !ok {
		c.AbortWithStatus(http.StatusUnauthorized)
		return
	}
	left, err := gcra.Exec(c, s.redis, []string{"limit:" + user.(string)}, nil).AsInt64()
	if err != nil || left < 0 {
		c.AbortWithStatus(http.StatusTooManyRequests)
		return
	}
	c.Header("RateLimit", `"api";r=`+strconv.FormatInt(left, 10)+`;t=1`)
	c.Set("user", user)
}

func answer(c *gin.Context, status int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		c.AbortWithStatus(http.StatusServiceUnavailable)
		return
	}
	c.Data(status, "application/json", text)
}

func scan(row *sql.Row) (p process, err error) {
	var updated int64
	err = row.Scan(&p.ID, &p.Title, &p.Status, &p.Description, &p.Version, &updated, &p.UpdatedBy)
	p.UpdatedAt = time.UnixMicro(updated).UTC()
	return p, err
}

// commit does all writes that wait in one transaction, and answers when it is on the disk.
func (s *server) commit(db *sql.DB) {
	ctx := context.Background()
	conn, err := db.Conn(ctx)
	if err != nil {
		log.Fatal(err)
	}
	prepared := map[string]*sql.Stmt{}
	for _, text := range []string{insert, update} {
		if prepared[text], err = conn.PrepareContext(ctx, text); err != nil {
			log.Fatal(err)
		}
	}
	for first := range s.writes {
		all := []write{first}
		for more := true; more; {
			select {
			case next := <-s.writes:
				all = append(all, next)
			default:
				more = false
			}
		}
		answers := make([]written, len(all))
		tx, failed := conn.BeginTx(ctx, nil)
		if failed == nil {
			for i, w := range all {
				answers[i].process, answers[i].err = scan(tx.Stmt(prepared[w.statement]).QueryRow(w.args...))
			}
			failed = tx.Commit()
		}
		for i, w := range all {
			if failed != nil {
				answers[i].err = failed
			}
			w.done <- answers[i]
		}
	}
}

func (s *server) write(c *gin.Context, status int, statement string, more ...any) {
	var p process
	if err := json.NewDecoder(c.Request.Body).Decode(&p); err != nil {
		c.AbortWithStatus(http.StatusBadRequest)
		return
	}
	done := make(chan written, 1)
	s.writes <- write{statement, append([]any{p.Title, p.Status, p.Description, time.Now().UnixMicro(), c.GetString("user")}, more...), done}
	w := <-done
	if w.err != nil {
		c.AbortWithStatus(http.StatusServiceUnavailable)
		return
	}
	answer(c, status, w.process)
}

func (s *server) read(c *gin.Context) {
	p, err := scan(s.find.QueryRow(c.Param("id")))
	if err != nil {
		c.AbortWithStatus(http.StatusNotFound)
		return
	}
	c.Header("ETag", strconv.Quote(strconv.FormatInt(p.Version, 10)))
	answer(c, http.StatusOK, p)
}

func keyOf(c *gin.Context) string { return "{l}lock:" + c.Param("id") }

func (s *server) lock(c *gin.Context) {
	token := rand.Text()
	end := time.Now().Add(5 * time.Minute)
	fence, err := acquire.Exec(c, s.redis, []string{keyOf(c), "{l}index", "{l}fence"},
		[]string{token, "300000", strconv.FormatInt(end.UnixMilli(), 10)}).AsInt64()
	if err != nil || fence == 0 {
		c.AbortWithStatus(http.StatusLocked)
		return
	}
	p, err := scan(s.find.QueryRow(c.Param("id")))
	if err != nil {
		c.AbortWithStatus(http.StatusNotFound)
		return
	}
	answer(c, http.StatusCreated, map[string]any{"lockToken": token, "expiresAt": end, "fence": fence, "process": p})
}

func (s *server) replace(c *gin.Context) {
	held, err := s.redis.Do(c, s.redis.B().Get().Key(keyOf(c)).Build()).ToString()
	if err != nil || held != strings.TrimSpace(c.GetHeader(lockToken)) {
		c.AbortWithStatus(http.StatusConflict)
		return
	}
	s.write(c, http.StatusOK, update, c.Param("id"))
}

func (s *server) unlock(c *gin.Context) {
	done, err := release.Exec(c, s.redis, []string{keyOf(c), "{l}index"}, []string{c.GetHeader(lockToken)}).AsInt64()
	if err != nil || done == 0 {
		c.AbortWithStatus(http.StatusConflict)
		return
	}
	c.Status(http.StatusNoContent)
}
