package middleware

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"gatehouse/models"
)

// unavailableRetry is when to come back after a 503, in seconds.
const unavailableRetry = "1"

// decisionsKey is where the decisions told so far are kept on a gin.Context.
type decisionsKey struct{}

// WriteDecisions puts the decisions on the answer's headers, together with those
// written there before: RateLimit-Policy and RateLimit list every policy,
// X-RateLimit-* tell of the tightest. A decision about a policy that is listed
// replaces it. Shadow policies are not told. X-Degraded is set if one was
// decided without Redis.
func WriteDecisions(c *gin.Context, decisions []models.Decision) {
	all := mergeDecisions(c, decisions)
	if len(all) == 0 {
		return
	}
	policies := make([]string, len(all))
	limits := make([]string, len(all))
	tightest := all[0]
	for i, d := range all {
		policies[i] = fmt.Sprintf("%q;q=%d;w=%d", d.Policy.Name, d.Policy.Limit, int64(d.Policy.Window/time.Second))
		limits[i] = fmt.Sprintf("%q;r=%d;t=%d", d.Policy.Name, d.Remaining, wholeSeconds(d.ResetAfter))
		if tighter(d, tightest) {
			tightest = d
		}
	}
	c.Header("RateLimit-Policy", strings.Join(policies, ", "))
	c.Header("RateLimit", strings.Join(limits, ", "))
	c.Header("X-RateLimit-Limit", strconv.FormatInt(tightest.Policy.Limit, 10))
	c.Header("X-RateLimit-Remaining", strconv.FormatInt(tightest.Remaining, 10))
	reset := time.Now().Add(tightest.ResetAfter).Add(time.Second - 1).Unix() // rounded up
	c.Header("X-RateLimit-Reset", strconv.FormatInt(reset, 10))
}

// mergeDecisions remembers the decisions on c and returns all that are told.
func mergeDecisions(c *gin.Context, decisions []models.Decision) []models.Decision {
	earlier, _ := c.Get(decisionsKey{})
	all, _ := earlier.([]models.Decision)
next:
	for _, d := range decisions {
		if d.Degraded {
			MarkDegraded(c, DegradedRateLimit)
		}
		if d.Policy.Shadow {
			continue
		}
		for i := range all {
			if all[i].Policy.Name == d.Policy.Name {
				all[i] = d
				continue next
			}
		}
		all = append(all, d)
	}
	c.Set(decisionsKey{}, all)
	return all
}

// tighter reports whether a leaves the client less than b.
func tighter(a, b models.Decision) bool {
	if a.Allowed != b.Allowed {
		return !a.Allowed
	}
	if a.Remaining != b.Remaining {
		return a.Remaining < b.Remaining
	}
	return a.ResetAfter > b.ResetAfter
}

// RefuseQuota answers 429 quota-exceeded with the headers of the decisions, the
// names of the violated policies, and when to try again: never too early. At
// least one decision is not allowed.
func RefuseQuota(c *gin.Context, decisions []models.Decision) { refuseQuota(c, decisions, "") }

func refuseQuota(c *gin.Context, decisions []models.Decision, message string) {
	WriteDecisions(c, decisions)
	violated := []string{}
	limits := []string{}
	retry := int64(1)
	for _, d := range decisions {
		if d.Allowed {
			continue
		}
		violated = append(violated, d.Policy.Name)
		limits = append(limits, fmt.Sprintf("%q allows %d in %s", d.Policy.Name, d.Policy.Limit, plural(int64(d.Policy.Window/time.Second), "second")))
		retry = max(retry, wholeSeconds(d.RetryAfter))
	}
	if message == "" {
		message = "Too many requests: " + strings.Join(limits, ", ") + ". Try again in " + plural(retry, "second") + "."
	}
	c.Header("Retry-After", strconv.FormatInt(retry, 10))
	WriteProblem(c, models.Problem{
		Name: "quota-exceeded", Title: "Too many requests", Status: http.StatusTooManyRequests, Detail: message,
		Members: map[string]any{"violated-policies": violated},
	})
}

func refuseUnavailable(c *gin.Context) {
	MarkDegraded(c, DegradedRateLimit)
	c.Header("Retry-After", unavailableRetry)
	WriteProblem(c, models.Problem{
		Name: "unavailable", Title: "Not available now", Status: http.StatusServiceUnavailable,
		Detail: "Rate limits cannot be checked at the moment. Try again in a second.",
	})
}

// wholeSeconds is d in whole seconds, rounded up.
func wholeSeconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

func plural(n int64, unit string) string {
	if n == 1 {
		return "1 " + unit
	}
	return strconv.FormatInt(n, 10) + " " + unit + "s"
}
