// Package services holds what gatehouse exists for: the Redis client with its
// failure policy, edit locks, the session cache and rate limits, and the work
// of the application built on them. All types are safe for concurrent use.
package services

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/redis/rueidis"

	"gatehouse/models"
)

const (
	probeInterval    = 250 * time.Millisecond
	failuresToOpen   = 3
	defaultTimeout   = 100 * time.Millisecond
	defaultInFlight  = 512 // below rueidis's ring of 1,024, so a full ring never blocks
	dialTimeout      = 250 * time.Millisecond
	connWriteTimeout = time.Second
	flushDelay       = 20 * time.Microsecond // how long a write waits for others to share it; a call that is alone does not
	clientCacheBytes = 16 << 20              // per connection
)

// RedisOptions configures a Redis.
type RedisOptions struct {
	// Client says where Redis is, as rueidis.ParseURL returns it. Timeouts,
	// retries and pipelining are set by NewRedis.
	Client rueidis.ClientOption
	// Disabled runs without Redis on purpose: every call answers ErrUnavailable.
	Disabled bool
	// Embedded says that Client points to a server inside this process, which
	// knows neither CLIENT TRACKING nor CLUSTER.
	Embedded bool
	// KeyPrefix starts every key and channel. It has no braces.
	KeyPrefix string
	// Timeout bounds each call, and all calls under one WithRedisBudget
	// together. Zero is 100 ms.
	Timeout time.Duration
	// MaxInFlight bounds the calls under way at once. Zero is 512.
	MaxInFlight int
	// Logger gets one line per change of state. Nil is slog.Default.
	Logger *slog.Logger
	// Metrics registers the collectors. Nil registers none.
	Metrics prometheus.Registerer
}

// Redis is the one door to Redis. A call has a deadline, a place among the calls
// in flight, and a circuit breaker before it: when Redis hangs, the first few
// calls cost one deadline each, and from then on every call answers
// models.ErrUnavailable at once. Only a background probe closes the breaker
// again, never a user's request.
type Redis struct {
	opt       RedisOptions
	log       *slog.Logger
	breaker   circuitbreaker.CircuitBreaker[any]
	client    atomic.Pointer[rueidis.Client]
	live      liveness
	deadlines *deadlines
	inFlight  chan struct{}

	mu        sync.Mutex
	onRecover []func(context.Context)

	stop   context.CancelFunc
	silent atomic.Bool // before the first probe, and after Close
	tasks  sync.WaitGroup
	spawn  func(task func(context.Context)) // runs task in the background until Close
	ready  chan struct{}                    // closed at the first successful probe

	failing atomic.Bool // the breaker has counted a failure since the last success
	calls   struct{ ok, failed, timeout, skipped prometheus.Counter }
}

// NewRedis returns at once and connects in the background, trying again until
// Close. It never fails because Redis is down.
func NewRedis(opt RedisOptions) *Redis {
	opt.Timeout = orDefault(opt.Timeout, defaultTimeout)
	opt.MaxInFlight = orDefault(opt.MaxInFlight, defaultInFlight)
	if opt.Logger == nil {
		opt.Logger = slog.Default()
	}
	opt.Client.Dialer.Timeout = max(dialTimeout, opt.Timeout)
	opt.Client.ConnWriteTimeout = connWriteTimeout
	opt.Client.CacheSizeEachConn = clientCacheBytes
	opt.Client.AlwaysPipelining = true // a deadline then abandons the reply, not the connection
	opt.Client.DisableRetry = true
	opt.Client.PipelineMultiplex = -1 // one connection to a server: calls at the same time share their writes
	opt.Client.MaxFlushDelay = flushDelay
	if opt.Embedded {
		opt.Client.ForceSingleClient = true
		opt.Client.DisableCache = true
	}
	r := &Redis{
		opt:       opt,
		log:       opt.Logger,
		inFlight:  make(chan struct{}, opt.MaxInFlight),
		ready:     make(chan struct{}),
		deadlines: newDeadlines(opt.Timeout),
	}
	r.live.watch(&r.opt.Client)
	calls := promauto.With(opt.Metrics).NewCounterVec(prometheus.CounterOpts{
		Name: "gatehouse_redis_calls_total",
		Help: "Redis calls by result: ok, failed, timeout, or skipped because Redis was known to be away.",
	}, []string{"result"})
	r.calls.ok, r.calls.failed = calls.WithLabelValues("ok"), calls.WithLabelValues("failed")
	r.calls.timeout, r.calls.skipped = calls.WithLabelValues("timeout"), calls.WithLabelValues("skipped")
	// The delay never passes: only the probe closes the breaker.
	r.breaker = circuitbreaker.NewBuilder[any]().
		WithFailureThreshold(failuresToOpen).
		WithDelay(time.Duration(1<<63 - 1)).
		OnStateChanged(r.stateChanged).
		Build()
	promauto.With(opt.Metrics).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "gatehouse_redis_up",
		Help: "1 while Redis is used, 0 while it is away or disabled.",
	}, func() float64 {
		if r.Available() {
			return 1
		}
		return 0
	})
	life, stop := context.WithCancel(context.Background())
	r.stop = stop
	r.spawn = func(task func(context.Context)) { r.tasks.Go(func() { task(life) }) }
	if opt.Disabled {
		close(r.ready)
		return r
	}
	r.silent.Store(true)
	r.breaker.Open()
	r.spawn(r.probeLoop)
	return r
}

