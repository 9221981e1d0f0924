package ratelimit

import (
	"cmp"
	"fmt"
	"sync/atomic"
	"time"

	"gatehouse/models"
)

// maxCost is more than any policy admits; higher costs are refused alike.
const maxCost = 1_000_001

// request is a hit made ready to decide.
type request struct {
	hit     models.Hit
	with    string // the policy that brought this one along
	name    policyKey
	rule    rule
	cost    int64 // 0 takes nothing
	blocked bool  // the key is on the deny list of a policy that refuses
	metrics *policyMetrics
}

func newRequest(hit *models.Hit) request {
	return request{
		hit:  *hit,
		name: policyKey{policy: hit.Policy.Name, key: cleanKey(hit.Key)},
		rule: ruleOf(&hit.Policy),
		cost: max(0, min(cmp.Or(hit.Cost, 1), maxCost)),
	}
}

// local reports whether this instance decides when Redis is away.
func (req request) local() bool {
	return req.hit.Policy.OnRedisDown == "" || req.hit.Policy.OnRedisDown == models.OnRedisDownLocal
}

// usesBlocks reports whether the request is decided from blocks of admissions.
func (req *request) usesBlocks() bool { return req.hit.Policy.Block > 0 }

// refuses reports whether the result stops the caller.
func (req *request) refuses(v result) bool { return !v.passes && !req.hit.Policy.Shadow }

// prepare appends to buffer the requests of the hits and, after them, those of the policies
// that go along.
func (l *Limiter) prepare(hits []models.Hit, buffer []request) (requests []request, err error) {
	set := l.policies.Load()
	requests = buffer
	for i := range hits {
		if requests, err = l.addRequest(requests, set, &hits[i], ""); err != nil {
			return nil, err
		}
	}
	for i := range hits {
		for _, along := range set.companions(hits[i]) {
			if requests, err = l.addRequest(requests, set, &along, hits[i].Policy.Name); err != nil {
				return nil, err
			}
		}
	}
	return requests, nil
}

func (l *Limiter) addRequest(requests []request, set *PolicySet, hit *models.Hit, with string) ([]request, error) {
	requests = append(requests, request{})
	req := &requests[len(requests)-1]
	if err := l.resolve(req, set, hit); err != nil {
		return nil, err
	}
	req.with = with
	for i := range requests[:len(requests)-1] {
		if requests[i].name == req.name {
			return nil, fmt.Errorf("rate limit: policy %s is asked twice for one key", req.name.policy)
		}
	}
	return requests, nil
}

// resolve fills in one request, with what the policy set says about its policy.
func (l *Limiter) resolve(req *request, set *PolicySet, hit *models.Hit) error {
	configured := set.find(hit.Policy.Name)
	if configured != nil {
		of := *hit
		of.Policy = configured.forTier(hit.Tier)
		hit = &of
	}
	metrics, err := l.metrics.check(&hit.Policy)
	if err != nil {
		return fmt.Errorf("rate limit: %w", err)
	}
	*req = newRequest(hit)
	req.metrics = metrics
	if configured != nil {
		req.blocked = req.cost > 0 && !hit.Policy.Shadow && configured.denied.HasKey(hit.Key)
		if configured.allowed.HasKey(hit.Key) {
			req.cost = 0
		}
	}
	return nil
}

// blockAdmission in place of the server's time says that a unit came from the block with the
// admission's ID. There, 0 says that this instance admitted it.
const blockAdmission = -1

// admission names what a request counted, for a refund.
func (req *request) admission(id, at, localAt int64, tag string) models.Admission {
	e := models.Admission{ID: id, Cost: req.cost, At: at, LocalAt: localAt, Tag: tag, Key: req.name.key}
	if req.usesBlocks() || req.rule.burst > 0 {
		e.Refunded = new(atomic.Bool)
	}
	return e
}

// decision is the result in the words of the caller.
func (req *request) decision(v result) models.Decision {
	return models.Decision{
		Policy:     req.hit.Policy,
		With:       req.with,
		Allowed:    v.passes || req.hit.Policy.Shadow,
		Remaining:  v.remaining,
		RetryAfter: time.Duration(v.retry) * time.Microsecond,
		ResetAfter: time.Duration(v.more) * time.Microsecond,
	}
}
