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
	defaultTimeout   = 100 * time.Millisecond
	defaultInFlight  = 512 // below rueidis's ring of 1,024, so a full ring never blocks
	yieldThreshold   = 8   // with so many calls in flight, the next write waits for other calls
	dialTimeout      = 250 * time.Millisecond
	connWriteTimeout = time.Second
	clientCacheBytes = 16 << 20 // per connection
	connBuffer       = 64 << 10 // each way; rueidis' own 512 KiB are more than all else that is idle
	readyPatience    = 5 * time.Second
	sentinelRefresh  = 5 * time.Second
)

//go:embed lua/probe.lua
var probeScript string

// Options configures a Client.
type Options struct {
	// Client says where Redis is, as rueidis.ParseURL returns it. It has an address, unless
	// Disabled is set. New sets its timeouts, retries and pipelining.
	Client rueidis.ClientOption
	// Disabled runs without Redis on purpose: every call returns ErrNotSent at once.
	Disabled bool
	// Embedded says that Client points to a server inside this process, which knows neither
	// CLIENT TRACKING nor CLUSTER.
	Embedded bool
	// KeyPrefix starts every key and channel, so that several programs can share a Redis. It
	// contains no braces. Empty is no prefix.
	KeyPrefix string
	// Timeout bounds each call, and all calls under one WithBudget together. Zero is 100 ms.
	Timeout time.Duration
	// MaxInFlight bounds the calls under way at once; one more waits, within its Timeout.
	// Zero is 512. With more than 1,000, calls may outlast their Timeout while Redis hangs.
	MaxInFlight int
	// Logger gets one line for each change of a node's state. Nil is slog.Default.
	Logger *slog.Logger
	// Metrics registers the collectors: gatehouse_redis_calls_total, gatehouse_redis_up and
	// gatehouse_redis_node_up. Two Clients on one registry need a label each, as
	// prometheus.WrapRegistererWith adds it. Nil registers none.
	Metrics prometheus.Registerer

	evictionInterval time.Duration // for tests
}

// Client sends calls to Redis, as long as the node on which their keys live serves. All methods
// may be called concurrently.
type Client struct {
	opt      Options
	calling  rueidis.ClientOption // of the connections that calls share
	log      *slog.Logger
	shared   atomic.Pointer[rueidis.Client] // nil until it is connected
	nodes    atomic.Pointer[nodes]          // never nil
	conn     connState
	probeSHA string
	inFlight chan struct{} // has an element for each call under way

	mu        sync.Mutex
	onRecover []func(context.Context)
	recovery  sync.Mutex    // the hooks run for one node at a time
	slotsDue  chan struct{} // asks to read the slots of the Cluster now

	spawn     func(task func(context.Context)) (stop func()) // ends with stop or Close
	stop      context.CancelFunc
	ending    sync.Mutex // no task begins while Close says that it is closed
	closed    atomic.Bool
	tasks     sync.WaitGroup
	ready     chan struct{}
	markReady func() // closes ready

	refusalLogged  atomic.Int64           // the last log line of a refused command, in Unix ns
	noSubscription atomic.Pointer[string] // why Redis refuses subscriptions; nil if it does not
	calls          struct{ ok, failed, timeout, skipped prometheus.Counter }
}

