package middleware

import (
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"gatehouse/models"
)

// Headers chooses headers that tell of a policy. The zero value is all of them.
type Headers uint8

// The headers that can be left out.
const (
	NoStandardHeaders Headers = 1 << iota // RateLimit-Policy and RateLimit
	NoLegacyHeaders                       // X-RateLimit-Limit, -Remaining and -Reset
	NoHeaders         = NoStandardHeaders | NoLegacyHeaders
)

// The headers as net/http spells them: they go on the wire like this.
const (
	policyHeader          = "Ratelimit-Policy"
	limitHeader           = "Ratelimit"
	legacyLimitHeader     = "X-Ratelimit-Limit"
	legacyRemainingHeader = "X-Ratelimit-Remaining"
	legacyResetHeader     = "X-Ratelimit-Reset"
)

// toldKey is where the context of a request keeps what the headers of its answer tell.
type toldKey struct{}

// toldDecision is a decision that headers tell of: all but those left out.
type toldDecision struct {
	*models.Decision
	left Headers
}

// WriteDecisions puts the decisions on the answer's headers, together with those
// written before: RateLimit-Policy and RateLimit list every policy, X-RateLimit-* tell
// of the tightest. A decision about a policy that is listed replaces it. Shadow policies
// are not told. X-Degraded is set if one was decided without Redis.
func WriteDecisions(c *gin.Context, decisions []models.Decision) {
	writeDecisions(c, decisions, nil)
}

// writeDecisions is WriteDecisions with the headers to leave out for each; nil leaves out none.
func writeDecisions(c *gin.Context, decisions []models.Decision, left func(*models.Decision) Headers) {
	known, _ := c.Get(toldKey{})
	before, _ := known.([]toldDecision)
	told := slices.Grow(before, len(decisions))
	for i := range decisions {
		d := toldDecision{Decision: &decisions[i]}
		if d.Degraded {
			MarkDegraded(c, DegradedRateLimit)
		}
		if d.Policy.Shadow {
			continue
		}
		if left != nil {
			d.left = left(d.Decision)
		}
		same := func(other toldDecision) bool { return other.Policy.Name == d.Policy.Name }
		if j := slices.IndexFunc(told, same); j >= 0 {
			told[j] = d
		} else {
			told = append(told, d)
		}
	}
	c.Set(toldKey{}, told)
	setHeaders(c.Writer.Header(), told)
}

// setHeaders makes one string of all and cuts the headers out of it: this runs
// for every request.
func setHeaders(header http.Header, told []toldDecision) {
	var buffer [256]byte
	text, values := buffer[:0], make([]string, 5)
	var ends [5]int
	var tightest *models.Decision
	for i := range told {
		d := &told[i]
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
	for i := range told {
		d := &told[i]
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

// appendItem begins another item of a list that begins at start.
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
