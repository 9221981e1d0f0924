package middleware_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"

	"github.com/gin-contrib/sessions"
	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/services/redis"
	"gatehouse/services/session"
	"gatehouse/services/store"
)

// Two lines change where an application used sessions/redis of gin-contrib:
//
//	store, err := redis.NewStore(10, "tcp", "localhost:6379", "", "", []byte("secret"))
//	router.Use(sessions.Sessions("shop", store))
//
// Handlers stay as they are.
func ExampleSessionStore() {
	cache, closeCache := exampleSessions()
	defer closeCache()

	gin.SetMode(gin.ReleaseMode)
	router := gin.New()
	store := middleware.NewSessionStore(cache, middleware.SessionStoreOptions{Name: "shop"})
	router.Use(middleware.Sessions(store.CookieName(), store))

	router.GET("/", func(c *gin.Context) {
		current := sessions.Default(c)
		visits, _ := current.Get("visits").(int)
		current.Set("visits", visits+1)
		if err := current.Save(); err != nil {
			c.AbortWithStatus(http.StatusServiceUnavailable)
			return
		}
		c.String(http.StatusOK, "visit %d", visits+1)
	})

	var cookie *http.Cookie
	for range 3 {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		if cookie != nil {
			r.AddCookie(cookie)
		}
		w := httptest.NewRecorder()
		router.ServeHTTP(w, r)
		if set := w.Result().Cookies(); len(set) > 0 {
			cookie = set[0]
		}
		fmt.Println(w.Body)
	}
	// Output:
	// visit 1
	// visit 2
	// visit 3
}

// Who is signed in, and what for: first the look-up, then what each route needs.
func ExampleLoadSession() {
	cache, closeCache := exampleSessions()
	defer closeCache()

	gin.SetMode(gin.ReleaseMode)
	router := gin.New()
	router.Use(middleware.LoadSession(cache, "shop"))
	router.GET("/orders", middleware.RequireSession(), func(c *gin.Context) {
		current, _ := middleware.SessionFrom(c)
		c.String(http.StatusOK, "orders of %s", current.User.Email)
	})

	w := httptest.NewRecorder()
	router.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/orders", nil))
	fmt.Println(w.Code, w.Header().Get("WWW-Authenticate"))
	// Output:
	// 401 Bearer
}

// exampleSessions runs without Redis, on a database of its own.
func exampleSessions() (*session.Cache, func()) {
	folder, err := os.MkdirTemp("", "sessions")
	if err != nil {
		panic(err)
	}
	db, err := store.Open(context.Background(), store.Options{URL: filepath.Join(folder, "sessions.db")})
	if err != nil {
		panic(err)
	}
	rdb := redis.New(redis.Options{Disabled: true, Logger: slog.New(slog.DiscardHandler)})
	cache, err := session.NewCache(rdb, db, session.Options{Watch: db.WatchRevocations, Budget: db.WithinBudget})
	if err != nil {
		panic(err)
	}
	stopCleaning := db.KeepClean()
	return cache, func() {
		ctx := context.Background()
		_ = cache.Close(ctx)
		_ = stopCleaning(ctx)
		_ = rdb.Close(ctx)
		_ = db.Close()
		_ = os.RemoveAll(folder)
	}
}
