package middleware_test

import (
	"database/sql"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/gin-gonic/gin"
	_ "modernc.org/sqlite"

	"gatehouse/middleware"
	"gatehouse/models"
	"gatehouse/services/fence"
)

// RequireLock looks before the handler works, and a handler may be slow: its lock ends
// and the next holder writes. The fence that RequireLock handed over lets the
// database refuse the late write, and the client gets the answer that RequireLock would have
// given.
func TestRequireLockAndFenceGuard(t *testing.T) {
	app := newLockApp(t, models.OnRedisDownOpen)
	db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "orders.db")+"?_busy_timeout=20000&_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	var guard fence.Guard
	if _, err := db.ExecContext(t.Context(), guard.Schema()+`; CREATE TABLE orders (text TEXT); INSERT INTO orders VALUES ('')`); err != nil {
		t.Fatal(err)
	}
	arrived, goOn := make(chan struct{}), make(chan struct{})
	write := func(c *gin.Context, lock models.LockGrant) error {
		tx, err := db.BeginTx(c.Request.Context(), nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()
		if err := guard.Admit(c.Request.Context(), tx, lock.Resource, lock.Fence); err != nil {
			return err
		}
		if _, err := tx.ExecContext(c.Request.Context(), `UPDATE orders SET text = $1`, lock.UserID); err != nil {
			return err
		}
		return tx.Commit()
	}
	app.POST("/orders/:id", middleware.RequireLock(app.tokens, middleware.LockOptions{
		Resource: func(c *gin.Context) string { return "order:" + c.Param("id") },
		User:     func(c *gin.Context) string { return c.GetHeader("User") },
	}), func(c *gin.Context) {
		if c.Query("slow") != "" {
			close(arrived)
			<-goOn
		}
		lock, _ := middleware.LockFrom(c)
		if err := write(c, lock); err != nil {
			middleware.RefuseLock(c, err)
			return
		}
		c.Status(http.StatusNoContent)
	})
	post := func(path, user, token string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodPost, path, nil)
		r.Header.Set("User", user)
		r.Header.Set("X-Lock-Token", token)
		w := httptest.NewRecorder()
		app.ServeHTTP(w, r)
		return w
	}
	stored := func() (text string) {
		t.Helper()
		if err := db.QueryRowContext(t.Context(), `SELECT text FROM orders`).Scan(&text); err != nil {
			t.Fatal(err)
		}
		return text
	}

	_, token := app.lock(t, "order:1", "alice")
	if w := post("/orders/1", "alice", token); w.Code != http.StatusNoContent || stored() != "alice" {
		t.Fatalf("the holder: %d %s", w.Code, w.Body)
	}
	late := make(chan *httptest.ResponseRecorder, 1)
	go func() { late <- post("/orders/1?slow=1", "alice", token) }()
	<-arrived // past RequireLock
	if _, err := app.locks.ForceRelease(t.Context(), "order:1", nil); err != nil {
		t.Fatal(err)
	}
	_, next := app.lock(t, "order:1", "bob")
	if w := post("/orders/1", "bob", next); w.Code != http.StatusNoContent {
		t.Fatalf("the next holder: %d %s", w.Code, w.Body)
	}
	close(goOn)
	wantProblem(t, <-late, http.StatusConflict, "lock-not-held")
	if got := stored(); got != "bob" {
		t.Errorf("%s's late write is stored", got)
	}

	// A lock granted without Redis has no fence: the guard cannot place it.
	app.server.Kill()
	_, degraded := app.lock(t, "order:2", "alice")
	if w := post("/orders/2", "alice", degraded); stored() != "bob" {
		t.Errorf("written without a fence: %d", w.Code)
	} else {
		wantProblem(t, w, http.StatusServiceUnavailable, "unavailable")
	}
}
