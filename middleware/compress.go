package middleware

import (
	"compress/gzip"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/gin-gonic/gin"
)

// compressFrom is the length in bytes from which an answer is compressed: a shorter one fits into
// one packet anyway.
const compressFrom = 1400

// Compress compresses the answers to GET with gzip for clients that accept it. As they are stay:
//
//   - an answer below 1400 bytes, as far as its length or its first write tells, and one of another
//     type than text, JSON and SVG,
//   - JSON with a strong ETag: clients send it back in If-Match. That of another answer becomes a
//     weak one, as the bytes are not the same,
//   - one with Cache-Control: no-transform, such as a stream of events, or for which KeepPlain was
//     called. Call it with a secret in the body: the length of a compressed answer tells about a
//     secret that stands beside what an attacker can choose (BREACH). For the same reason answers
//     to other methods, in which gatehouse hands out tokens, are not compressed.
//
// What could be compressed has Vary: Accept-Encoding.
func Compress() gin.HandlerFunc {
	return func(c *gin.Context) {
		if c.Request.Method != http.MethodGet {
			return
		}
		w := &compressor{ResponseWriter: c.Writer, accepted: acceptsGzip(c.Request.Header)}
		c.Writer = w
		c.Set(compressorKey{}, w)
		defer func() { c.Writer = w.ResponseWriter }()
		c.Next()
		w.close() // not after a panic: the client must not take what it got for the whole
	}
}

type compressorKey struct{}

// KeepPlain keeps Compress from compressing the answer. It has no effect once the answer has begun.
func KeepPlain(c *gin.Context) {
	if w, ok := c.Get(compressorKey{}); ok {
		w.(*compressor).decided = true
	}
}

// acceptsGzip reads Accept-Encoding (RFC 9110, 12.5.3).
func acceptsGzip(h http.Header) bool {
	others := false
	for part := range strings.SplitSeq(strings.Join(h.Values("Accept-Encoding"), ","), ",") {
		coding, parameters, _ := strings.Cut(part, ";")
		name, weight, _ := strings.Cut(strings.TrimSpace(parameters), "=")
		wanted := true
		if strings.EqualFold(strings.TrimSpace(name), "q") {
			q, err := strconv.ParseFloat(strings.TrimSpace(weight), 64)
			wanted = err == nil && q > 0
		}
		switch coding = strings.TrimSpace(coding); {
		case strings.EqualFold(coding, "gzip"):
			return wanted
		case coding == "*":
			others = wanted
		}
	}
	return others
}

// compressor decides at the first write whether it compresses.
type compressor struct {
	gin.ResponseWriter
	accepted bool
	decided  bool
	gzip     *gzip.Writer // nil: the answer stays as it is
}

//nolint:gochecknoglobals // a pool; each writer has a megabyte of memory of its own
var gzipWriters = sync.Pool{New: func() any {
	w, _ := gzip.NewWriterLevel(io.Discard, gzip.BestSpeed) // the level is valid
	return w
}}

func (w *compressor) Write(p []byte) (int, error) {
	w.decide(len(p))
	if w.gzip != nil {
		return w.gzip.Write(p)
	}
	return w.ResponseWriter.Write(p)
}

func (w *compressor) WriteString(s string) (int, error) {
	w.decide(len(s))
	if w.gzip != nil {
		return io.WriteString(w.gzip, s)
	}
	return w.ResponseWriter.WriteString(s)
}

func (w *compressor) WriteHeaderNow() {
	w.decide(0) // nothing is known of the body but Content-Length
	w.ResponseWriter.WriteHeaderNow()
}

// Written reports whether a body has begun, sent or not.
func (w *compressor) Written() bool { return w.gzip != nil || w.ResponseWriter.Written() }

// Flush sends what was written so far.
func (w *compressor) Flush() {
	if w.gzip != nil {
		_ = w.gzip.Flush() // an error comes again with the next write
	}
	w.ResponseWriter.Flush()
}

// Unwrap lets http.ResponseController find the connection.
func (w *compressor) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *compressor) decide(first int) {
	if w.decided || w.Written() {
		return
	}
	w.decided = true
	h := w.Header()
	if told := h.Get("Content-Length"); told != "" {
		if length, err := strconv.Atoi(told); err == nil {
			first = length
		}
	}
	if first < compressFrom || w.Status() != http.StatusOK || !mayCompress(h) {
		return
	}
	if !strings.Contains(h.Get("Vary"), "Accept-Encoding") {
		h.Add("Vary", "Accept-Encoding")
	}
	if !w.accepted {
		return
	}
	h.Set("Content-Encoding", "gzip")
	h.Del("Content-Length")
	h.Del("Accept-Ranges")
	if etag := h.Get("ETag"); etag != "" && !strings.HasPrefix(etag, "W/") {
		h.Set("ETag", "W/"+etag)
	}
	w.gzip = gzipWriters.Get().(*gzip.Writer)
	w.gzip.Reset(w.ResponseWriter)
}

func mayCompress(h http.Header) bool {
	kind, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	kind = strings.ToLower(strings.TrimSpace(kind))
	if strings.HasSuffix(kind, "json") && strings.HasPrefix(h.Get("ETag"), `"`) {
		return false
	}
	switch kind {
	case "text/html", "text/css", "text/javascript", "application/javascript", "text/plain", "image/svg+xml", "application/json", "application/problem+json":
	default:
		return false
	}
	return h.Get("Content-Encoding") == "" && !strings.Contains(h.Get("Cache-Control"), "no-transform")
}

func (w *compressor) close() {
	if w.gzip != nil {
		_ = w.gzip.Close() // the client has left
		w.gzip.Reset(io.Discard)
		gzipWriters.Put(w.gzip)
		w.gzip = nil
	}
}
