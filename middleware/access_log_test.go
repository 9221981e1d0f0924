package middleware_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"

	"gatehouse/middleware"
	"gatehouse/models"
)

// The URL, its query, every header and every body stay out of the log: any may have a token in it.
func TestAccessLogHasNoSecret(t *testing.T) {
	const secret = "s3cret"
	var lines bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&lines, &slog.HandlerOptions{Level: slog.LevelDebug}))
	app := gin.New()
	app.Use(middleware.RequestID(), middleware.AccessLog(log, "/quiet"), middleware.Recovery(log))
	app.POST("/things/:id", func(c *gin.Context) { _ = c.Error(errors.New("why")) })
	app.POST("/quiet", func(c *gin.Context) { middleware.WriteProblem(c, models.NewProblem("unavailable", "Later.")) })
	app.POST("/panic", func(*gin.Context) { panic("for the test") })
	for _, path := range []string{"/things/" + secret, "/quiet", "/panic", "/nowhere/" + secret} {
		r := httptest.NewRequest(http.MethodPost, path+"?token="+secret+"&q="+secret, strings.NewReader(`{"password":"`+secret+`"}`))
		r.URL.Fragment, r.URL.User = secret, url.UserPassword("ann", secret)
		for _, header := range []string{
			"Authorization", "Cookie", "X-Lock-Token", "Idempotency-Key", "X-Api-Key", "Referer", "Origin", "User-Agent", "X-Forwarded-For", "X-Real-Ip", "X-Request-Id",
		} {
			r.Header.Set(header, "Bearer gatehouse="+secret+"; "+secret)
		}
		lines.Reset()
		app.ServeHTTP(httptest.NewRecorder(), r)
		if said := lines.String(); strings.Contains(said, secret) || !strings.Contains(said, `"msg":"request"`) {
			t.Errorf("%s is logged as %s", path, said)
		}
	}
}

func TestAccessLog(t *testing.T) {
	gone, leave := context.WithCancel(t.Context())
	leave()
	late, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	clients := map[string]context.Context{"waits": t.Context(), "gone": gone, "late": late}
	for name, row := range map[string]struct {
		client string
		path   string
		answer int
		want   string
	}{
		"answered":                          {"waits", "/a", 200, "level=INFO msg=request route=/a status=200"},
		"asked by monitoring":               {"waits", "/quiet", 200, "level=DEBUG msg=request route=/quiet status=200"},
		"refused":                           {"waits", "/a", 423, "level=INFO msg=request route=/a status=423"},
		"failed":                            {"waits", "/a", 503, "level=ERROR msg=request route=/a status=503 error=why"},
		"failed, asked by monitoring":       {"waits", "/quiet", 503, "level=ERROR msg=request route=/quiet status=503 error=why"},
		"failed as a deadline passed":       {"late", "/a", 503, "level=ERROR msg=request route=/a status=503 error=why"},
		"failed as the client left":         {"gone", "/a", 503, "level=INFO msg=request route=/a status=499 error=\"read: context canceled; why\""},
		"failed, and the client left":       {"gone", "/b", 503, "level=ERROR msg=request route=/b status=503 error=why"},
		"a fault, and the client left":      {"gone", "/panic", 500, "level=ERROR msg=request route=/panic status=500"},
		"answered although the client left": {"gone", "/a", 200, "level=INFO msg=request route=/a status=200"},
	} {
		t.Run(name, func(t *testing.T) {
			var lines bytes.Buffer
			log := slog.New(slog.NewTextHandler(&lines, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				switch a.Key {
				case "level", "msg", "route", "status", "error":
					return a
				}
				return slog.Attr{}
			}}))
			registry := prometheus.NewPedanticRegistry()
			r := gin.New()
			r.Use(middleware.AccessLog(log, "/quiet"), middleware.Metrics(registry))
			handler := func(c *gin.Context) {
				switch err := c.Request.Context().Err(); {
				case row.answer < 500 || c.FullPath() == "/panic":
				case c.FullPath() == "/a" && errors.Is(err, context.Canceled):
					_ = c.Error(fmt.Errorf("read: %w", err))
					_ = c.Error(errors.New("why"))
				default:
					_ = c.Error(errors.New("why"))
				}
				c.Status(row.answer)
			}
			for _, route := range []string{"/a", "/b", "/panic", "/quiet"} {
				r.GET(route, handler)
			}
			r.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(clients[row.client], http.MethodGet, row.path, nil))
			if got := strings.TrimSpace(lines.String()); got != row.want {
				t.Errorf("logged %q, want %q", got, row.want)
			}
			_, status, _ := strings.Cut(row.want, "status=")
			status, _, _ = strings.Cut(status, " ")
			families, err := registry.Gather()
			if err != nil || len(families) != 1 || !strings.Contains(families[0].String(), `"`+status+`"`) {
				t.Errorf("no status %s in %v: %v", status, families, err)
			}
		})
	}
}
