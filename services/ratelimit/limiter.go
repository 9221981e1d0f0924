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

// Options configures a Limiter. The zero value is ready to use.
type Options struct {
	// Metrics registers the collectors, named gatehouse_rate_limit_*. A second Limiter on one
	// registry needs names of its own: prometheus.WrapRegistererWith adds a label or
	// WrapRegistererWithPrefix a prefix. Nil registers none.
	Metrics prometheus.Registerer
	// Logger gets what should not happen. Nil is slog.Default.
	Logger *slog.Logger
	// MaxKeys bounds how many keys this instance remembers for outages, for floods and for what
	// Redis loses, each with 20 admissions on average. Zero is 50,000; the least is 64. Redis is
	// asked about a key that was forgotten; while Redis is away, or has lost the key too, the key
	// starts anew.
	MaxKeys int
	// Clock is read in place of time.Now. It must be monotonic: only differences between its
	// readings count. Nil is time.Now.
	Clock func() time.Time
}

// Limiter decides whether a request is within its policies, exactly and across instances. No policy
// ever admits more than its Limit in any Window, by the clock of Redis. Without Redis each policy
// does what its OnRedisDown says, and what was admitted meanwhile is published when Redis returns.
// What Redis loses is put back from what the instances remember, before Redis decides about that
// key again. The package comment says what remains.
//
// A sliding log (limits up to 1,000) holds every admission of the last window as a member of a
// sorted set. GCRA holds four numbers for any limit, admits a tenth of the limit at once and
// spreads the rest over the window. A Cost above the Limit (GCRA: above that tenth) never
// passes.
//
// A policy with a Block takes admissions in blocks, and decides from them without Redis. Blocks
// grow up to that many while a key is busy. A block counts whole from when it is taken until a
// window after its end, so the Limit holds. But other instances cannot admit what one holds, so
// requests may be refused a block early. The algorithm then only matters while Redis is away.
//
// A policy whose Block is models.BlockAuto is asked hit by hit, until this instance is asked for a
// key more than about 50 times a second. Then it also counts units ahead, of 20 ms of that pace and
// at most a fiftieth of what remains, and hands them out by itself. The Limit holds; requests may
// be refused early by what other instances have at hand.
//
// Hits decided together are in one Redis script, and so in one Cluster slot. That is the slot of
// their common key if they have one, else of the group's name. Ask a policy always in the same
// group, because Redis counts a key of two groups apart. Policies with a Block come first, each in
// a script of its own; if another policy refuses, their units are put back.
//
// A Limiter is safe for concurrent use. Close ends it.
type Limiter struct {
	redis    *redis.Client
	log      *slog.Logger
	local    *localTable
	blocks   *blockBook
	outbox   *outbox
	metrics  *metrics
	scripts  scriptSet
	logs     *redis.Batcher // decides requests that are alone in their group, of sliding logs
	buckets  *redis.Batcher // and of GCRA
	policies atomic.Pointer[PolicySet]
	flushes  singleflight.Group

	connections atomic.Uint64 // lost ones, as of the last suspectLoss

	mu     sync.Mutex
	closed bool
	tasks  sync.WaitGroup
}

// New returns a limiter that asks rdb. Close it before rdb. It panics without rdb and with a
// negative MaxKeys: each is a mistake in the program.
func New(rdb *redis.Client, opt Options) *Limiter {
	require.Must("ratelimit.New", require.Argument{Name: "Redis", Value: rdb})
	if opt.MaxKeys < 0 {
		panic("ratelimit.New: negative MaxKeys")
	}
	l := build(rdb, opt)
	rdb.OnRecover(l.recovered)
	if !rdb.Disabled() {
		rdb.Go(l.watchLosses)
	}
	return l
}

// build returns a limiter that does nothing by itself.
func build(rdb *redis.Client, opt Options) *Limiter {
	if opt.Logger == nil {
		opt.Logger = slog.Default()
	}
	maxKeys := cmp.Or(opt.MaxKeys, defaultMaxKeys)
	local := newLocalTable(maxKeys, opt.Clock)
	l := &Limiter{
		redis:   rdb,
		log:     opt.Logger,
		local:   local,
		blocks:  newBlockBook(maxKeys, local.now),
		outbox:  newOutbox(maxKeys, local.now),
		metrics: newMetrics(opt.Metrics),
		scripts: loadScripts(),
	}
	l.logs = redis.NewBatcher(rdb, l.scripts.takeLog, aloneArgs, logReplies, l.goBackground)
	l.buckets = redis.NewBatcher(rdb, l.scripts.takeBucket, aloneArgs, bucketReplies, l.goBackground)
	return l
}

