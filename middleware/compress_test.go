package middleware_test

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"

	"gatehouse/middleware"
)

// answerThrough is what Compress makes of an answer.
func answerThrough(method, accept string, answer gin.HandlerFunc) *httptest.ResponseRecorder {
	gin.SetMode(gin.TestMode)
	r := gin.New()
	r.Use(middleware.Compress())
	r.Any("/", answer)
	req := httptest.NewRequest(method, "/", nil)
	if accept != "" {
		req.Header.Set("Accept-Encoding", accept)
	}
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	return w
}

func TestCompress(t *testing.T) {
	t.Parallel()
	long, short := strings.Repeat("who edits what ", 200), strings.Repeat("x", 1399)
	body := func(kind, text string, headers ...string) gin.HandlerFunc {
		return func(c *gin.Context) {
			for i := 0; i < len(headers); i += 2 {
				c.Header(headers[i], headers[i+1])
			}
			c.Data(http.StatusOK, kind, []byte(text))
		}
	}
	for name, row := range map[string]struct {
		method, accept string
		answer         gin.HandlerFunc
		text           string // "" is long
		gzip, vary     bool
		etag           string
	}{
		"a page":           {answer: body("text/html; charset=utf-8", long), gzip: true, vary: true},
		"JSON":             {answer: body("application/json; charset=utf-8", long), gzip: true, vary: true},
		"a problem":        {answer: body("application/problem+json", long), gzip: true, vary: true},
		"among others":     {accept: "br;q=1, GZIP ; q=0.5", answer: body("text/css", long), gzip: true, vary: true},
		"anything":         {accept: "*", answer: body("text/css", long), gzip: true, vary: true},
		"anything else":    {accept: "gzip;q=0, *", answer: body("text/css", long), vary: true},
		"not accepted":     {accept: "br", answer: body("text/css", long), vary: true},
		"nothing accepted": {accept: "identity", answer: body("text/css", long), vary: true},
		"a short one":      {answer: body("text/html", short), text: short},
		"a picture":        {answer: body("image/png", long)},
		"an event stream":  {answer: body("text/event-stream", long, "Cache-Control", "no-store, no-transform")},
		"with a secret": {answer: func(c *gin.Context) {
			middleware.KeepPlain(c)
			body("application/json", long)(c)
		}},
		"answer to a POST":            {method: http.MethodPost, answer: body("application/json", long)},
		"JSON with a strong ETag":     {answer: body("application/json", long, "ETag", `"5"`), etag: `"5"`},
		"a file with a strong ETag":   {answer: body("text/javascript", long, "ETag", `"ab"`), gzip: true, vary: true, etag: `W/"ab"`},
		"a file with a weak ETag":     {answer: body("text/javascript", long, "ETag", `W/"ab"`), gzip: true, vary: true, etag: `W/"ab"`},
		"compressed already":          {answer: body("text/javascript", long, "Content-Encoding", "br")},
		"with Vary of its own":        {answer: body("text/css", long, "Vary", "Accept-Encoding"), gzip: true, vary: true},
		"with Content-Length":         {answer: body("text/css", long, "Content-Length", "3000"), gzip: true, vary: true},
		"with a short Content-Length": {answer: body("text/css", short, "Content-Length", "1399"), text: short},
		"written as a string": {gzip: true, vary: true, answer: func(c *gin.Context) {
			c.Header("Content-Type", "text/html")
			_, _ = c.Writer.WriteString(long[:2000])
			_, _ = c.Writer.WriteString(long[2000:])
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if row.method == "" {
				row.method = http.MethodGet
			}
			if row.accept == "" {
				row.accept = "gzip, deflate, br"
			}
			if row.text == "" {
				row.text = long
			}
			w := answerThrough(row.method, row.accept, row.answer)
			var in io.Reader = w.Body
			if got := w.Header().Get("Content-Encoding") == "gzip"; got != row.gzip {
				t.Fatalf("compressed: %t %v", got, w.Header())
			}
			if row.gzip {
				if w.Header().Get("Content-Length") != "" || w.Body.Len() >= len(row.text) {
					t.Errorf("%d bytes, %v", w.Body.Len(), w.Header())
				}
				var err error
				if in, err = gzip.NewReader(w.Body); err != nil {
					t.Fatal(err)
				}
			}
			if text, err := io.ReadAll(in); err != nil || string(text) != row.text {
				t.Errorf("%d bytes of %d arrive: %v", len(text), len(row.text), err)
			}
			if vary := w.Header()["Vary"]; row.vary != (len(vary) == 1 && vary[0] == "Accept-Encoding") || !row.vary && len(vary) > 0 {
				t.Errorf("Vary is %v", vary)
			}
			if got := w.Header().Get("ETag"); got != row.etag {
				t.Errorf("the ETag is %q", got)
			}
		})
	}
}

// An answer that breaks off must not pass for a whole one.
func TestCompressAfterAPanic(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 5000)
	defer func() {
		if recover() == nil {
			t.Error("the panic is gone")
		}
	}()
	r := gin.New()
	w := httptest.NewRecorder()
	r.Use(func(c *gin.Context) {
		defer func() {
			if in, err := gzip.NewReader(w.Body); err == nil {
				if _, err := io.ReadAll(in); err == nil {
					t.Error("the answer looks whole")
				}
			}
		}()
		c.Next()
	}, middleware.Compress())
	r.GET("/", func(c *gin.Context) {
		c.Data(http.StatusOK, "text/html", []byte(long))
		c.Writer.Flush()
		panic("half way")
	})
	req := httptest.NewRequest(http.MethodGet, "/", nil)
	req.Header.Set("Accept-Encoding", "gzip")
	r.ServeHTTP(w, req)
}

func BenchmarkCompress(b *testing.B) {
	for name, size := range map[string]int{"1 KB, as it is": 1 << 10, "16 KB, compressed": 16 << 10} {
		b.Run(name, func(b *testing.B) {
			text := []byte(strings.Repeat("who edits what, and since when ", size/31))
			r := gin.New()
			r.Use(middleware.Compress())
			r.GET("/", func(c *gin.Context) { c.Data(http.StatusOK, "text/html", text) })
			req := httptest.NewRequest(http.MethodGet, "/", nil)
			req.Header.Set("Accept-Encoding", "gzip")
			b.ReportAllocs()
			for b.Loop() {
				r.ServeHTTP(httptest.NewRecorder(), req)
			}
		})
	}
}
