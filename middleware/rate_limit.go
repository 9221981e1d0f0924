// Package middleware holds gatehouse's Gin middleware, one per file: what stands
// before every handler. It knows the services by small interfaces only, so any
// other Gin application can mount it.
package middleware

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gin-gonic/gin"

	"gatehouse/models"
)

// Limiter decides about hits; ratelimit.Limiter is one. It does not keep the
// slice of hits.
type Limiter interface {
	Take(ctx context.Context, group string, hits ...models.Hit) ([]models.Decision, error)
	Refund(ctx context.Context, decisions ...models.Decision) error
}

// Policy is a rate limit, at most Limit units in any Window, and how it applies to
// requests. Only Name, Limit and Window must be set.
type Policy struct {
	Name        string             // shown in headers and metrics: 1 to 64 of A-Z a-z 0-9 . _ / -
	Limit       int64              // units per window, 1 to 1,000,000
	Window      time.Duration      // 1 s to 24 h in whole seconds
	Algorithm   models.Algorithm   // zero: sliding log up to a limit of 1,000, else GCRA
	OnRedisDown models.OnRedisDown // zero: each instance limits by itself
	Shadow      bool               // decide and count, but never refuse
	Lease       int64              // most units that an instance takes from Redis in one block; 0 asks for each request
	// Key names who is counted. Nil is ByClientIP. All requests with the same
	// key share the limit, also those with an empty one.
	Key func(*gin.Context) string
	// Cost is how many units a request takes; 0 or less takes none. Nil is 1.
	Cost func(*gin.Context) int64
	// LimitFor is the limit of a request, for limits by role or tier; the key
	// should then tell the tiers apart or be one client's. 0 or less is Limit.
	// What no policy may have is brought within bounds. Nil is Limit.
	LimitFor func(*gin.Context) int64
	// Tier names what kind of client asks, such as Role, for a policy file that
	// limits tiers apart; the file's limits count in place of LimitFor. Nil is none.
	Tier func(*gin.Context) string
	// Skip leaves the requests it reports true for alone: an allow list, see
	// InNetworks. Nil skips none.
	Skip func(*gin.Context) bool
	// Deny refuses the requests it reports true for with 403, whatever Skip says:
	// a deny list, as deny is in a policy file. Nil denies none.
	Deny func(*gin.Context) bool
	// Handler answers in place of a 429 when this policy is the first that is
	// exceeded; the headers are set and the chain is aborted. Nil answers a problem.
	Handler func(c *gin.Context, decisions []models.Decision)
	// Headers chooses the headers that tell of the policy. Zero is all.
	Headers Headers
	// Message is the detail of a refusal. Empty is a sentence with the limit
	// and when to try again.
	Message string
	// SkipSuccessful and SkipFailed give back what a request took when its
	// answer's status is below 400, or not.
	SkipSuccessful bool
	SkipFailed     bool
}

// PolicyOf is a Policy that applies p to all requests alike.
func PolicyOf(p models.Policy) Policy {
	return Policy{
		Name: p.Name, Limit: p.Limit, Window: p.Window, Algorithm: p.Algorithm, OnRedisDown: p.OnRedisDown, Shadow: p.Shadow, Lease: p.Lease,
	}
}

// limit is the policy without how it applies to requests.
func (p *Policy) limit() models.Policy {
	return models.Policy{
		Name: p.Name, Limit: p.Limit, Window: p.Window, Algorithm: p.Algorithm, OnRedisDown: p.OnRedisDown, Shadow: p.Shadow, Lease: p.Lease,
	}
}

// InNetworks reports whether the client's address is in one of the networks or
// addresses, for Skip and Deny. It panics on anything else: that is a mistake in
// the program.
func InNetworks(networks ...string) func(*gin.Context) bool {
	list, err := models.NewClientList(networks...)
	if err != nil {
		panic("middleware.InNetworks: " + err.Error())
	}
	return func(c *gin.Context) bool { return list.HasAddress(c.ClientIP()) }
}

// RateLimit refuses a request with 429 when one of the policies is exceeded;
// then none of them counts it. Every answer carries the policies' headers. It
// panics without limiter, on a policy that is not valid and on two of the same name:
// that is a mistake in the program.
//
// Policies whose keys differ are counted under the names of all of them, so a
// policy that is mounted again in other company starts another count.
//
// Without Redis each policy does what its OnRedisDown says: the answer then
// carries X-Degraded, or is 503 if the policy is closed.
func RateLimit(limiter Limiter, policies ...Policy) gin.HandlerFunc {
	mustHave("RateLimit", "Limiter", limiter)
	policies = slices.Clone(policies)
	names := make([]string, len(policies))
	for i := range policies {
		p := &policies[i]
		if err := p.limit().Validate(); err != nil {
			panic("middleware.RateLimit: " + err.Error())
		}
		if slices.Contains(names[:i], p.Name) {
			panic("middleware.RateLimit: policy " + p.Name + " is given twice")
		}
		if p.Key == nil {
			p.Key = ByClientIP
		}
		names[i] = p.Name
	}
	slices.Sort(names)
	group := strings.Join(names, "+")

	refunds, left := refundable(policies), headersLeft(policies)
	pool := sync.Pool{New: func() any { return &[]models.Hit{} }}
	return func(c *gin.Context) {
		room := pool.Get().(*[]models.Hit)
		defer pool.Put(room)
		hits, skipped, denied := hitsOf(c, policies, (*room)[:0])
		*room = hits
		if denied {
			refuseDenied(c)
			return
		}
		if len(skipped) == len(hits) {
			return
		}
		decisions, err := limiter.Take(c.Request.Context(), group, hits...)
		if err != nil {
			MarkDegraded(c, DegradedRateLimit)
			refuseUnavailable(c, "Rate limits cannot be checked at the moment. Try again in a second.")
			return
		}
		told := decisionsWithout(decisions, skipped, policies)
		if !allAllowed(told) {
			refuse(c, policies, told, left)
			return
		}
		writeDecisions(c, told, left)
		if refunds {
			nextAndRefund(c, limiter, policies, decisions)
		}
	}
}