// Take decides about all hits together: if a hit of a policy that is not a shadow is refused, none
// is counted. The decisions are in the order of the hits, followed by those of policies that the
// PolicySet adds. The request may go on if all of them are Allowed. The group names the hits that
// are decided together where they have no common key.
//
// A refusal is cached for at most a second, so that a flood does not reach Redis. A refund or
// reset by another instance may show that much later.
//
// Take never waits longer than the Timeout of the redis.Client, or until ctx ends. Without Redis
// the decisions are Degraded, by the policy's OnRedisDown. Local decides in this instance, from its
// recent admissions. Open allows all. Closed makes none: the error is models.ErrUnavailable. The
// only other errors are a policy that Validate refuses, and one that is asked twice for one key.
func (l *Limiter) Take(ctx context.Context, group string, hits ...models.Hit) ([]models.Decision, error) {
	start := l.local.now()
	var buffer [4]request
	requests, err := l.prepare(hits, buffer[:0])
	if err != nil || len(requests) == 0 {
		return nil, err
	}
	mayAsk := l.redis.AvailableFor(tagOf(group, requests)) || allUseBlocks(requests)
	decisions := refuseBlocked(requests)
	if decisions == nil && mayAsk {
		decisions = l.refuseDenied(requests, true)
	}
	if decisions == nil {
		decisions, err = l.decide(ctx, group, requests, start, mayAsk)
	}
	took := time.Duration(l.local.now()-start) * time.Microsecond
	for i := range requests {
		requests[i].metrics.observe(took)
	}
	return decisions, err
}

// decide takes the units, from Redis or blocks if it may ask.
func (l *Limiter) decide(ctx context.Context, group string, requests []request, now int64, mayAsk bool) ([]models.Decision, error) {
	id := rand.Int64N(maxCallID) + 1
	if mayAsk {
		decisions, err := l.takeFromRedis(ctx, group, requests, id)
		if err == nil {
			l.flushSoon()
			return decisions, nil
		}
		now = l.local.now()
	}
	return l.takeLocally(group, requests, id, now)
}

// refuseBlocked refuses the requests if one has a key on its policy's deny list.
func refuseBlocked(requests []request) []models.Decision {
	if !slices.ContainsFunc(requests, func(req request) bool { return req.blocked }) {
		return nil
	}
	decisions := make([]models.Decision, len(requests))
	for i := range requests {
		req := &requests[i]
		v := result{passes: !req.blocked, remaining: req.rule.limit}
		if req.blocked {
			v.remaining, v.retry = 0, req.rule.window
			req.metrics.denied.Inc()
		}
		decisions[i] = req.decision(v)
		decisions[i].Blocked = req.blocked
	}
	return decisions
}

// refuseDenied refuses the requests if one is known to be denied. With counting the metrics
// count the refusal.
func (l *Limiter) refuseDenied(requests []request, counting bool) []models.Decision {
	var buffer [4]result
	results := l.local.denied(requests, buffer[:0])
	if results == nil {
		return nil
	}
	decisions := make([]models.Decision, len(requests))
	for i := range requests {
		decisions[i] = requests[i].decision(results[i])
		if counting && requests[i].refuses(results[i]) {
			requests[i].metrics.denied.Inc()
		}
	}
	return decisions
}

// Peek returns what Take would decide now, and counts nothing. It caches a refusal as Take does,
// so peeking at a flooded key is cheap too. The errors are those of Take.
func (l *Limiter) Peek(ctx context.Context, group string, hits ...models.Hit) ([]models.Decision, error) {
	requests, err := l.prepare(hits, nil)
	if err != nil || len(requests) == 0 {
		return nil, err
	}
	if decisions := refuseBlocked(requests); decisions != nil {
		return decisions, nil
	}
	if decisions := l.refuseDenied(requests, false); decisions != nil {
		return decisions, nil
	}
	results, err := l.look(ctx, tagOf(group, requests), requests)
	degraded := err != nil
	if degraded {
		if err := refusedClosed(requests); err != nil {
			l.local.forgetDenials(requests)
			return nil, err
		}
		results, _ = l.local.decide(requests, 0)
	}
	decisions := make([]models.Decision, len(requests))
	for i, req := range requests {
		decisions[i] = req.decision(results[i])
		decisions[i].Degraded = degraded
	}
	return decisions, nil
}