// Available reports whether calls are sent to Redis now.
func (r *Redis) Available() bool {
	return !r.opt.Disabled && r.client.Load() != nil && r.breaker.IsClosed()
}

// Status is "ok", "embedded", "down" or "disabled".
func (r *Redis) Status() string {
	switch {
	case r.opt.Disabled:
		return "disabled"
	case !r.Available():
		return "down"
	case r.opt.Embedded:
		return "embedded"
	}
	return "ok"
}

// WaitReady returns when Redis has answered for the first time, is disabled, or
// ctx ends. It spares the first requests after a start the degraded way.
func (r *Redis) WaitReady(ctx context.Context) {
	select {
	case <-r.ready:
	case <-ctx.Done():
	}
}

// Key is name with the configured prefix.
func (r *Redis) Key(name string) string { return r.opt.KeyPrefix + name }

type budgetKey struct{}

// budget is what the calls of one request have spent in Redis together.
type budget struct{ spent atomic.Int64 }

// WithRedisBudget makes all Redis calls under the returned context share one
// Timeout: after one that timed out, the rest answer ErrUnavailable at once. A
// second call starts a new budget.
func WithRedisBudget(ctx context.Context) context.Context {
	return context.WithValue(ctx, budgetKey{}, new(budget))
}

// errNotSent is the end of a call that cannot have reached Redis.
var errNotSent = fmt.Errorf("redis: %w", models.ErrUnavailable)

// Do runs fn, which sends one command or script, through the door. A nil reply
// is rueidis.Nil. Everything that means "not now" is models.ErrUnavailable; the
// command may have been executed all the same, so it must be safe to repeat. A ctx
// without a deadline that is cancelled meanwhile ends the call not before Timeout.
func (r *Redis) Do(ctx context.Context, fn func(context.Context, rueidis.Client) rueidis.RedisResult) (rueidis.RedisMessage, error) {
	return r.doOn(ctx, r.client.Load(), fn)
}

// doOn is Do on connections of their own; a nil client is one that is not
// connected yet.
func (r *Redis) doOn(ctx context.Context, client *rueidis.Client, fn func(context.Context, rueidis.Client) rueidis.RedisResult) (rueidis.RedisMessage, error) {
	if r.opt.Disabled || client == nil || (!r.breaker.IsClosed() && !recovering(ctx)) {
		r.calls.skipped.Inc()
		return rueidis.RedisMessage{}, errNotSent
	}
	allowed := r.opt.Timeout
	spending, limited := ctx.Value(budgetKey{}).(*budget)
	if limited {
		allowed -= time.Duration(spending.spent.Load())
		if allowed <= 0 {
			r.calls.skipped.Inc()
			return rueidis.RedisMessage{}, fmt.Errorf("the request's budget is spent: %w", errNotSent)
		}
	}
	start := time.Now()
	msg, err := r.send(ctx, client, allowed, fn)
	if limited {
		spending.spent.Add(int64(time.Since(start)))
	}
	return msg, r.judge(ctx, err, allowed)
}

// Exec runs a script through the door. All keys share one hash tag.
func (r *Redis) Exec(ctx context.Context, script *rueidis.Lua, keys, args []string) (rueidis.RedisMessage, error) {
	return r.Do(ctx, func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		return script.Exec(ctx, c, keys, args)
	})
}

var errInFlight = errors.New("too many calls in flight")

