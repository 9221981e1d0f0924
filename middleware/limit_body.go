package middleware

import (
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"
)

// net/http reads what is left of a body before it answers, and waits for it: a client that sends
// none would hold its connection as long as the server's ReadTimeout.
const (
	bodyTime   = 30 * time.Second // for a body that a handler reads, from its first read on
	unreadTime = time.Second      // for one that none reads
)

// LimitBody limits the bytes that later handlers can read of a request's body: a read beyond
// the limit returns *http.MaxBytesError. A body must have come 30 s after its first read; one that no
// handler reads holds the answer up for a second at most. The body of a GET or HEAD has no meaning
// and is empty here; the connection is closed after the answer. Mount it for every route, before all
// handlers that read a body. It panics on a limit below 1.
//
// Multipart forms are never parsed: no upload fills the memory or the temporary folder of
// the server. c.PostForm, c.FormFile and the like find nothing in such a form.
func LimitBody(limit int64) gin.HandlerFunc {
	if limit < 1 {
		panic(fmt.Sprintf("middleware.LimitBody: a limit of %d bytes", limit))
	}
	parsed := &multipart.Form{} // empty, as of a form that was parsed already
	return func(c *gin.Context) {
		// net/http keeps its own body in the original request: with that it can send an answer
		// before it has read a large body that no handler wants.
		r := *c.Request
		r.MultipartForm = parsed
		c.Request = &r
		if r.ContentLength == 0 || r.Body == http.NoBody {
			r.Body = http.NoBody
			return
		}
		body := &timedBody{conn: http.NewResponseController(c.Writer)}
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			c.Header("Connection", "close")
			r.Body = http.NoBody
		} else {
			body.ReadCloser = http.MaxBytesReader(c.Writer, r.Body, limit)
			r.Body = body
		}
		if r.ProtoMajor == 1 { // with HTTP/2 a deadline that has passed cannot be moved
			body.allow(unreadTime) // a long answer is sent while its handler runs
		}
		c.Next()
		if !body.ended {
			body.allow(unreadTime)
		}
	}
}

// timedBody gives a body its time once a handler wants it. At its end net/http lifts the deadline.
type timedBody struct {
	io.ReadCloser
	conn   *http.ResponseController
	wanted bool
	ended  bool
}

func (b *timedBody) Read(p []byte) (n int, err error) {
	if !b.wanted {
		b.wanted = true
		b.allow(bodyTime)
	}
	n, err = b.ReadCloser.Read(p)
	b.ended = b.ended || err == io.EOF
	return n, err
}

func (b *timedBody) allow(d time.Duration) {
	_ = b.conn.SetReadDeadline(time.Now().Add(d)) // a recorder of tests has none
}