// asked is the policy that was asked for: the decision's, or that with which it
// goes along by a policy file, and whose settings here count for it.
func asked(d *models.Decision) string { return cmp.Or(d.With, d.Policy.Name) }

// headersLeft says which headers the policy of a decision leaves out; nil if none
// of the policies leaves out any.
func headersLeft(policies []Policy) func(*models.Decision) Headers {
	if !slices.ContainsFunc(policies, func(p Policy) bool { return p.Headers != 0 }) {
		return nil
	}
	return func(d *models.Decision) Headers {
		for i := range policies {
			if policies[i].Name == asked(d) {
				return policies[i].Headers
			}
		}
		return 0
	}
}

// hitsOf asks each policy what c costs, and returns which of the hits are of
// policies that leave it alone. These go along with no cost, so that the keys
// are counted in the same place with and without them. The hits are put in room.
func hitsOf(c *gin.Context, policies []Policy, room []models.Hit) (hits []models.Hit, skipped []int, denied bool) {
	hits = room
	for i := range policies {
		p := &policies[i]
		hit := models.Hit{Policy: p.limit(), Key: p.Key(c), Cost: 1}
		if p.Cost != nil {
			hit.Cost = p.Cost(c)
		}
		if p.Tier != nil {
			hit.Tier = p.Tier(c)
		}
		if p.LimitFor != nil {
			hit.Policy = withLimit(hit.Policy, p.LimitFor(c))
		}
		if p.Deny != nil && p.Deny(c) {
			return hits, nil, true
		}
		if hit.Cost <= 0 || p.Skip != nil && p.Skip(c) {
			hit.Cost = -1
			skipped = append(skipped, i)
		}
		hits = append(hits, hit)
	}
	return hits, skipped, false
}

// withLimit is the policy with another limit.
func withLimit(p models.Policy, limit int64) models.Policy {
	if limit <= 0 {
		return p
	}
	p.Limit = min(limit, models.MaxLimit)
	if p.Algorithm == models.AlgorithmSlidingLog {
		p.Limit = min(limit, models.MaxSlidingLogLimit)
	}
	p.Lease = min(p.Lease, p.Limit)
	return p
}

// decisionsWithout leaves out those of skipped policies and what goes along.
func decisionsWithout(decisions []models.Decision, skipped []int, policies []Policy) []models.Decision {
	if len(skipped) == 0 {
		return decisions
	}
	var told []models.Decision
	for i := range decisions {
		if !slices.ContainsFunc(skipped, func(j int) bool { return policies[j].Name == asked(&decisions[i]) }) {
			told = append(told, decisions[i])
		}
	}
	return told
}

func allAllowed(decisions []models.Decision) bool {
	return !slices.ContainsFunc(decisions, func(d models.Decision) bool { return !d.Allowed })
}

// messageOf is the message of the first violated policy that has one.
func messageOf(policies []Policy, decisions []models.Decision) string {
	for _, d := range decisions {
		for _, p := range policies {
			if !d.Allowed && p.Name == d.Policy.Name && p.Message != "" {
				return p.Message
			}
		}
	}
	return ""
}

func refundable(policies []Policy) bool {
	return slices.ContainsFunc(policies, func(p Policy) bool { return p.SkipSuccessful || p.SkipFailed })
}

// nextAndRefund runs the rest of the chain and gives back what its outcome does
// not cost. A panic counts as failed.
func nextAndRefund(c *gin.Context, limiter Limiter, policies []Policy, decisions []models.Decision) {
	finished := false
	defer func() {
		failed := !finished || c.Writer.Status() >= http.StatusBadRequest
		var refunds []models.Decision
		for i := range decisions {
			j := slices.IndexFunc(policies, func(p Policy) bool { return p.Name == asked(&decisions[i]) })
			if j >= 0 && (policies[j].SkipFailed && failed || policies[j].SkipSuccessful && !failed) {
				refunds = append(refunds, decisions[i])
			}
		}
		if len(refunds) == 0 {
			return
		}
		// Also when the client has left: what it took must not stay counted.
		if err := limiter.Refund(context.WithoutCancel(c.Request.Context()), refunds...); err != nil {
			_ = c.Error(err) // it stays counted until its window has passed
		}
	}()
	c.Next()
	finished = true
}
