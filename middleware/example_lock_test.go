package middleware_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
	"gatehouse/services/lock"
	"gatehouse/services/redis"
	"gatehouse/services/redis/embedded"
)

// An editor takes a lock with one request and writes with another: only the token
// that the first answered opens the second.
func ExampleRequireLock() {
	locks, tokens, done := exampleLocks()
	defer done()
	user := func(c *gin.Context) string { return c.GetHeader("User") } // yours is signed in; with LoadSession leave it out
	order := func(c *gin.Context) string { return "order:" + c.Param("id") }

	gin.SetMode(gin.ReleaseMode)
	router := gin.New()
	router.POST("/orders/:id/lock", func(c *gin.Context) {
		held, err := locks.TryAcquire(c.Request.Context(), lock.Request{Resource: order(c), Holder: models.Holder{UserID: user(c)}})
		if errors.Is(err, models.ErrNotAcquired) {
			c.Status(http.StatusLocked)
			return
		}
		token, signErr := tokens.Sign(held, user(c), 0)
		if err := errors.Join(err, signErr); err != nil {
			c.Status(http.StatusServiceUnavailable)
			return
		}
		c.String(http.StatusCreated, token)
	})
	router.PUT("/orders/:id", middleware.RequireLock(tokens, middleware.LockOptions{Resource: order, User: user}), func(c *gin.Context) {
		held, _ := middleware.LockFrom(c)
		// Write in a transaction that fence.Guard admits under held.Fence: the
		// lock may have ended since it was looked at.
		c.String(http.StatusOK, "%s writes %s, fence: %t", held.UserID, held.Resource, held.Fence != nil)
	})

	router.DELETE("/orders/:id/lock", func(c *gin.Context) {
		grant, err := tokens.Open(c.Request.Context(), order(c), user(c), c.GetHeader(middleware.LockTokenHeader))
		if err == nil {
			_, err = locks.Release(c.Request.Context(), grant.LockClaim)
		}
		if err != nil {
			middleware.RefuseLock(c, err)
			return
		}
		c.Status(http.StatusNoContent)
	})

	ask := func(method, path, user, token string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, path, nil)
		r.Header.Set("User", user)
		r.Header.Set(middleware.LockTokenHeader, token)
		w := httptest.NewRecorder()
		router.ServeHTTP(w, r)
		return w
	}
	token := ask("POST", "/orders/7/lock", "alice", "").Body.String()
	fmt.Println("bob:", ask("POST", "/orders/7/lock", "bob", "").Code)
	fmt.Println("alice:", ask("PUT", "/orders/7", "alice", token).Body)
	fmt.Println("without it:", ask("PUT", "/orders/7", "alice", "").Code)
	fmt.Println("another order:", ask("PUT", "/orders/8", "alice", token).Code)
	fmt.Println("released:", ask("DELETE", "/orders/7/lock", "alice", token).Code)
	fmt.Println("too late:", ask("PUT", "/orders/7", "alice", token).Code)
	// Output:
	// bob: 423
	// alice: alice writes order:7, fence: true
	// without it: 428
	// another order: 409
	// released: 204
	// too late: 409
}

// exampleLocks are on a Redis inside the process.
func exampleLocks() (*lock.Locker, *lock.Tokens, func()) {
	server, err := embedded.Start()
	if err != nil {
		panic(err)
	}
	rdb := redis.New(redis.Options{Client: server.ClientOption(), Embedded: true, Timeout: 3 * time.Second, Logger: slog.New(slog.DiscardHandler)})
	rdb.WaitReady(context.Background())
	secret := strings.Repeat("k", 32) // yours: 32 secret bytes or more, the same in each instance
	locks := lock.New(rdb, lock.Options{})
	signer, err := lock.NewTokenSigner([]string{secret})
	if err != nil {
		panic(err)
	}
	tokens := lock.NewTokens(locks, signer)
	return locks, tokens, func() {
		_ = rdb.Close(context.Background())
		server.Close()
	}
}
