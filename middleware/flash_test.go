package middleware_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
)

func TestFlash(t *testing.T) {
	at := time.Date(2026, 11, 29, 14, 2, 3, 0, time.UTC)
	fake := newFakeSessions()
	store := middleware.NewSessionStore(fake, middleware.SessionStoreOptions{})
	gin.SetMode(gin.TestMode)
	r := gin.New()
	r.Use(middleware.Sessions(store.CookieName(), store))
	r.POST("/do", func(c *gin.Context) {
		for _, flash := range []middleware.Flash{{Text: "done"}, {Text: "broken", Failed: true}, {Text: "done too", At: at}} {
			if err := middleware.AddFlash(c, flash); err != nil {
				t.Error(err)
			}
		}
	})
	r.GET("/show", func(c *gin.Context) {
		flashes, err := middleware.Flashes(c)
		if err != nil {
			t.Error(err)
		}
		said := []string{}
		for _, flash := range flashes {
			said = append(said, fmt.Sprintf("%s %t", flash.Text, flash.Failed))
			if !flash.At.IsZero() {
				said = append(said, flash.At.String())
			}
		}
		c.String(http.StatusOK, fmt.Sprint(said))
	})
	token := fake.signIn("viewer")
	send := func(method, path string) string {
		w := httptest.NewRecorder()
		req := httptest.NewRequest(method, path, nil)
		req.AddCookie(&http.Cookie{Name: store.CookieName(), Value: token})
		r.ServeHTTP(w, req)
		return w.Body.String()
	}
	version := func() int64 { s, _ := fake.Get(t.Context(), token); return s.Version }

	if got := send(http.MethodGet, "/show"); got != "[]" || version() != 0 {
		t.Errorf("without messages: %s, and the session was written (version %d)", got, version())
	}
	send(http.MethodPost, "/do")
	if got := send(http.MethodGet, "/show"); got != "[broken true done false done too false 2026-11-29 14:02:03 +0000 UTC]" {
		t.Errorf("the messages are %s", got)
	}
	if got := send(http.MethodGet, "/show"); got != "[]" {
		t.Errorf("shown a second time: %s", got)
	}
}
