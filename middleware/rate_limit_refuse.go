package middleware

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"gatehouse/models"
)

// refuse lets the Handler of the first exceeded policy that has one answer, or answers 429.
func refuse(c *gin.Context, policies []Policy, decisions []models.Decision, left func(*models.Decision) Headers) {
	for i := range decisions {
		for j := range policies {
			p := &policies[j]
			if decisions[i].Allowed || decisions[i].Blocked || p.Name != decisions[i].Policy.Name || p.Handler == nil {
				continue
			}
			writeDecisions(c, decisions, left)
			writeRetryAfter(c, decisions)
			c.Abort()
			p.Handler(c, decisions)
			return
		}
	}
	refuseQuota(c, decisions, messageOf(policies, decisions), left)
}

// RefuseQuota answers 429 quota-exceeded with the headers of the decisions, the names of the
// exceeded policies, and a Retry-After that is never too early. If one of the decisions is
// Blocked it answers 403 forbidden: it is useless to try again. At least one decision must
// not be allowed.
func RefuseQuota(c *gin.Context, decisions []models.Decision) {
	refuseQuota(c, decisions, "", nil)
}

func refuseQuota(c *gin.Context, decisions []models.Decision, message string, left func(*models.Decision) Headers) {
	if slices.ContainsFunc(decisions, func(d models.Decision) bool { return d.Blocked }) {
		refuseDenied(c)
		return
	}
	writeDecisions(c, decisions, left)
	retry := writeRetryAfter(c, decisions)
	violated := []string{}
	limits := []string{}
	for _, d := range decisions {
		if d.Allowed {
			continue
		}
		violated = append(violated, d.Policy.Name)
		limits = append(limits, fmt.Sprintf("%q allows %d in %s", d.Policy.Name, d.Policy.Limit, plural(int64(d.Policy.Window/time.Second), "second")))
	}
	onPage := message
	if message == "" {
		message = "Too many requests: " + strings.Join(limits, ", ") + ". Try again in " + plural(retry, "second") + "."
		onPage = "Too many requests in a short time. Try again in " + soon(retry) + "."
	}
	p := models.NewProblem("quota-exceeded", message).With("violated-policies", violated)
	p.OnPage = onPage
	WriteProblem(c, p)
}

// soon is so many seconds, rounded up to minutes if they are many.
func soon(seconds int64) string {
	if seconds <= 90 {
		return plural(seconds, "second")
	}
	return plural((seconds+59)/60, "minute")
}

// writeRetryAfter sets and returns the seconds after which all decisions can be allowed.
func writeRetryAfter(c *gin.Context, decisions []models.Decision) int64 {
	retry := int64(1)
	for i := range decisions {
		if !decisions[i].Allowed {
			retry = max(retry, wholeSeconds(decisions[i].RetryAfter))
		}
	}
	c.Header("Retry-After", strconv.FormatInt(retry, 10))
	return retry
}

func refuseDenied(c *gin.Context) {
	WriteProblem(c, models.NewProblem("forbidden", "Requests from here are not allowed."))
}

func plural(n int64, unit string) string {
	if n == 1 {
		return "1 " + unit
	}
	return strconv.FormatInt(n, 10) + " " + unit + "s"
}
