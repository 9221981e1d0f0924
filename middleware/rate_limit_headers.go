package middleware

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
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

// WriteDecisions puts the decisions on the answer's headers, together with those
// written there before: RateLimit-Policy and RateLimit list every policy,
// X-RateLimit-* tell of the tightest. A decision about a policy that is listed
// replaces it. Shadow policies are not told. X-Degraded is set if one was
// decided without Redis.
func WriteDecisions(c *gin.Context, decisions []models.Decision) {
	writeDecisions(c, decisions, nil, nil)
}

func writeDecisions(c *gin.Context, decisions []models.Decision, chosen func(int) Headers, texts *policyTexts) {
	header := c.Writer.Header()
	degraded := false
	alike := chosen == nil && header[policyHeader] == nil
	for i := range decisions {
		degraded = degraded || decisions[i].Degraded
		alike = alike && !decisions[i].Policy.Shadow
	}
	if degraded {
		MarkDegraded(c, DegradedRateLimit)
	}
	if alike { // as nearly always
		setHeaders(header, decisions, tightestOf(decisions), texts)
		return
	}
	writeMixed(header, decisions, chosen, texts)
}

// writeMixed writes decisions of which some are not told, or not with all headers,
// or together with those written before.
func writeMixed(header http.Header, decisions []models.Decision, chosen func(int) Headers, texts *policyTexts) {
	listed := readDecisions(header, nil)
	var unlisted, hidden []*models.Decision // of which only, and all but, the legacy headers tell
	if header[legacyLimitHeader] == nil {
		for i := range listed {
			hidden = append(hidden, &models.Decision{Policy: listed[i].Policy})
		}
	}
	for i := range decisions {
		d := &decisions[i]
		if d.Policy.Shadow {
			continue
		}
		headers := Headers(0)
		if chosen != nil {
			headers = chosen(i)
		}
		if headers&NoLegacyHeaders != 0 {
			hidden = append(hidden, d)
		}
		if headers&NoStandardHeaders != 0 {
			unlisted = append(unlisted, d)
			continue
		}
		if j := indexOf(listed, d.Policy.Name); j >= 0 {
			listed[j] = *d
		} else {
			listed = append(listed, *d)
		}
	}
	var tightest *models.Decision
	consider := func(d *models.Decision) {
		told := !slices.ContainsFunc(hidden, func(h *models.Decision) bool { return h.Policy.Name == d.Policy.Name })
		if told && (tightest == nil || tighter(d, tightest)) {
			tightest = d
		}
	}
	for i := range listed {
		consider(&listed[i])
	}
	for _, d := range unlisted {
		consider(d)
	}
	setHeaders(header, listed, tightest, texts)
}

// tightestOf is the decision that leaves the client least, nil if there is none.
func tightestOf(decisions []models.Decision) *models.Decision {
	var tightest *models.Decision
	for i := range decisions {
		if d := &decisions[i]; tightest == nil || tighter(d, tightest) {
			tightest = d
		}
	}
	return tightest
}

func indexOf(decisions []models.Decision, policy string) int {
	for i := range decisions {
		if decisions[i].Policy.Name == policy {
			return i
		}
	}
	return -1
}

// setHeaders makes one string of all and cuts the headers out of it: this runs
// for every request.
func setHeaders(header http.Header, listed []models.Decision, tightest *models.Decision, texts *policyTexts) {
	var room [256]byte
	text := room[:0]
	policies := texts.of(listed)
	for i := range listed {
		d := &listed[i]
		text = appendItem(text, i, d.Policy.Name)
		text = strconv.AppendInt(append(text, ";r="...), d.Remaining, 10)
		text = strconv.AppendInt(append(text, ";t="...), wholeSeconds(d.ResetAfter), 10)
	}
	limits := len(text)
	var limit, remaining, reset int
	if tightest != nil {
		text = strconv.AppendInt(text, tightest.Policy.Limit, 10)
		limit = len(text)
		text = strconv.AppendInt(text, tightest.Remaining, 10)
		remaining = len(text)
		text = strconv.AppendInt(text, wholeSeconds(time.Duration(time.Now().UnixNano())+tightest.ResetAfter), 10)
		reset = len(text)
	}
	all := string(text)
	values := make([]string, 5)
	set := func(i int, name, value string) {
		values[i] = value
		header[name] = values[i : i+1 : i+1]
	}
	if limits > 0 {
		set(0, policyHeader, policies)
		set(1, limitHeader, all[:limits])
	}
	if tightest != nil {
		set(2, legacyLimitHeader, all[limits:limit])
		set(3, legacyRemainingHeader, all[limit:remaining])
		set(4, legacyResetHeader, all[remaining:reset])
	}
}

// policyTexts keeps the latest RateLimit-Policy: it is nearly always the same.
// Nil keeps nothing.
type policyTexts struct{ latest atomic.Pointer[policyText] }

type policyText struct {
	policies []models.Policy
	text     string
}

func (t *policyTexts) of(listed []models.Decision) string {
	if t != nil {
		if latest := t.latest.Load(); latest != nil && latest.is(listed) {
			return latest.text
		}
	}
	var text []byte
	fresh := policyText{}
	for i := range listed {
		p := &listed[i].Policy
		text = appendItem(text, i, p.Name)
		text = strconv.AppendInt(append(text, ";q="...), p.Limit, 10)
		text = strconv.AppendInt(append(text, ";w="...), int64(p.Window/time.Second), 10)
		fresh.policies = append(fresh.policies, *p)
	}
	fresh.text = string(text)
	if t != nil {
		t.latest.Store(&fresh)
	}
	return fresh.text
}

func (t *policyText) is(listed []models.Decision) bool {
	if len(listed) != len(t.policies) {
		return false
	}
	for i := range listed {
		if listed[i].Policy != t.policies[i] {
			return false
		}
	}
	return true
}

func appendItem(text []byte, i int, name string) []byte {
	if i > 0 {
		text = append(text, ", "...)
	}
	return append(append(append(text, '"'), name...), '"') // no name has anything to escape
}

// readDecisions is what the headers tell already, added to decisions.
func readDecisions(header http.Header, decisions []models.Decision) []models.Decision {
	if header[policyHeader] == nil {
		return decisions
	}
	limits := strings.Split(header.Get(limitHeader), ", ")
	for i, policy := range strings.Split(header.Get(policyHeader), ", ") {
		d := models.Decision{Allowed: true}
		var seconds, reset int64
		name, numbers, _ := strings.Cut(strings.TrimPrefix(policy, `"`), `"`)
		_, err := fmt.Sscanf(numbers, ";q=%d;w=%d", &d.Policy.Limit, &seconds)
		if err != nil || i >= len(limits) {
			continue // not written here
		}
		_, numbers, _ = strings.Cut(strings.TrimPrefix(limits[i], `"`), `"`)
		if _, err := fmt.Sscanf(numbers, ";r=%d;t=%d", &d.Remaining, &reset); err != nil {
			continue
		}
		d.Policy.Name, d.Policy.Window, d.ResetAfter = name, time.Duration(seconds)*time.Second, time.Duration(reset)*time.Second
		decisions = append(decisions, d)
	}
	return decisions
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