// send runs fn within allowed. While the connection is up, rueidis keeps to ctx by
// itself; else the call may have to be left behind while it dials.
func (r *Redis) send(ctx context.Context, client *rueidis.Client, allowed time.Duration,
	fn func(context.Context, rueidis.Client) rueidis.RedisResult,
) (rueidis.RedisMessage, error) {
	if client != r.client.Load() {
		return r.race(ctx, *client, allowed, fn)
	}
	lost := r.live.lost.Load()
	if !r.live.now() {
		msg, err := r.race(ctx, *client, allowed, fn)
		if _, replied := rueidis.IsRedisErr(err); (err == nil || replied) && (*client).Mode() != rueidis.ClientModeCluster {
			r.live.served(lost)
		}
		return msg, err
	}
	if err := ctx.Err(); err != nil {
		return rueidis.RedisMessage{}, err
	}
	var call context.Context
	if _, limited := ctx.Deadline(); limited || allowed < r.opt.Timeout-r.deadlines.grain {
		var cancel context.CancelFunc
		call, cancel = context.WithTimeout(ctx, allowed)
		defer cancel()
	} else {
		call = r.deadlines.under(ctx, time.Now())
	}
	if err := r.place(call); err != nil {
		return rueidis.RedisMessage{}, err
	}
	defer func() { <-r.inFlight }()
	return fn(call, *client).ToMessage()
}

// place takes a place among the calls in flight, in time.
func (r *Redis) place(ctx context.Context) error {
	select {
	case r.inFlight <- struct{}{}:
		return nil
	default:
	}
	select {
	case r.inFlight <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", errInFlight, ctx.Err())
	}
}

// race runs fn against the deadline, and leaves it behind when that passes.
func (r *Redis) race(ctx context.Context, client rueidis.Client, allowed time.Duration,
	fn func(context.Context, rueidis.Client) rueidis.RedisResult,
) (rueidis.RedisMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, allowed)
	defer cancel()
	if err := r.place(ctx); err != nil {
		return rueidis.RedisMessage{}, err
	}
	type reply struct {
		msg rueidis.RedisMessage
		err error
	}
	done := make(chan reply, 1)
	go func() {
		defer func() { <-r.inFlight }()
		msg, err := fn(ctx, client).ToMessage()
		done <- reply{msg, err}
	}()
	select {
	case got := <-done:
		return got.msg, got.err
	case <-ctx.Done():
		return rueidis.RedisMessage{}, ctx.Err()
	}
}

// judge turns an error of a call into its meaning and tells the breaker.
func (r *Redis) judge(ctx context.Context, err error, allowed time.Duration) error {
	redisErr, replied := rueidis.IsRedisErr(err)
	switch {
	case err == nil || rueidis.IsRedisNil(err):
		r.calls.ok.Inc()
		r.recordSuccess()
		return err
	case ctx.Err() != nil: // the caller went away: says nothing about Redis
		return fmt.Errorf("redis: %w: %w", models.ErrUnavailable, context.Cause(ctx))
	case replied && !notNow(redisErr.Error()):
		r.calls.failed.Inc()
		r.recordSuccess()
		r.log.Error("Redis refused a command", "error", redisErr.Error())
	case errors.Is(err, context.DeadlineExceeded):
		r.calls.timeout.Inc()
		if allowed >= r.opt.Timeout/2 { // a rest of a budget proves nothing
			r.recordFailure()
		}
	default:
		r.calls.failed.Inc()
		r.recordFailure()
	}
	return fmt.Errorf("redis: %w: %w", models.ErrUnavailable, err)
}

func (r *Redis) recordSuccess() {
	if r.failing.Load() && r.failing.Swap(false) {
		r.breaker.RecordSuccess()
	}
}

func (r *Redis) recordFailure() {
	r.failing.Store(true)
	if r.breaker.IsClosed() {
		r.breaker.RecordFailure()
	}
}

// notNow reports whether an error reply means that Redis cannot serve now.
func notNow(reply string) bool {
	for _, prefix := range []string{
		"LOADING", "OOM", "READONLY", "BUSY", "CLUSTERDOWN", "MASTERDOWN", "NOAUTH", "WRONGPASS", "NOPERM",
		"TRYAGAIN", "MISCONF", "NOREPLICAS", "MOVED", "ASK", "ERR max number of clients",
	} {
		if strings.HasPrefix(reply, prefix) {
			return true
		}
	}
	return false
}

// Close ends the background work and the connections; it waits for calls under
// way, but not longer than ctx.
func (r *Redis) Close(ctx context.Context) error {
	r.silent.Store(true)
	r.stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.tasks.Wait()
		if client := r.client.Load(); client != nil {
			(*client).Close()
		}
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close redis: %w", ctx.Err())
	}
}

// orDefault is value, or fallback where value is zero.
func orDefault[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}
