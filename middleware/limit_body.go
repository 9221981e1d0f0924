package middleware

import (
	"fmt"
	"mime/multipart"
	"net/http"

	"github.com/gin-gonic/gin"
)

// LimitBody bounds what any handler after it can read of a request's body, in bytes: a
// read beyond the limit returns *http.MaxBytesError. A body of GET or HEAD means nothing
// and is empty here. Multipart forms are never parsed, so that no upload ends up in the
// memory or in the temporary folder of the server: c.PostForm, c.FormFile and their like
// find nothing in one. Mount it before all that could read a body, for every route. It
// panics on a limit below 1.
func LimitBody(limit int64) gin.HandlerFunc {
	if limit < 1 {
		panic(fmt.Sprintf("middleware.LimitBody: a limit of %d bytes", limit))
	}
	return func(c *gin.Context) {
		// The copy leaves net/http its own body: it does not wait for one that is announced
		// as large before it sends an answer made without reading.
		r := *c.Request
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			r.Body = http.NoBody
		} else {
			r.Body = http.MaxBytesReader(c.Writer, r.Body, limit)
		}
		r.MultipartForm = &multipart.Form{} // as if it had been parsed: it is not parsed again
		c.Request = &r
	}
}
