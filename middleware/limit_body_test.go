package middleware_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
)

func TestLimitBody(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	router := gin.New()
	router.MaxMultipartMemory = 1 // or a small file would stay in memory
	router.Use(middleware.LimitBody(64 << 10))
	read := func(c *gin.Context) {
		var tooLarge *http.MaxBytesError
		switch body, err := io.ReadAll(c.Request.Body); {
		case errors.As(err, &tooLarge) && tooLarge.Limit == 64<<10:
			c.String(http.StatusRequestEntityTooLarge, "")
		case err != nil:
			c.String(http.StatusInternalServerError, "%v", err)
		default:
			c.String(http.StatusOK, "%d", len(body))
		}
	}
	router.GET("/", read)
	router.POST("/", read)
	router.POST("/form", func(c *gin.Context) {
		file, err := c.FormFile("f")
		c.String(http.StatusOK, "%q %t %v", c.PostForm("name"), file == nil, err != nil)
	})
	multipart := "--b\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\nx\r\n--b\r\n" +
		"Content-Disposition: form-data; name=\"f\"; filename=\"f\"\r\n\r\ncontent\r\n--b--\r\n"
	for _, row := range []struct {
		method, path, kind, body string
		status                   int
		answer                   string
	}{
		{"POST", "/", "", strings.Repeat("x", 64<<10), 200, "65536"},
		{"POST", "/", "", strings.Repeat("x", 64<<10+1), 413, ""},
		{"GET", "/", "", strings.Repeat("x", 100), 200, "0"},
		{"POST", "/form", "application/x-www-form-urlencoded", "name=x", 200, `"x" true true`},
		{"POST", "/form", "multipart/form-data; boundary=b", multipart, 200, `"" true true`},
	} {
		r := httptest.NewRequest(row.method, row.path, strings.NewReader(row.body))
		r.Header.Set("Content-Type", row.kind)
		w := httptest.NewRecorder()
		router.ServeHTTP(w, r)
		if w.Code != row.status || w.Body.String() != row.answer {
			t.Errorf("%s %s %s, %d bytes: %d %s", row.method, row.path, row.kind, len(row.body), w.Code, w.Body)
		}
	}
	if files, err := os.ReadDir(os.TempDir()); err != nil || len(files) > 0 {
		t.Errorf("left in the temporary folder: %v, %v", files, err)
	}
}
