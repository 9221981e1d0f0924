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

// Limiter decides about hits; *ratelimit.Limiter is one.
type Limiter interface {
	// Take decides about all hits together: it counts all of them or none. It does not keep
	// the slice of hits. The error says that a closed policy cannot be decided now.
	Take(ctx context.Context, group string, hits ...models.Hit) ([]models.Decision, error)
	// Refund gives back what decisions counted.
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
	Block       int64              // most units that an instance takes from Redis in one block; 0 asks for each request
	// Key names the client to count. Requests with the same key share the limit, also those
	// with an empty key. Nil is ByClientIP.
	Key func(*gin.Context) string
	// Cost is the number of units that a request takes; 0 or less takes none. Nil is 1.
	Cost func(*gin.Context) int64
	// LimitFor is the limit of a request, for limits by role or tier. The key should then
	// tell the tiers apart or belong to one client. 0 or less is Limit, and a limit that is
	// too high becomes the highest possible. Nil is Limit.
	LimitFor func(*gin.Context) int64
	// Tier names the tier of the client, such as Role, for a policy file with limits by tier.
	// The limits of the file replace LimitFor. Nil is no tier.
	Tier func(*gin.Context) string
	// Skip reports requests that the policy does not apply to: an allow list, see InNetworks.
	// Nil skips none.
	Skip func(*gin.Context) bool
	// Deny reports requests to refuse with 403, even if Skip reports them too: a deny list,
	// like deny in a policy file. Nil denies none.
	Deny func(*gin.Context) bool
	// Handler answers in place of the 429 if this is the first exceeded policy. The headers are
	// set, and the chain is aborted. Nil answers a problem.
	Handler func(c *gin.Context, decisions []models.Decision)
	// Headers leaves out headers about the policy. Zero leaves out none.
	Headers Headers
	// Message is the detail of a refusal. Empty is a sentence with the limit and when to try
	// again.
	Message string
	// SkipSuccessful gives back what a request took if its answer has a status below 400,
	// SkipFailed if it has not.
	SkipSuccessful bool
	SkipFailed     bool
}

// PolicyOf is the Policy that applies p to all requests alike.
func PolicyOf(p models.Policy) Policy {
	return Policy{
		Name: p.Name, Limit: p.Limit, Window: p.Window, Algorithm: p.Algorithm, OnRedisDown: p.OnRedisDown, Shadow: p.Shadow, Block: p.Block,
	}
}

// limit is the part of the policy that a Limiter knows.
func (p *Policy) limit() models.Policy {
	return models.Policy{
		Name: p.Name, Limit: p.Limit, Window: p.Window, Algorithm: p.Algorithm, OnRedisDown: p.OnRedisDown, Shadow: p.Shadow, Block: p.Block,
	}
}

// InNetworks reports whether the client's address is in one of the networks or addresses, for
// Skip and Deny. It panics if one of them is neither: that is a mistake in the program.
func InNetworks(networks ...string) func(*gin.Context) bool {
	list, err := models.NewNetworkList(networks...)
	if err != nil {
		panic("middleware.InNetworks: " + err.Error())
	}
	return func(c *gin.Context) bool { return list.HasAddress(c.ClientIP()) }
}

