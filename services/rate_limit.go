package services

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/rueidis"

	"gatehouse/models"
)

const defaultMaxKeys = 50_000

// RateLimiterOptions configures a RateLimiter.
type RateLimiterOptions struct {
	// Metrics registers the collectors. Nil registers none.
	Metrics prometheus.Registerer
	// Logger gets what should not happen. Nil is slog.Default.
	Logger *slog.Logger
	// MaxKeys bounds how many keys this instance remembers for outages and
	// floods. Zero is 50,000; the least is 64. A key forgotten is asked for at
	// Redis, and starts anew while Redis is away.
	MaxKeys int
}

// RateLimiter decides whether a request is within its policies, exactly and
// across instances: no policy ever admits more than its Limit in any Window, by
// the clock of Redis. Without Redis each policy does what its OnRedisDown says.
//
// A sliding log (limits up to 1,000) holds every admission of the last window,
// at about 20 bytes up to 128 of them and 110 beyond; GCRA holds two numbers for
// any limit, admits a tenth of the limit at once and spreads the rest over the
// window. A Cost above the Limit (GCRA: above that tenth) never passes.
//
// Hits decided together are in one Redis script, and so in one Cluster slot:
// that of their common key if they have one, else that of the group's name. Ask
// a policy always in the same company, because the same key is counted apart in
// two groups.
type RateLimiter struct {
	redis   *Redis
	log     *slog.Logger
	table   *limitTable
	metrics *limitMetrics
	take    *rueidis.Lua
	refund  *rueidis.Lua
}

// NewRateLimiter returns a limiter that asks redis. It has no background work
// and needs no Close.
func NewRateLimiter(redis *Redis, opt RateLimiterOptions) *RateLimiter {
	if opt.Logger == nil {
		opt.Logger = slog.Default()
	}
	return &RateLimiter{
		redis:   redis,
		log:     opt.Logger,
		table:   newLimitTable(orDefault(opt.MaxKeys, defaultMaxKeys)),
		metrics: newLimitMetrics(opt.Metrics),
		take:    rueidis.NewLuaScript(rateLimitTake),
		refund:  rueidis.NewLuaScript(rateLimitRefund),
	}
}

// Take decides about all hits together: if a hit of a policy that is not a
// shadow is refused, none is counted. The decisions are in the order of the
// hits; the request may go on if all of them are Allowed. A group names the hits
// that are decided together where they have no common key.
//
// A refused key is remembered for at most a second, so that a flood does not
// reach Redis; a refund or reset by another instance may show that much later.
//
// Without Redis the decisions are Degraded: made in this instance from its
// recent admissions (local), all allowed (open), or models.ErrUnavailable
// (closed). The only other error is a policy that Validate refuses, or one that
// is asked twice for one key.
func (l *RateLimiter) Take(ctx context.Context, group string, hits ...models.Hit) ([]models.Decision, error) {
	asks, err := l.prepare(hits)
	if err != nil || len(asks) == 0 {
		return nil, err
	}
	if decisions := l.remembered(asks, true); decisions != nil {
		return decisions, nil
	}
	id := rand.Int64N(maxCallID) + 1
	if l.redis.Available() {
		decisions, err := l.takeFromRedis(ctx, group, asks, id)
		if err == nil {
			return decisions, nil
		}
	}
	return l.takeLocally(group, asks, id)
}

// remembered refuses the hits if one is known to be refused. With counting the
// request is refused for it, not only told.
func (l *RateLimiter) remembered(asks []ask, counting bool) []models.Decision {
	var decisions []models.Decision
	for i, a := range asks {
		if a.cost == 0 || a.hit.Policy.Shadow {
			continue
		}
		v, denied := l.table.denied(a, true)
		if !denied {
			continue
		}
		if decisions == nil {
			decisions = make([]models.Decision, len(asks))
		}
		decisions[i] = a.decision(v)
		if counting {
			l.metrics.of(a).denied.Inc()
		}
	}
	if decisions == nil {
		return nil
	}
	for i, a := range asks {
		if decisions[i].Policy.Name == "" {
			decisions[i] = a.decision(l.table.recall(a))
		}
	}
	return decisions
}

func (l *RateLimiter) takeFromRedis(ctx context.Context, group string, asks []ask, id int64) ([]models.Decision, error) {
	tag := tagOf(group, asks)
	sent, generation := l.table.sending()
	verdicts, err := l.run(ctx, tag, asks, id)
	if err != nil {
		return nil, err
	}
	counted := allPass(asks, verdicts)
	now := l.table.learn(asks, verdicts, counted, id, sent, generation)
	decisions := make([]models.Decision, len(asks))
	for i, a := range asks {
		v := verdicts[i]
		decisions[i] = a.decision(v)
		if counted && v.passes && a.cost > 0 {
			decisions[i].ID = entry{id: id, cost: a.cost, at: v.at, localAt: now, tag: tag, key: a.name.key}.String()
		}
		l.metrics.count(a, v, counted, false)
	}
	return decisions, nil
}

