package ratelimit

import (
	"cmp"
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"

	"gatehouse/internal/require"
	"gatehouse/models"
	"gatehouse/services/redis"
)

const defaultMaxKeys = 50_000

// Options configures a RateLimiter.
type Options struct {
	// Metrics registers the collectors. Nil registers none.
	Metrics prometheus.Registerer
	// Logger gets what should not happen. Nil is slog.Default.
	Logger *slog.Logger
	// MaxKeys bounds how many keys this instance remembers for outages, floods and
	// what Redis loses. Zero is 50,000; the least is 64. A key forgotten is asked for at
	// Redis, and starts anew while Redis is away or when it has lost the key.
	MaxKeys int
	// Clock is read in place of time.Now. It must be monotonic: only differences
	// between its readings count. Nil is time.Now.
	Clock func() time.Time
}

// Limiter decides whether a request is within its policies, exactly and
// across instances: no policy ever admits more than its Limit in any Window, by
// the clock of Redis. Without Redis each policy does what its OnRedisDown says,
// and what was admitted meanwhile is accounted when Redis returns. What Redis loses
// is put back from what the instances remember, before it decides about a key again:
// RATE_LIMITS.md says what remains.
//
// A sliding log (limits up to 1,000) holds every admission of the last window as
// a member of a sorted set; GCRA holds four numbers for any limit, admits a tenth of the limit at
// once and spreads the rest over the window. A Cost above the Limit (GCRA: above
// that tenth) never passes.
//
// A policy with a Lease takes admissions in blocks, which grow up to the Lease
// while a key is busy, and decides from them without Redis. A block counts whole
// from when it is taken until a window after its lease, so the Limit holds; but
// what one instance has in hand another cannot admit, and requests may be
// refused a block early. The algorithm then only matters while Redis is away.
//
// Hits decided together are in one Redis script, and so in one Cluster slot:
// that of their common key if they have one, else that of the group's name. Ask
// a policy always in the same company, because the same key is counted apart in
// two groups. Leased policies come first, each in a script of its own; what they
// gave is put back if another policy refuses.
type Limiter struct {
	redis    *redis.Client
	log      *slog.Logger
	table    *limitTable
	leases   *leaseBook
	admitted *admittedBook
	metrics  *limitMetrics
	scripts  limitScripts
	single   *redis.Batcher // decides hits that are alone in their decision
	policies atomic.Pointer[PolicySet]
	reports  singleflight.Group

	connections atomic.Uint64 // how many had been lost when Redis was last taken to have lost something

	mu     sync.Mutex
	closed bool
	tasks  sync.WaitGroup
}

// New returns a limiter that asks redis. Close it before redis if a
// policy has a Lease. It panics without redis: that is a mistake in the program.
func New(rdb *redis.Client, opt Options) *Limiter {
	require.Must("ratelimit.New", require.Argument{Name: "Redis", Value: rdb})
	if opt.Logger == nil {
		opt.Logger = slog.Default()
	}
	maxKeys := cmp.Or(opt.MaxKeys, defaultMaxKeys)
	table := newLimitTable(maxKeys, opt.Clock)
	l := &Limiter{
		redis:    rdb,
		log:      opt.Logger,
		table:    table,
		leases:   newLeaseBook(maxKeys, table.now),
		admitted: newAdmittedBook(maxKeys, table.now),
		metrics:  newLimitMetrics(opt.Metrics),
		scripts:  loadLimitScripts(),
	}
	l.single = redis.NewBatcher(rdb, l.scripts.each, takeArgs, takeReplies, l.goBackground)
	rdb.OnRecover(l.recovered)
	if !rdb.Disabled() {
		rdb.Go(l.watchLosses)
	}
	return l
}