// RateLimit refuses a request with 429 if one of the policies is exceeded; none of them counts
// that request. Every answer has the headers of the policies. The handler that it returns is
// safe for concurrent use.
//
// Policies with different keys are counted under the names of all of them: a policy that is
// mounted again with other policies starts another count.
//
// Without Redis each policy does what its OnRedisDown says: the answer has X-Degraded:
// rate-limit, or is 503 unavailable if the policy is closed.
//
// It panics without limiter, on an invalid policy, and on two policies of one name: that is a
// mistake in the program.
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
		buffer := pool.Get().(*[]models.Hit)
		defer pool.Put(buffer)
		hits, skipped, denied := hitsOf(c, policies, (*buffer)[:0])
		*buffer = hits
		if denied {
			refuseDenied(c)
			return
		}
		if len(skipped) == len(hits) {
			return
		}
		decisions, err := limiter.Take(c.Request.Context(), group, hits...)
		if err != nil {
			_ = c.Error(err) // for the access log
			SetDegradedHeader(c, DegradedRateLimit)
			refuseUnavailable(c, "Rate limits cannot be checked at the moment. Try again in a second.")
			return
		}
		shown := decisionsWithout(decisions, skipped, policies)
		if !allAllowed(shown) {
			refuse(c, policies, shown, left)
			return
		}
		writeDecisions(c, shown, left)
		if refunds {
			nextAndRefund(c, limiter, policies, decisions)
		}
	}
}

// mountedAs is the name of the mounted policy whose settings count for a decision: its own, or
// that of the policy to which a policy file has added it.
func mountedAs(d *models.Decision) string { return cmp.Or(d.With, d.Policy.Name) }

// headersLeft returns the headers that the policy of a decision leaves out. It is nil if no
// policy leaves out any.
func headersLeft(policies []Policy) func(*models.Decision) Headers {
	if !slices.ContainsFunc(policies, func(p Policy) bool { return p.Headers != 0 }) {
		return nil
	}
	return func(d *models.Decision) Headers {
		for i := range policies {
			if policies[i].Name == mountedAs(d) {
				return policies[i].Headers
			}
		}
		return 0
	}
}

// hitsOf appends the hit of each policy to buffer, and returns the indexes of those that the
// policy skips. These have no cost: they stay in the group, so that its keys are counted
// in the same place with and without them.
func hitsOf(c *gin.Context, policies []Policy, buffer []models.Hit) (hits []models.Hit, skipped []int, denied bool) {
	hits = buffer
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

// withLimit is the policy with another limit, within the bounds of its algorithm.
func withLimit(p models.Policy, limit int64) models.Policy {
	if limit <= 0 {
		return p
	}
	p.Limit = min(limit, models.MaxLimit)
	if p.Algorithm == models.AlgorithmSlidingLog {
		p.Limit = min(limit, models.MaxSlidingLogLimit)
	}
	p.Block = min(p.Block, p.Limit)
	return p
}

// decisionsWithout leaves out the decisions of skipped policies and of those added to them.
func decisionsWithout(decisions []models.Decision, skipped []int, policies []Policy) []models.Decision {
	if len(skipped) == 0 {
		return decisions
	}
	var shown []models.Decision
	for i := range decisions {
		if !slices.ContainsFunc(skipped, func(j int) bool { return policies[j].Name == mountedAs(&decisions[i]) }) {
			shown = append(shown, decisions[i])
		}
	}
	return shown
}

func allAllowed(decisions []models.Decision) bool {
	return !slices.ContainsFunc(decisions, func(d models.Decision) bool { return !d.Allowed })
}

// messageOf is the message of the first exceeded policy that has one.
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

// nextAndRefund runs the rest of the chain, and gives back what the outcome does not cost. A
// panic counts as failed.
func nextAndRefund(c *gin.Context, limiter Limiter, policies []Policy, decisions []models.Decision) {
	finished := false
	defer func() {
		failed := !finished || c.Writer.Status() >= http.StatusBadRequest
		var refunds []models.Decision
		for i := range decisions {
			j := slices.IndexFunc(policies, func(p Policy) bool { return p.Name == mountedAs(&decisions[i]) })
			if j >= 0 && (policies[j].SkipFailed && failed || policies[j].SkipSuccessful && !failed) {
				refunds = append(refunds, decisions[i])
			}
		}
		if len(refunds) == 0 {
			return
		}
		// The refund happens even if the client has left.
		if err := limiter.Refund(context.WithoutCancel(c.Request.Context()), refunds...); err != nil {
			_ = c.Error(err) // the request stays counted until its window has passed
		}
	}()
	c.Next()
	finished = true
}
