package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
)

const (
	multipartBegin = "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f\"\r\n\r\n"
	multipartEnd   = "\r\n--b--\r\n"
	multipartType  = "multipart/form-data; boundary=b"
)

// filling is a body without an end, and costs next to nothing.
type filling struct{}

var fillingBlock = bytes.Repeat([]byte("a"), 64<<10)

func (filling) Read(p []byte) (int, error) { return copy(p, fillingBlock), nil }

// largeBody is a request with more than any route takes.
type largeBody struct {
	what, contentType, begin, end string
	chunked                       bool
}

// sendAll sends each of the bodies filled up to size, all at the same time. A connection
// that is cut before all is sent is an answer, too; it returns the statuses of the others.
func (c *client) sendAll(t *testing.T, size int64, bodies []largeBody) map[int]int {
	t.Helper()
	var mu sync.Mutex
	statuses := map[int]int{}
	var all sync.WaitGroup
	for _, body := range bodies {
		all.Go(func() {
			method, path, _ := strings.Cut(body.what, " ")
			content := io.MultiReader(strings.NewReader(body.begin), io.LimitReader(filling{}, size), strings.NewReader(body.end))
			req, err := http.NewRequestWithContext(t.Context(), method, c.app.URL+path, content)
			if err != nil {
				t.Error(err)
				return
			}
			if !body.chunked {
				req.ContentLength = size + int64(len(body.begin)+len(body.end))
			}
			req.Header.Set("Content-Type", body.contentType)
			if c.token != "" {
				req.Header.Set("Authorization", "Bearer "+c.token)
			}
			res, err := c.app.http.Do(req)
			if err != nil {
				return
			}
			defer res.Body.Close()
			if res.StatusCode >= http.StatusInternalServerError {
				t.Errorf("%s with %d bytes: %d", body.what, size, res.StatusCode)
			}
			mu.Lock()
			defer mu.Unlock()
			statuses[res.StatusCode]++
		})
	}
	all.Wait()
	return statuses
}

// peak is the most memory that the instance has used since the last forgetPeak, in bytes.
func (a *app) peak(t *testing.T) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", a.Pid()))
	found := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if err != nil || found == nil {
		t.Fatalf("%v\n%s", err, status)
	}
	kilobytes, _ := strconv.ParseInt(string(found[1]), 10, 64)
	return kilobytes << 10
}

func (a *app) forgetPeak(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", a.Pid()), []byte("5"), 0); err != nil {
		t.Fatal(err)
	}
}

// TestLargeBodies: uploads that nothing asked for leave no file, and many at once cost
// little memory, signed in or not.
func TestLargeBodies(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "temporary")
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	a := start(t, "TMPDIR="+folder)
	admin := a.signIn(t, "admin@example.com")

	var uploads []largeBody
	for _, what := range []string{"GET /", "GET /users", "GET /dashboard/locks", "POST /sessions/end", "POST /password", "POST /locks/force",
		"POST /users/end-everybody", "POST /login", "GET /nowhere", "POST /metrics", "GET /swagger/index.html", "POST /api/v1/processes"} {
		uploads = append(uploads, largeBody{what, multipartType, multipartBegin, multipartEnd, len(uploads)%2 == 0})
	}
	for name, sender := range map[string]*client{"signed out": a.anonymous(), "signed in": admin} {
		t.Logf("12 uploads, %s: %v", name, sender.sendAll(t, 50<<20, uploads))
	}
	if files, err := os.ReadDir(folder); err != nil || len(files) > 0 {
		t.Errorf("left in the temporary folder: %v, %v", files, err)
	}

	for _, body := range []largeBody{
		{"POST /login", multipartType, multipartBegin, multipartEnd, false},
		{"GET /", multipartType, multipartBegin, multipartEnd, true},
		{"POST /login", "application/x-www-form-urlencoded", "email=", "", true},
		{"POST /api/v1/auth/login", "application/json", `{"email":"`, `"}`, false},
		{"POST /api/v1/auth/login", "application/json", `{"email":"`, `"}`, true},
	} {
		var bodies []largeBody
		for range 24 {
			bodies = append(bodies, body)
		}
		a.forgetPeak(t)
		before := a.peak(t)
		statuses := a.anonymous().sendAll(t, 20<<20, bodies)
		cost := a.peak(t) - before
		t.Logf("24 bodies, %s, %s, chunked: %t: %d MB, %v", body.what, body.contentType, body.chunked, cost>>20, statuses)
		if cost > 120<<20 {
			t.Errorf("24 bodies of 20 MB, %s, %s, chunked: %t: they cost %d MB", body.what, body.contentType, body.chunked, cost>>20)
		}
	}
}