// New returns at once and connects in the background, trying again until Close. It never fails
// because Redis is down. It panics if Options.Client has no address or one that is not host:port,
// KeyPrefix has a brace, or a number is negative: those are mistakes in the program.
func New(opt Options) *Client {
	switch {
	case !opt.Disabled && len(opt.Client.InitAddress) == 0:
		panic("redis.New: no address in Client.InitAddress")
	case strings.ContainsAny(opt.KeyPrefix, "{}"):
		panic("redis.New: a brace in KeyPrefix")
	case opt.Timeout < 0:
		panic("redis.New: Timeout is negative")
	case opt.MaxInFlight < 0:
		panic("redis.New: MaxInFlight is negative")
	}
	for _, addr := range opt.Client.InitAddress {
		if addr == "" || strings.Contains(addr, "://") { // a URL is for rueidis.ParseURL
			panic(fmt.Sprintf("redis.New: Client.InitAddress has %q, which is not host:port", addr))
		}
	}
	opt.Timeout = cmp.Or(opt.Timeout, defaultTimeout)
	opt.MaxInFlight = cmp.Or(opt.MaxInFlight, defaultInFlight)
	opt.evictionInterval = cmp.Or(opt.evictionInterval, evictionInterval)
	if opt.Logger == nil {
		opt.Logger = slog.Default()
	}
	opt.Client.Dialer.Timeout = max(dialTimeout, opt.Timeout)
	sentinel := &opt.Client.Sentinel
	sentinel.Dialer.Timeout = opt.Client.Dialer.Timeout
	sentinel.Dialer.KeepAlive = cmp.Or(sentinel.Dialer.KeepAlive, rueidis.DefaultTCPKeepAlive)
	// The Sentinel reports a new master by a message, which may be missed.
	sentinel.TopologyRefreshInterval = cmp.Or(sentinel.TopologyRefreshInterval, sentinelRefresh)
	opt.Client.ConnWriteTimeout = max(connWriteTimeout, opt.Timeout) // else it would end calls earlier
	opt.Client.CacheSizeEachConn = clientCacheBytes
	opt.Client.ReadBufferEachConn = connBuffer
	opt.Client.WriteBufferEachConn = connBuffer
	opt.Client.AlwaysPipelining = true // a deadline then abandons the reply, not the connection
	opt.Client.DisableRetry = true
	opt.Client.PipelineMultiplex = -1 // one connection to a server: its calls share their writes
	if opt.Embedded {
		opt.Client.ForceSingleClient = true
		opt.Client.DisableCache = true
	}
	r := &Client{
		opt:      opt,
		calling:  opt.Client,
		log:      opt.Logger,
		inFlight: make(chan struct{}, opt.MaxInFlight),
		ready:    make(chan struct{}),
		slotsDue: make(chan struct{}, 1),
		probeSHA: sha1Of(probeScript),
	}
	r.calling.DisableCache = true // calls need no CLIENT TRACKING, and not every Redis has it
	r.conn.watch(&r.calling, r.yieldToCalls)
	r.markReady = sync.OnceFunc(func() { close(r.ready) })
	r.nodes.Store(oneNode(newNode(strings.Join(opt.Client.InitAddress, ","), r.Key("probe"), opt.Timeout, true)))
	r.registerMetrics(opt.Metrics)
	life, stop := context.WithCancel(context.Background())
	r.stop = stop
	r.spawn = func(task func(context.Context)) func() {
		ctx, stop := context.WithCancel(life)
		r.ending.Lock()
		defer r.ending.Unlock()
		if !r.closed.Load() {
			r.tasks.Go(func() { defer stop(); task(ctx) })
		}
		return stop
	}
	if opt.Disabled {
		r.markReady()
		return r
	}
	r.Go(r.connect)
	return r
}

// WaitReady returns when all of Redis has answered for the first time or is disabled, and else
// when ctx ends or 5 s have passed. A program that waits spares its first requests the way
// without Redis.
func (r *Client) WaitReady(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, readyPatience)
	defer cancel()
	select {
	case <-r.ready:
	case <-ctx.Done():
	}
}

// Key returns name with the KeyPrefix.
func (r *Client) Key(name string) string { return r.opt.KeyPrefix + name }

// Timeout returns Options.Timeout, or its default.
func (r *Client) Timeout() time.Duration { return r.opt.Timeout }

// Disabled returns Options.Disabled.
func (r *Client) Disabled() bool { return r.opt.Disabled }

// Embedded returns Options.Embedded.
func (r *Client) Embedded() bool { return r.opt.Embedded }

// LostConnections counts the connections that were lost since the start. When it grows, the
// server behind the next one may be another, which has missed a write.
func (r *Client) LostConnections() uint64 { return r.conn.lost.Load() }

// Go runs task in the background. The task's ctx ends with Close, which waits for the task. After
// Close, and beside it, a task may come too late: then it is not run.
func (r *Client) Go(task func(context.Context)) { r.spawn(task) }

// Close ends the background work, waits for it, and closes the connections; calls return
// models.ErrUnavailable from then on. Its only error is that of ctx, when that ends first.
// Close it after what is built on it, and once.
func (r *Client) Close(ctx context.Context) error {
	r.ending.Lock()
	r.closed.Store(true)
	r.ending.Unlock()
	r.stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.tasks.Wait()
		if rdb := r.shared.Load(); rdb != nil {
			(*rdb).Close()
		}
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close redis: %w", ctx.Err())
	}
}
