package middleware

import (
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"gatehouse/models"
)

// Headers names headers to leave out of an answer. The zero value leaves out none.
type Headers uint8

// What can be left out.
const (
	NoStandardHeaders Headers = 1 << iota // RateLimit-Policy and RateLimit
	NoLegacyHeaders                       // X-RateLimit-Limit, -Remaining and -Reset
	NoHeaders         = NoStandardHeaders | NoLegacyHeaders
)

// The headers in the spelling of net/http.
const (
	policyHeader          = "Ratelimit-Policy"
	limitHeader           = "Ratelimit"
	legacyLimitHeader     = "X-Ratelimit-Limit"
	legacyRemainingHeader = "X-Ratelimit-Remaining"
	legacyResetHeader     = "X-Ratelimit-Reset"
)

// shownKey is where the context of a request keeps the decisions that its answer shows.
type shownKey struct{}

// shownDecision is a decision that the headers of an answer show, but for those left out.
type shownDecision struct {
	*models.Decision
	left Headers
}

// WriteDecisions shows decisions in the headers of the answer, together with those that it
// wrote before: RateLimit-Policy and RateLimit list every policy, X-RateLimit-* show the
// tightest. A newer decision of a policy replaces an older one. Shadow policies are not
// shown. It sets X-Degraded if a decision was made without Redis. It keeps the decisions: do
// not change them afterwards.
func WriteDecisions(c *gin.Context, decisions []models.Decision) {
	writeDecisions(c, decisions, nil)
}

// writeDecisions is WriteDecisions but for the headers in left; nil leaves out none.
func writeDecisions(c *gin.Context, decisions []models.Decision, left func(*models.Decision) Headers) {
	known, _ := c.Get(shownKey{})
	before, _ := known.([]shownDecision)
	shown := slices.Grow(before, len(decisions))
	for i := range decisions {
		d := shownDecision{Decision: &decisions[i]}
		if d.Degraded {
			SetDegradedHeader(c, DegradedRateLimit)
		}
		if d.Policy.Shadow {
			continue
		}
		if left != nil {
			d.left = left(d.Decision)
		}
		same := func(other shownDecision) bool { return other.Policy.Name == d.Policy.Name }
		if j := slices.IndexFunc(shown, same); j >= 0 {
			shown[j] = d
		} else {
			shown = append(shown, d)
		}
	}
	c.Set(shownKey{}, shown)
	setHeaders(c.Writer.Header(), shown)
}

// setHeaders makes one string and cuts the five headers out of it: it runs for every request,
// and allocates twice.
func setHeaders(header http.Header, shown []shownDecision) {
	var buffer [256]byte
	text, values := buffer[:0], make([]string, 5)
	var ends [5]int
	var tightest *models.Decision
	for i := range shown {
		d := &shown[i]
		if d.left&NoStandardHeaders == 0 {
			text = appendItem(text, 0, d.Policy.Name)
			text = strconv.AppendInt(append(text, ";q="...), d.Policy.Limit, 10)
			text = strconv.AppendInt(append(text, ";w="...), int64(d.Policy.Window/time.Second), 10)
		}
		if d.left&NoLegacyHeaders == 0 && (tightest == nil || tighter(d.Decision, tightest)) {
			tightest = d.Decision
		}
	}
	ends[0] = len(text)
	for i := range shown {
		d := &shown[i]
		if d.left&NoStandardHeaders == 0 {
			text = appendItem(text, ends[0], d.Policy.Name)
			text = strconv.AppendInt(append(text, ";r="...), d.Remaining, 10)
			text = strconv.AppendInt(append(text, ";t="...), wholeSeconds(d.ResetAfter), 10)
		}
	}
	ends[1] = len(text)
	if tightest != nil {
		text = strconv.AppendInt(text, tightest.Policy.Limit, 10)
		ends[2] = len(text)
		text = strconv.AppendInt(text, tightest.Remaining, 10)
		ends[3] = len(text)
		text = strconv.AppendInt(text, wholeSeconds(time.Duration(time.Now().UnixNano())+tightest.ResetAfter), 10)
		ends[4] = len(text)
	}
	all, start := string(text), 0
	for i, name := range [...]string{policyHeader, limitHeader, legacyLimitHeader, legacyRemainingHeader, legacyResetHeader} {
		if ends[i] > start {
			values[i] = all[start:ends[i]]
			header[name] = values[i : i+1 : i+1]
			start = ends[i]
		}
	}
}

// appendItem begins an item of the list that begins at start.
func appendItem(text []byte, start int, name string) []byte {
	if len(text) > start {
		text = append(text, ", "...)
	}
	return append(append(append(text, '"'), name...), '"') // no name has anything to escape
}

// tighter reports whether a leaves the client less than b.
func tighter(a, b *models.Decision) bool {
	if a.Allowed != b.Allowed {
		return !a.Allowed
	}
	if a.Remaining != b.Remaining {
		return a.Remaining < b.Remaining
	}
	return a.ResetAfter > b.ResetAfter
}

// wholeSeconds is d in whole seconds, rounded up.
func wholeSeconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }
