package middleware

import (
	"fmt"
	"mime/multipart"
	"net/http"

	"github.com/gin-gonic/gin"
)

// LimitBody limits the bytes that later handlers can read of a request's body: a read beyond
// the limit returns *http.MaxBytesError. The body of a GET or HEAD has no meaning and is
// empty here. Mount it for every route, before all handlers that read a body. It panics on
// a limit below 1.
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
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			r.Body = http.NoBody
		} else {
			r.Body = http.MaxBytesReader(c.Writer, r.Body, limit)
		}
		r.MultipartForm = parsed
		c.Request = &r
	}
}
