package middleware_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
)

func TestRequestID(t *testing.T) {
	app := appWith(middleware.RequestID(), func(c *gin.Context) {
		if id := middleware.RequestIDFrom(c); id == "" || id != c.GetHeader("X-Request-Id") {
			t.Errorf("a handler gets %q, and in the request %q", id, c.GetHeader("X-Request-Id"))
		}
	})
	for id, kept := range map[string]bool{
		"a": true, "Az09._-": true, strings.Repeat("x", 64): true, "": false, strings.Repeat("x", 65): false, "a b": false, "a\nb": false, "é": false,
	} {
		if got := ask(app, "/", "X-Request-Id", id).Header().Get("X-Request-Id"); (got == id) != kept || len(got) < 1 {
			t.Errorf("%q becomes %q", id, got)
		}
	}
	if first, second := get(app, "/").Header().Get("X-Request-Id"), get(app, "/").Header().Get("X-Request-Id"); first == second {
		t.Errorf("two requests are both %s", first)
	}

	t.Run("while another router is made", func(t *testing.T) { // the race detector sees what they share
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				if w := get(appWith(middleware.RequestID()), "/"); w.Code != http.StatusOK {
					t.Error(w.Code)
				}
			})
		}
		wg.Wait()
	})
}
