// Package services holds what gatehouse exists for: the Redis client with its
// failure policy, edit locks, the session cache and rate limits, and the work
// of the application built on them. All types are safe for concurrent use.
package services

import (
	"context"
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
)

const (
	probeInterval    = 250 * time.Millisecond
	failuresToOpen   = 3
	defaultTimeout   = 100 * time.Millisecond
	defaultInFlight  = 512 // below rueidis's ring of 1,024, so a full ring never blocks
	dialTimeout      = 250 * time.Millisecond
	connWriteTimeout = time.Second
	crowd            = 8        // so many calls at once share their writes
	clientCacheBytes = 16 << 20 // per connection
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
	main      rueidis.ClientOption // of the connections that calls share
	client    atomic.Pointer[rueidis.Client]
	live      liveness
	lane      *lane
	deadlines *deadlines
	inFlight  chan struct{}

	mu        sync.Mutex
	onRecover []func(context.Context)

	stop   context.CancelFunc
	silent atomic.Bool // before the first probe, and after Close
	tasks  sync.WaitGroup
	spawn  func(task func(context.Context)) // runs task in the background until Close
	ready  chan struct{}                    // closed at the first successful probe

	failing       atomic.Bool // the breaker has counted a failure since the last success
	breakerClosed atomic.Bool // as the breaker says, which locks to answer
	calls         struct{ ok, failed, timeout, skipped prometheus.Counter }
}

// NewRedis returns at once and connects in the background, trying again until
// Close. It never fails because Redis is down. It panics if Client has no address,
// or KeyPrefix a brace: that is a mistake in the program.
func NewRedis(opt RedisOptions) *Redis {
	switch {
	case !opt.Disabled && len(opt.Client.InitAddress) == 0:
		panic("services.NewRedis: no address in Client.InitAddress")
	case strings.ContainsAny(opt.KeyPrefix, "{}"):
		panic("services.NewRedis: a brace in KeyPrefix")
	}
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
	if opt.Embedded {
		opt.Client.ForceSingleClient = true
		opt.Client.DisableCache = true
	}
	r := &Redis{
		opt:       opt,
		main:      opt.Client,
		log:       opt.Logger,
		inFlight:  make(chan struct{}, opt.MaxInFlight),
		ready:     make(chan struct{}),
		deadlines: newDeadlines(opt.Timeout),
	}
	r.main.DisableCache = true // calls need no CLIENT TRACKING, and not every Redis has it
	r.lane = newLane(r.main, opt.Timeout)
	r.live.watch(&r.main, r.letOthersWrite)
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
	return !r.opt.Disabled && r.client.Load() != nil && r.breakerClosed.Load()
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
		r.lane.close()
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