// Take decides about all hits together: if a hit of a policy that is not a
// shadow is refused, none is counted. The decisions are in the order of the
// hits, followed by those of policies that the PolicySet adds; the request may go
// on if all of them are Allowed. They are the limiter's: do not change them. A
// group names the hits that are decided together where they have no common key.
//
// A refused key is remembered for at most a second, so that a flood does not
// reach Redis; a refund or reset by another instance may show that much later,
// and RetryAfter may be a millisecond long.
//
// Without Redis the decisions are Degraded: made in this instance from its
// recent admissions (local), all allowed (open), or models.ErrUnavailable
// (closed). The only other error is a policy that Validate refuses, or one that
// is asked twice for one key.
func (l *Limiter) Take(ctx context.Context, group string, hits ...models.Hit) ([]models.Decision, error) {
	start := l.table.now()
	var room [4]ask
	asks, err := l.prepare(hits, room[:0])
	if err != nil || len(asks) == 0 {
		return nil, err
	}
	mayAsk := l.redis.AvailableFor(tagOf(group, asks)) || allLeased(asks)
	decisions := refuseBarred(asks)
	if decisions == nil && mayAsk {
		decisions = l.remembered(asks, true)
	}
	if decisions == nil {
		decisions, err = l.decide(ctx, group, asks, start, mayAsk)
	}
	took := time.Duration(l.table.now()-start) * time.Microsecond
	for i := range asks {
		asks[i].metrics.observe(took)
	}
	return decisions, err
}

// decide takes the hits, from Redis or blocks if it may ask.
func (l *Limiter) decide(ctx context.Context, group string, asks []ask, now int64, mayAsk bool) ([]models.Decision, error) {
	id := rand.Int64N(maxCallID) + 1
	if mayAsk {
		decisions, err := l.takeFromRedis(ctx, group, asks, id)
		if err == nil {
			l.reportSoon()
			return decisions, nil
		}
		now = l.table.now()
	}
	return l.takeLocally(group, asks, id, now)
}

// refuseBarred refuses the hits if one has a key on its policy's deny list.
func refuseBarred(asks []ask) []models.Decision {
	if !slices.ContainsFunc(asks, func(a ask) bool { return a.barred }) {
		return nil
	}
	decisions := make([]models.Decision, len(asks))
	for i := range asks {
		a := &asks[i]
		v := verdict{passes: !a.barred, remaining: a.rule.limit}
		if a.barred {
			v.remaining, v.retry = 0, a.rule.window
			a.metrics.denied.Inc()
		}
		decisions[i] = a.decision(v)
		decisions[i].Blocked = a.barred
	}
	return decisions
}

// remembered refuses the hits if one is known to be refused. With counting the
// request is refused for it, not only told.
func (l *Limiter) remembered(asks []ask, counting bool) []models.Decision {
	var room [4]verdict
	verdicts := l.table.denied(asks, room[:0])
	if verdicts == nil {
		return nil
	}
	decisions := make([]models.Decision, len(asks))
	for i := range asks {
		decisions[i] = asks[i].decision(verdicts[i])
		if counting && asks[i].refuses(verdicts[i]) {
			asks[i].metrics.denied.Inc()
		}
	}
	return decisions
}

// Peek tells what Take would answer now, and counts nothing. A refusal is
// remembered as by Take, so asking for a flooded key is cheap too. Errors are
// those of Take.
func (l *Limiter) Peek(ctx context.Context, group string, hits ...models.Hit) ([]models.Decision, error) {
	asks, err := l.prepare(hits, nil)
	if err != nil || len(asks) == 0 {
		return nil, err
	}
	if decisions := refuseBarred(asks); decisions != nil {
		return decisions, nil
	}
	if decisions := l.remembered(asks, false); decisions != nil {
		return decisions, nil
	}
	verdicts, err := l.look(ctx, tagOf(group, asks), asks)
	degraded := err != nil
	if degraded {
		if err := refusedClosed(asks); err != nil {
			l.table.away(asks)
			return nil, err
		}
		verdicts, _ = l.table.decide(asks, 0)
	}
	decisions := make([]models.Decision, len(asks))
	for i, a := range asks {
		decisions[i] = a.decision(verdicts[i])
		decisions[i].Degraded = degraded
	}
	return decisions, nil
}

// decision is the verdict in the words of the caller.
func (a *ask) decision(v verdict) models.Decision {
	return models.Decision{
		Policy:     a.hit.Policy,
		With:       a.with,
		Allowed:    v.passes || a.hit.Policy.Shadow,
		Remaining:  v.remaining,
		RetryAfter: time.Duration(v.retry) * time.Microsecond,
		ResetAfter: time.Duration(v.more) * time.Microsecond,
	}
}
