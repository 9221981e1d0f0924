package ratelimit

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"sync/atomic"

	"gatehouse/models"
)

const (
	// maxCallID keeps a member, which is an id and three digits for the unit,
	// within 64 bits: sorted sets hold integers in less memory.
	maxCallID = 1_000_000_000_000_000 - 1
	// maxKeyLength is how much of a key is stored as it is.
	maxKeyLength = 64
)

// ask is a hit made ready to decide.
type ask struct {
	hit     models.Hit
	with    string // the policy that brought this one along
	name    limitKey
	rule    rule
	cost    int64 // 0 takes nothing
	barred  bool  // the key is on the deny list of a policy that refuses
	metrics *policyMetrics
}

func newAsk(hit *models.Hit) ask {
	return ask{
		hit:  *hit,
		name: limitKey{policy: hit.Policy.Name, key: cleanKey(hit.Key)},
		rule: ruleOf(&hit.Policy),
		cost: max(0, min(cmp.Or(hit.Cost, 1), maxCost)),
	}
}

// local reports whether this instance decides when Redis is away.
func (a ask) local() bool {
	return a.hit.Policy.OnRedisDown == "" || a.hit.Policy.OnRedisDown == models.OnRedisDownLocal
}

// leased reports whether the hit is decided from blocks of admissions.
func (a *ask) leased() bool { return a.hit.Policy.Lease > 0 }

// refuses reports whether the verdict stops the request.
func (a *ask) refuses(v verdict) bool { return !v.passes && !a.hit.Policy.Shadow }

// prepare makes the hits ready, and after them those that go along, in room if it
// is large enough.
func (l *Limiter) prepare(hits []models.Hit, room []ask) (asks []ask, err error) {
	set := l.policies.Load()
	asks = room
	for i := range hits {
		if asks, err = l.addAsk(asks, set, &hits[i], ""); err != nil {
			return nil, err
		}
	}
	for i := range hits {
		for _, along := range set.companions(hits[i]) {
			if asks, err = l.addAsk(asks, set, &along, hits[i].Policy.Name); err != nil {
				return nil, err
			}
		}
	}
	return asks, nil
}

func (l *Limiter) addAsk(asks []ask, set *PolicySet, hit *models.Hit, with string) ([]ask, error) {
	asks = append(asks, ask{})
	a := &asks[len(asks)-1]
	if err := l.ready(a, set, hit); err != nil {
		return nil, err
	}
	a.with = with
	for i := range asks[:len(asks)-1] {
		if asks[i].name == a.name {
			return nil, fmt.Errorf("rate limit: policy %s is asked twice for one key", a.name.policy)
		}
	}
	return asks, nil
}

// ready makes a ready for one hit, with what the policy set says about its policy.
func (l *Limiter) ready(a *ask, set *PolicySet, hit *models.Hit) error {
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
	*a = newAsk(hit)
	a.metrics = metrics
	if configured != nil {
		a.barred = a.cost > 0 && !hit.Policy.Shadow && configured.denied.HasKey(hit.Key)
		if configured.allowed.HasKey(hit.Key) {
			a.cost = 0
		}
	}
	return nil
}

// cleanKey is key itself if it is short and harmless inside a Redis key, else
// its hash: keys may come from request headers.
func cleanKey(key string) string {
	clean := key != "" && len(key) <= maxKeyLength && key[0] != '#'
	for i := 0; clean && i < len(key); i++ {
		clean = key[i] > ' ' && key[i] < 0x7f && key[i] != '{' && key[i] != '}'
	}
	if clean {
		return key
	}
	sum := sha256.Sum256([]byte(key))
	return "#" + hex.EncodeToString(sum[:16])
}

// tagOf is the hash tag of a decision: the hits' common key, else the group.
func tagOf(group string, asks []ask) string {
	for _, a := range asks[1:] {
		if a.name.key != asks[0].name.key {
			return cleanKey(group)
		}
	}
	return asks[0].name.key
}

// redisKey is where the admissions of a are. A bucket's units depend on the window.
func (l *Limiter) redisKey(tag string, a *ask) string {
	algorithm := "log"
	if a.rule.burst > 0 {
		algorithm = "gcra" + strconv.FormatInt(int64(a.hit.Policy.Window.Seconds()), 10)
	}
	return l.redis.Key("{" + tag + "}rate:" + algorithm + ":" + a.name.policy + ":" + a.name.key)
}

// resetKey is where it is kept when a key was reset.
func (l *Limiter) resetKey(key placedKey) string {
	return l.redis.Key("{" + key.tag + "}rate:reset:" + key.name.policy + ":" + key.name.key)
}

// leasedAdmission in place of the server's time says that a unit came from the
// block with the admission's ID; 0 that it was admitted in this instance.
const leasedAdmission = -1

// admission names what a hit counted, for a refund.
func (a *ask) admission(id, at, localAt int64, tag string) models.Admission {
	e := models.Admission{ID: id, Cost: a.cost, At: at, LocalAt: localAt, Tag: tag, Key: a.name.key}
	if a.leased() || a.rule.burst > 0 {
		e.Refunded = new(atomic.Bool)
	}
	return e
}

func refundArgs(id, cost, at int64, r rule, e expectation) []string {
	return append(texts(id, r.burst, r.limit, r.window, cost, at), e.member, strconv.FormatInt(e.until, 10))
}
