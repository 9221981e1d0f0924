package middleware_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/models"
)

func TestWriteProblem(t *testing.T) {
	app := gin.New()
	var later bool
	app.GET("/things/:id", func(c *gin.Context) {
		c.Header("X-Request-Id", "abc")
		middleware.WriteProblem(c, models.Problem{
			Name: "locked", Title: "Locked", Status: http.StatusLocked, Detail: "Try again.",
			Members: map[string]any{"expiresIn": 7},
		})
	}, func(*gin.Context) { later = true })
	w := httptest.NewRecorder()
	app.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/things/1?secret=2", nil))

	var got map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"type": "/problems/locked", "title": "Locked", "status": 423.0, "detail": "Try again.",
		"instance": "/things/1", "requestId": "abc", "expiresIn": 7.0,
	}
	if w.Code != http.StatusLocked || !reflect.DeepEqual(got, want) {
		t.Errorf("%d %v, want %v", w.Code, got, want)
	}
	if h := w.Header(); h.Get("Content-Type") != "application/problem+json" || h.Get("Cache-Control") != "no-store" {
		t.Errorf("headers %v", h)
	}
	if later {
		t.Error("a later handler ran")
	}
}

func TestWriteProblemWithAMemberThatIsNoJSON(t *testing.T) {
	app := gin.New()
	app.GET("/", func(c *gin.Context) {
		middleware.WriteProblem(c, models.Problem{Name: "x", Status: 409, Members: map[string]any{"bad": func() {}}})
	})
	w := httptest.NewRecorder()
	app.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if w.Code != 409 || !json.Valid(w.Body.Bytes()) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestWriteProblemAfterTheAnswerBegan(t *testing.T) {
	app := gin.New()
	app.GET("/", func(c *gin.Context) {
		c.String(http.StatusOK, "fine")
		middleware.WriteProblem(c, models.Problem{Name: "x", Status: 500})
	})
	w := httptest.NewRecorder()
	app.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if w.Code != http.StatusOK || w.Body.String() != "fine" {
		t.Errorf("%d %q", w.Code, w.Body)
	}
}

// A page shows problems in its own way; what fails while it does, or beyond it, is JSON.
func TestShowProblems(t *testing.T) {
	for path, want := range map[string]string{"/problem": "page: Gone", "/worse": `"title":"Worse"`, "/panic": `"title":"Internal error"`} {
		app := gin.New()
		app.Use(middleware.Recovery(slog.New(slog.DiscardHandler)), middleware.ShowProblems(func(c *gin.Context, p models.Problem) {
			if c.FullPath() == "/worse" {
				middleware.WriteProblem(c, models.Problem{Title: "Worse", Status: 503})
				return
			}
			c.String(p.Status, "page: %s", p.Title)
		}))
		app.GET("/problem", func(c *gin.Context) { middleware.WriteProblem(c, models.Problem{Title: "Gone", Status: 410}) })
		app.GET("/worse", func(c *gin.Context) { middleware.WriteProblem(c, models.Problem{Title: "Gone", Status: 410}) })
		app.GET("/panic", func(*gin.Context) { panic("for the test") })
		w := httptest.NewRecorder()
		app.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %s, want %s", path, w.Code, w.Body, want)
		}
	}
}