func (l *RateLimiter) takeLocally(group string, asks []ask, id int64) ([]models.Decision, error) {
	if err := refusedClosed(asks); err != nil {
		l.metrics.unavailable(asks)
		return nil, err
	}
	verdicts, counted := l.table.decide(asks, id)
	decisions := make([]models.Decision, len(asks))
	for i, a := range asks {
		v := verdicts[i]
		decisions[i] = a.decision(v)
		decisions[i].Degraded = true
		if counted && v.passes && a.cost > 0 && a.local() {
			decisions[i].ID = entry{id: id, cost: a.cost, localAt: v.at, tag: tagOf(group, asks), key: a.name.key}.String()
		}
		l.metrics.count(a, v, counted, true)
	}
	return decisions, nil
}

// refusedClosed is an error if a policy that is closed without Redis is asked.
func refusedClosed(asks []ask) error {
	for _, a := range asks {
		if a.hit.Policy.OnRedisDown == models.OnRedisDownClosed && !a.hit.Policy.Shadow && a.cost > 0 {
			return fmt.Errorf("rate limit %s: closed without redis: %w", a.hit.Policy.Name, models.ErrUnavailable)
		}
	}
	return nil
}

// Peek tells what Take would answer now, and counts nothing. A refusal is
// remembered as by Take, so asking for a flooded key is cheap too. Errors are
// those of Take.
func (l *RateLimiter) Peek(ctx context.Context, group string, hits ...models.Hit) ([]models.Decision, error) {
	asks, err := l.prepare(hits)
	if err != nil || len(asks) == 0 {
		return nil, err
	}
	if decisions := l.remembered(asks, false); decisions != nil {
		return decisions, nil
	}
	sent, generation := l.table.sending()
	verdicts, err := l.run(ctx, tagOf(group, asks), asks, 0)
	degraded := err != nil
	if degraded {
		if err := refusedClosed(asks); err != nil {
			return nil, err
		}
		verdicts, _ = l.table.decide(asks, 0)
	} else {
		l.table.learn(asks, verdicts, false, 0, sent, generation)
	}
	decisions := make([]models.Decision, len(asks))
	for i, a := range asks {
		decisions[i] = a.decision(verdicts[i])
		decisions[i].Degraded = degraded
	}
	return decisions, nil
}

// Denied reports whether this instance remembers that the hit is refused now. It
// asks nobody else and allocates nothing; false says nothing. True is counted as
// a denied decision: ask when you are going to refuse.
func (l *RateLimiter) Denied(hit models.Hit) (models.Decision, bool) {
	a := newAsk(hit)
	if a.cost == 0 || hit.Policy.Shadow {
		return models.Decision{}, false
	}
	v, denied := l.table.denied(a, false)
	if !denied {
		return models.Decision{}, false
	}
	l.metrics.of(a).denied.Inc()
	return a.decision(v), true
}

// Refund takes back exactly what the decisions counted; those that counted
// nothing are skipped. Without Redis an admission made there stays until it
// leaves its window, and the error is models.ErrUnavailable. Of a GCRA admission
// it takes back what has not leaked out since.
func (l *RateLimiter) Refund(ctx context.Context, decisions ...models.Decision) error {
	var errs []error
	for _, d := range decisions {
		if d.ID == "" {
			continue
		}
		e, err := parseEntry(d.ID)
		if err != nil {
			errs = append(errs, fmt.Errorf("refund %s: %w", d.Policy.Name, err))
			continue
		}
		a := newAsk(models.Hit{Policy: d.Policy, Cost: e.cost})
		a.name.key = e.key
		// An admission made here may be at Redis too, when only the reply got
		// lost: a log knows it by its id, a bucket cannot tell.
		if e.at > 0 || a.rule.burst == 0 && l.redis.Available() {
			_, err = l.redis.Exec(ctx, l.refund, []string{l.redisKey(e.tag, a)}, e.refundArgs(a.rule))
		}
		l.table.refund(a, e.id, e.localAt)
		if err != nil && e.at > 0 {
			errs = append(errs, fmt.Errorf("refund %s: %w", d.Policy.Name, err))
		}
	}
	return errors.Join(errs...)
}

// Reset gives the keys of the hits, asked in this group, their whole quota back.
// Without Redis only this instance forgets, and the error is models.ErrUnavailable.
func (l *RateLimiter) Reset(ctx context.Context, group string, hits ...models.Hit) error {
	asks, err := l.prepare(hits)
	if err != nil || len(asks) == 0 {
		return err
	}
	tag := tagOf(group, asks)
	keys := make([]string, len(asks))
	for i, a := range asks {
		keys[i] = l.redisKey(tag, a)
	}
	_, err = l.redis.Do(ctx, func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		return c.Do(ctx, c.B().Del().Key(keys...).Build())
	})
	for _, a := range asks {
		l.table.reset(a)
	}
	if err != nil {
		return fmt.Errorf("reset rate limits: %w", err)
	}
	return nil
}

// decision is the verdict in the words of the caller.
func (a ask) decision(v verdict) models.Decision {
	return models.Decision{
		Policy:     a.hit.Policy,
		Allowed:    v.passes || a.hit.Policy.Shadow,
		Remaining:  v.remaining,
		RetryAfter: time.Duration(v.retry) * time.Microsecond,
		ResetAfter: time.Duration(v.more) * time.Microsecond,
	}
}

// allPass reports whether the hits were counted.
func allPass(asks []ask, verdicts []verdict) bool {
	for i, a := range asks {
		if !verdicts[i].passes && !a.hit.Policy.Shadow {
			return false
		}
	}
	return true
}
