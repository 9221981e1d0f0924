// Package redis is the one door to Redis: a client whose calls have a deadline and a place
// among the calls in flight, and which knows how each node stands.
package redis

import (
	"cmp"
	"context"
	_ "embed"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/rueidis"
)

const (
	probeInterval    = 250 * time.Millisecond
	wholeProbes      = 240 // one of so many tries every command, while nothing else calls for it
	defaultTimeout   = 100 * time.Millisecond
	defaultInFlight  = 512 // below rueidis's ring of 1,024, so a full ring never blocks
	dialTimeout      = 250 * time.Millisecond
	connWriteTimeout = time.Second
	crowd            = 8        // so many calls at once share their writes
	clientCacheBytes = 16 << 20 // per connection
	readyPatience    = 5 * time.Second
	sentinelRefresh  = 5 * time.Second
)

//go:embed lua/probe.lua
var probeScript string

// Options configures a Redis.
type Options struct {
	// Client says where Redis is, as rueidis.ParseURL returns it. Timeouts,
	// retries and pipelining are set by New.
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

	evictionLook time.Duration // for tests
}

// Client is the one door to Redis. A call has a deadline, a place among the calls
// in flight, and the health of the node before it where its keys live: when that hangs,
// the first few calls cost one deadline each, and from then on every call answers
// models.ErrUnavailable at once. Only background probes make a node used again, never a
// user's request.
type Client struct {
	opt      Options
	main     rueidis.ClientOption // of the connections that calls share
	log      *slog.Logger
	client   atomic.Pointer[rueidis.Client]
	nodes    atomic.Pointer[nodes] // never nil
	live     liveness
	probe    string // the script of a whole probe
	probeSHA string
	inFlight chan struct{}

	mu        sync.Mutex
	onRecover []func(context.Context)
	recovery  sync.Mutex    // one node's hooks at a time
	moved     chan struct{} // asks to look now where the slots are

	stop       context.CancelFunc
	closed     atomic.Bool
	tasks      sync.WaitGroup
	spawn      func(task func(context.Context))               // runs task in the background until Close
	spawnUntil func(task func(context.Context)) (stop func()) // or until stop
	ready      chan struct{}
	isReady    func() // closes ready

	refusalTold atomic.Int64           // when a refused command was told of, in Unix nanoseconds
	deaf        atomic.Pointer[string] // why no subscription is possible
	calls       struct{ ok, failed, timeout, skipped prometheus.Counter }
}

// New returns at once and connects in the background, trying again until
// Close. It never fails because Redis is down. It panics if Client has no address,
// or KeyPrefix a brace: that is a mistake in the program.
func New(opt Options) *Client {
	switch {
	case !opt.Disabled && len(opt.Client.InitAddress) == 0:
		panic("redis.New: no address in Client.InitAddress")
	case strings.ContainsAny(opt.KeyPrefix, "{}"):
		panic("redis.New: a brace in KeyPrefix")
	}
	opt.Timeout = cmp.Or(opt.Timeout, defaultTimeout)
	opt.MaxInFlight = cmp.Or(opt.MaxInFlight, defaultInFlight)
	if opt.Logger == nil {
		opt.Logger = slog.Default()
	}
	opt.Client.Dialer.Timeout = max(dialTimeout, opt.Timeout)
	sentinel := &opt.Client.Sentinel
	sentinel.Dialer.Timeout = opt.Client.Dialer.Timeout
	sentinel.Dialer.KeepAlive = cmp.Or(sentinel.Dialer.KeepAlive, rueidis.DefaultTCPKeepAlive)
	sentinel.TopologyRefreshInterval = cmp.Or(sentinel.TopologyRefreshInterval, sentinelRefresh) // a message may be missed
	opt.Client.ConnWriteTimeout = connWriteTimeout
	opt.Client.CacheSizeEachConn = clientCacheBytes
	opt.Client.AlwaysPipelining = true // a deadline then abandons the reply, not the connection
	opt.Client.DisableRetry = true
	opt.Client.PipelineMultiplex = -1 // one connection to a server: calls at the same time share their writes
	if opt.Embedded {
		opt.Client.ForceSingleClient = true
		opt.Client.DisableCache = true
	}
	r := &Client{
		opt:      opt,
		main:     opt.Client,
		log:      opt.Logger,
		inFlight: make(chan struct{}, opt.MaxInFlight),
		ready:    make(chan struct{}),
		moved:    make(chan struct{}, 1),
		probe:    probeScript,
	}
	r.main.DisableCache = true // calls need no CLIENT TRACKING, and not every Redis has it
	r.probeSHA = sha1Of(r.probe)
	r.isReady = sync.OnceFunc(func() { close(r.ready) })
	r.nodes.Store(oneNode(newNode(strings.Join(opt.Client.InitAddress, ","), r.Key("probe"), opt.Timeout, true)))
	r.live.watch(&r.main, r.letOthersWrite)
	r.measure(opt.Metrics)
	life, stop := context.WithCancel(context.Background())
	r.stop = stop
	r.spawn = func(task func(context.Context)) { r.tasks.Go(func() { task(life) }) }
	r.spawnUntil = func(task func(context.Context)) func() {
		ctx, stop := context.WithCancel(life)
		r.tasks.Go(func() { defer stop(); task(ctx) })
		return stop
	}
	if opt.Disabled {
		r.isReady()
		return r
	}
	r.Go(r.connect)
	return r
}

// WaitReady returns when all of Redis has answered for the first time or is disabled,
// and else when ctx ends or 5 s have passed: without Redis everything works, too. It
// spares the first requests after a start the degraded way.
func (r *Client) WaitReady(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, readyPatience)
	defer cancel()
	select {
	case <-r.ready:
	case <-ctx.Done():
	}
}

// Key is name with the configured prefix.
func (r *Client) Key(name string) string { return r.opt.KeyPrefix + name }

// Timeout bounds each call, and all calls under one WithRedisBudget together.
func (r *Client) Timeout() time.Duration { return r.opt.Timeout }

// Disabled reports whether there is no Redis, on purpose.
func (r *Client) Disabled() bool { return r.opt.Disabled }

// Embedded reports whether the server is inside this process.
func (r *Client) Embedded() bool { return r.opt.Embedded }

// LostConnections counts the connections that were lost since the start. When it grows, the
// server behind the next one may be another, which has missed a write.
func (r *Client) LostConnections() uint64 { return r.live.lost.Load() }

// Go runs task in the background; its context ends with Close, which waits for it.
func (r *Client) Go(task func(context.Context)) { r.spawn(task) }

// Close ends the background work and the connections; it waits for calls under
// way, but not longer than ctx.
func (r *Client) Close(ctx context.Context) error {
	r.closed.Store(true)
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
