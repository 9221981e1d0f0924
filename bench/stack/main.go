// Command stack is what a Gin user would assemble today for what gatehouse does: sessions of
// gin-contrib, limits of ulule and locks of redsync, each on Redis, and SQLite.
//
//	stack ADDRESS REDIS DATABASE
package main

import (
	"context"
	"database/sql"
	"errors"
	"log"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/gin-contrib/sessions"
	redissessions "github.com/gin-contrib/sessions/redis"
	"github.com/gin-gonic/gin"
	"github.com/go-redsync/redsync/v4"
	"github.com/go-redsync/redsync/v4/redis/goredis/v9"
	"github.com/redis/go-redis/v9"
	"github.com/ulule/limiter/v3"
	limitgin "github.com/ulule/limiter/v3/drivers/middleware/gin"
	limitredis "github.com/ulule/limiter/v3/drivers/store/redis"
	_ "modernc.org/sqlite"
)

type process struct {
	ID          int64     `json:"id,string"`
	Title       string    `json:"title" binding:"required,max=200"`
	Status      string    `json:"status" binding:"required,oneof=draft active paused done"`
	Description string    `json:"description" binding:"max=10000"`
	Version     int64     `json:"version"`
	UpdatedAt   time.Time `json:"updatedAt"`
	UpdatedBy   string    `json:"updatedBy"`
}

type server struct {
	db    *sql.DB
	locks *redsync.Redsync
}

const lockToken = "X-Lock-Token"

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: stack ADDRESS REDIS DATABASE")
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
	if _, err := db.Exec(`CREATE TABLE IF NOT EXISTS processes (id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT NOT NULL, status TEXT NOT NULL,
		description TEXT NOT NULL, version INTEGER NOT NULL, updated_at INTEGER NOT NULL, updated_by TEXT NOT NULL)`); err != nil {
		return err
	}
	client := redis.NewClient(&redis.Options{Addr: redisAddress})
	limits, err := limitredis.NewStoreWithOptions(client, limiter.StoreOptions{Prefix: "limit"})
	if err != nil {
		return err
	}
	kept, err := redissessions.NewStore(64, "tcp", redisAddress, "", "", []byte("0123456789abcdef0123456789abcdef"))
	if err != nil {
		return err
	}
	s := &server{db: db, locks: redsync.New(goredis.NewPool(client))}

	gin.SetMode(gin.ReleaseMode)
	router := gin.New()
	router.Use(gin.Recovery(), sessions.Sessions("session", kept))
	router.POST("/login", s.login)
	signedIn := router.Group("/", mustBeSignedIn, limitgin.NewMiddleware(
		limiter.New(limits, limiter.Rate{Period: time.Minute, Limit: 100_000_000}),
		limitgin.WithKeyGetter(func(c *gin.Context) string { return c.GetString("user") })))
	signedIn.GET("/session", func(c *gin.Context) { c.JSON(http.StatusOK, gin.H{"user": c.GetString("user")}) })
	signedIn.POST("/processes", s.create)
	signedIn.GET("/processes/:id", s.read)
	signedIn.POST("/processes/:id/lock", s.lock)
	signedIn.PUT("/processes/:id", s.write)
	signedIn.DELETE("/processes/:id/lock", s.unlock)
	return (&http.Server{Addr: address, Handler: router, ReadHeaderTimeout: time.Minute}).ListenAndServe()
}

func (s *server) login(c *gin.Context) {
	session := sessions.Default(c)
	session.Set("user", c.Query("user"))
	if err := session.Save(); err != nil {
		c.AbortWithStatus(http.StatusServiceUnavailable)
		return
	}
	c.Status(http.StatusNoContent)
}

func mustBeSignedIn(c *gin.Context) {
	user, _ := sessions.Default(c).Get("user").(string)
	if user == "" {
		c.AbortWithStatus(http.StatusUnauthorized)
		return
	}
	c.Set("user", user)
}

const columns = `id, title, status, description, version, updated_at, updated_by`

func scan(row *sql.Row) (p process, err error) {
	var updated int64
	err = row.Scan(&p.ID, &p.Title, &p.Status, &p.Description, &p.Version, &updated, &p.UpdatedBy)
	p.UpdatedAt = time.UnixMicro(updated).UTC()
	return p, err
}

// answer answers with the process, or says what failed.
func answer(c *gin.Context, status int, p process, err error) {
	switch {
	case errors.Is(err, sql.ErrNoRows):
		c.AbortWithStatus(http.StatusNotFound)
	case err != nil:
		c.AbortWithStatus(http.StatusServiceUnavailable)
	default:
		c.JSON(status, p)
	}
}

func (s *server) create(c *gin.Context) {
	var p process
	if err := c.ShouldBindJSON(&p); err != nil {
		c.AbortWithStatus(http.StatusBadRequest)
		return
	}
	p, err := scan(s.db.QueryRowContext(c, `INSERT INTO processes (title, status, description, version, updated_at, updated_by)
		VALUES (?, ?, ?, 1, ?, ?) RETURNING `+columns, p.Title, p.Status, p.Description, time.Now().UnixMicro(), c.GetString("user")))
	answer(c, http.StatusCreated, p, err)
}

func (s *server) find(ctx context.Context, id string) (process, error) {
	return scan(s.db.QueryRowContext(ctx, `SELECT `+columns+` FROM processes WHERE id = ?`, id))
}

func (s *server) read(c *gin.Context) {
	p, err := s.find(c, c.Param("id"))
	if err == nil {
		c.Header("ETag", strconv.Quote(strconv.FormatInt(p.Version, 10)))
	}
	answer(c, http.StatusOK, p, err)
}

func (s *server) mutex(c *gin.Context, options ...redsync.Option) *redsync.Mutex {
	return s.locks.NewMutex("lock:"+c.Param("id"), append(options, redsync.WithExpiry(5*time.Minute), redsync.WithTries(1))...)
}

// held is the mutex as the client's token says.
func (s *server) held(c *gin.Context) *redsync.Mutex {
	return s.mutex(c, redsync.WithValue(c.GetHeader(lockToken)))
}

func (s *server) lock(c *gin.Context) {
	mutex := s.mutex(c)
	if err := mutex.TryLockContext(c); err != nil {
		c.AbortWithStatus(http.StatusLocked)
		return
	}
	p, err := s.find(c, c.Param("id"))
	if err != nil {
		_, _ = mutex.UnlockContext(c)
		answer(c, 0, p, err)
		return
	}
	c.JSON(http.StatusCreated, gin.H{"lockToken": mutex.Value(), "expiresAt": mutex.Until(), "process": p})
}

func (s *server) write(c *gin.Context) {
	var p process
	if err := c.ShouldBindJSON(&p); err != nil {
		c.AbortWithStatus(http.StatusBadRequest)
		return
	}
	if held, err := s.held(c).ValidContext(c); err != nil || !held {
		c.AbortWithStatus(http.StatusConflict)
		return
	}
	p, err := scan(s.db.QueryRowContext(c, `UPDATE processes SET title = ?, status = ?, description = ?, version = version + 1, updated_at = ?, updated_by = ?
		WHERE id = ? RETURNING `+columns, p.Title, p.Status, p.Description, time.Now().UnixMicro(), c.GetString("user"), c.Param("id")))
	answer(c, http.StatusOK, p, err)
}

func (s *server) unlock(c *gin.Context) {
	if released, err := s.held(c).UnlockContext(c); err != nil || !released {
		c.AbortWithStatus(http.StatusConflict)
		return
	}
	c.Status(http.StatusNoContent)
}
