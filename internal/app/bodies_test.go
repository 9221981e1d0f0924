package app

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"gatehouse/services/servicestest"
)

const (
	bodyLimit = 1 << 20
	upload    = 48 << 20 // more than net/http would keep of a multipart form in memory
)

// bodyKind is a content type, and what a body of it begins and ends with. All between
// is filled up.
type bodyKind struct{ name, contentType, begin, end string }

func bodyKinds() []bodyKind {
	return []bodyKind{
		{"form", "application/x-www-form-urlencoded", "email=", ""},
		{
			"multipart", "multipart/form-data; boundary=b",
			"--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f\"\r\n\r\n", "\r\n--b--\r\n",
		},
		{"json", "application/json", `{"title":"`, `"}`},
		{"text", "text/plain", "", ""},
		{"untyped", "", "", ""},
	}
}

// sentBody is a body of a given length that counts what is read of it.
type sentBody struct {
	source io.Reader
	read   int64
}

func (k bodyKind) body(length int64) *sentBody {
	filling := io.LimitReader(filler{}, length-int64(len(k.begin)+len(k.end)))
	return &sentBody{source: io.MultiReader(strings.NewReader(k.begin), filling, strings.NewReader(k.end))}
}

func (b *sentBody) Read(p []byte) (int, error) {
	n, err := b.source.Read(p)
	b.read += int64(n)
	return n, err
}

type filler struct{}

var letters = bytes.Repeat([]byte("a"), 64<<10)

func (filler) Read(p []byte) (int, error) { return copy(p, letters), nil }

// leaver is a client that leaves when a stream begins.
type leaver struct {
	*httptest.ResponseRecorder
	leave func()
}

func (l leaver) Flush() {
	l.ResponseRecorder.Flush()
	l.leave()
}

// sending is one request of the walk over all routes.
type sending struct {
	route
	kind    bodyKind
	length  int64
	chunked bool
	token   string
}

func (s sending) String() string {
	return fmt.Sprintf("%s %s, %s, %d bytes, chunked: %t, signed in: %t", s.method, s.path, s.kind.name, s.length, s.chunked, s.token != "")
}

// to sends it and checks what of the body was read.
func (s sending) to(t *testing.T, a *app) (status int) {
	t.Helper()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	body := s.kind.body(s.length)
	r := httptest.NewRequestWithContext(ctx, s.method, s.path, body)
	if r.ContentLength = s.length; s.chunked {
		r.ContentLength = -1
	}
	r.Header.Set("Content-Type", s.kind.contentType)
	if s.token != "" {
		r.Header.Set("Authorization", "Bearer "+s.token)
	}
	w := leaver{httptest.NewRecorder(), leave}
	a.server.Handler.ServeHTTP(w, r)
	most := int64(bodyLimit + 1) // one byte more tells that there is more
	switch {
	case s.method == http.MethodGet || s.method == http.MethodHead,
		slices.Contains([]int{401, 403, 405, 429}, w.Code), !s.chunked && (w.Code == 413 || w.Code == 415),
		w.Code == 404 && s.kind.name != "json" && s.kind.name != "form": // or what the body names may be missing
		most = 0
	case w.Code == 415:
		most = 2 // whether there is any
	}
	if body.read > most {
		t.Errorf("%v: %d, and %d bytes are read, want at most %d", s, w.Code, body.read, most)
	}
	if w.Code >= 500 || s.kind.name == "multipart" && (w.Code == 400 || w.Code == 413 && s.length < bodyLimit || w.Code == 422 && body.read > 0) {
		t.Errorf("%v: %d %s", s, w.Code, w.Body)
	}
	return w.Code
}

// It sends bodies of all kinds to every route, and to paths without one: nothing reads more than
// the limit, a refusal reads nothing, and nothing is left in the temporary folder, in memory or
// running.
func TestNoRouteReadsWhatIsNotBounded(t *testing.T) {
	a := startApp(t, map[string]string{"REDIS_ENABLED": "false"})
	limited := startApp(t, map[string]string{"REDIS_ENABLED": "false", "RATE_LIMIT_MAX": "1"})
	for range 2 { // now that address has had its one request
		limited.do(http.MethodGet, "/", "")
	}
	admin, folder := a.signIn(t, "admin@example.com"), t.TempDir()
	t.Setenv("TMPDIR", folder)
	routes := a.routes("999")
	for _, path := range []string{"/", "/nowhere", "/api", "/api/v1/nowhere", "/static/nothing", "/swagger/nothing", "/login/"} {
		routes = append(routes, route{"GET", path, path})
	}
	for _, r := range slices.Clone(routes) {
		for _, method := range []string{"GET", "POST"} { // which the path may not have
			if r.method = method; !slices.Contains(routes, r) {
				routes = append(routes, r)
			}
		}
	}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	goroutines := runtime.NumGoroutine()
	for _, r := range routes {
		for _, kind := range bodyKinds() {
			for _, s := range []sending{{length: 200}, {length: upload}, {length: upload, chunked: true}} {
				s.route, s.kind = r, kind
				s.to(t, a)
				if over := s.to(t, limited); r.path == "/login" && r.method == "POST" && over != 429 {
					t.Errorf("%v, over the limit: %d", s, over)
				}
				s.token = admin
				if status := s.to(t, a); r.ends() && status < 400 {
					admin = a.signIn(t, "admin@example.com")
				}
			}
		}
		if t.Failed() {
			t.FailNow() // much more of the same
		}
	}
	files, err := os.ReadDir(folder)
	if err != nil || len(files) > 0 {
		t.Errorf("left in the temporary folder: %v, %v", files, err)
	}
	servicestest.Eventually(t, func() bool { return runtime.NumGoroutine() <= goroutines }, "goroutines are left")
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 16<<20 {
		t.Errorf("%d bytes are left in memory", grown)
	}
}

// Who asks first is told before it sends a body that is too large.
func TestTooLargeIsToldBeforeItIsSent(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(startApp(t, nil).server.Handler)
	defer server.Close()
	for size, want := range map[int]string{bodyLimit + 1: "HTTP/1.1 413 ", bodyLimit: "HTTP/1.1 100 "} {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		_, err = fmt.Fprintf(conn, "POST /api/v1/auth/login HTTP/1.1\r\nHost: gatehouse\r\nContent-Type: application/json\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n", size)
		if err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err != nil || !strings.HasPrefix(line, want) {
			t.Errorf("to %d bytes: %q, %v, want %q", size, line, err, want)
		}
	}
}
