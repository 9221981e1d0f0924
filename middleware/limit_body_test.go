package middleware_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
	"gatehouse/services/servicestest"
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

// A client that announces a body and sends none is answered soon, whether or not a handler wants the
// body. The server's own limit is none here.
func TestBodyThatDoesNotCome(t *testing.T) {
	t.Parallel()
	router := gin.New()
	router.Use(middleware.LimitBody(64 << 10))
	router.GET("/", func(c *gin.Context) { c.String(http.StatusOK, "read") })
	router.POST("/", func(c *gin.Context) { c.String(http.StatusOK, "not wanted") })
	router.POST("/wanted", func(c *gin.Context) {
		body, err := io.ReadAll(c.Request.Body)
		c.String(http.StatusOK, "%s %v", body, err)
	})
	server := httptest.NewServer(router)
	t.Cleanup(server.Close)
	for _, row := range []struct {
		name, request, later, answer string
		closes                       bool
	}{
		{"GET", "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n", "", "read", true},
		{"a body that no handler wants", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n", "", "not wanted", true},
		{"in pieces", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", "", "not wanted", true},
		{"one that is there", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1", "", "not wanted", false},
		{"one that a handler waits for", "POST /wanted HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n", "1", "1 <nil>", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(servicestest.Patience)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(conn, row.request); err != nil {
				t.Fatal(err)
			}
			if row.later != "" {
				time.Sleep(1500 * time.Millisecond) // longer than for a body that is not wanted
				if _, err := io.WriteString(conn, row.later); err != nil {
					t.Fatal(err)
				}
			}
			stream := bufio.NewReader(conn)
			res, err := http.ReadResponse(stream, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			if err != nil || string(body) != row.answer || res.Close != row.closes {
				t.Errorf("%q, %v, closed: %t", body, err, res.Close)
			}
			if !row.closes {
				return
			}
			if _, err := stream.ReadByte(); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the connection stays open: %v", err)
			}
		})
	}
}
