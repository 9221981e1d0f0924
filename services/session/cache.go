package session

import (
	"cmp"
	"context"
	"crypto/rand"
	_ "embed"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/redis/rueidis"
	"golang.org/x/sync/singleflight"

	"gatehouse/internal/require"
	"gatehouse/models"
	"gatehouse/services/redis"
)

const (
	defaultIdleTimeout     = 30 * time.Minute
	defaultAbsoluteTimeout = 12 * time.Hour
	defaultMaxPerUser      = 20
)

// Options configures a Cache. The zero value has the defaults.
type Options struct {
	// IdleTimeout ends a session that is not used for so long, at most a minute late. Zero is
	// 30 min, or AbsoluteTimeout if that is less; more than that is refused.
	IdleTimeout time.Duration
	// AbsoluteTimeout ends a session however much it is used. Zero is 12 h.
	AbsoluteTimeout time.Duration
	// MaxPerUser bounds the sessions of one user; a new one ends the oldest beyond it. Zero
	// is 20.
	MaxPerUser int
	// MemoryBytes bounds the copies that an instance keeps in memory: about 0.9 KiB for a
	// session, and its data. Zero is 128 MiB.
	MemoryBytes int
	// Secrets encrypt the copies in Redis: the first one seals, all of them open. To change
	// one, give every instance the new one as a later one, then as the first. A copy that
	// cannot be opened is read again from the database, so no user is signed out. Each has at
	// least 32 bytes. Nil is a random one: instances then cannot share copies.
	Secrets []string
	// Watch calls changed soon after the revocation log has grown, until ctx ends. It may
	// miss some, or all: the log is read once a second anyway. Nil watches nothing.
	Watch func(ctx context.Context, changed func())
	// Budget bounds how long a caller waits for a query that it shares with others; done is
	// called when that is over. Nil is as long as the caller's context allows.
	Budget func(ctx context.Context) (_ context.Context, done context.CancelFunc)
	// Logger gets one line per change of state. Nil is slog.Default.
	Logger *slog.Logger
	// Metrics registers the collectors. Nil registers none. For two caches on one registry,
	// wrap it with a label for each, as prometheus.WrapRegistererWith does.
	Metrics prometheus.Registerer
}

//go:embed lua/store.lua
var storeScript string

// Cache begins, finds and ends sessions. The database decides; copies in memory and in Redis
// only save it work. See the package comment for what is promised when.
//
// models.ErrUnavailable from a method that writes leaves open whether that was committed. All
// methods may be called concurrently.
type Cache struct {
	redis    *redis.Client
	database Database
	opt      Options
	log      *slog.Logger

	follower *logFollower
	memory   *memory
	tracking *redis.Tracking
	activity *activity
	sealer   *sealer
	store    *rueidis.Lua
	flight   singleflight.Group
	hints    chan struct{}
	name     string // of this instance, in hints

	stop  context.CancelFunc
	tasks sync.WaitGroup
	reads readCounters
}

// readCounters count the answers of Get, by what answered.
type readCounters struct{ memory, redis, database, none, unavailable prometheus.Counter }

func newReadCounters(metrics prometheus.Registerer) readCounters {
	reads := promauto.With(metrics).NewCounterVec(prometheus.CounterOpts{
		Name: "gatehouse_session_reads_total",
		Help: "Sessions looked up, by what answered: memory, redis, database, none (no such session) or unavailable.",
	}, []string{"source"})
	return readCounters{
		memory: reads.WithLabelValues("memory"), redis: reads.WithLabelValues("redis"), database: reads.WithLabelValues("database"),
		none: reads.WithLabelValues("none"), unavailable: reads.WithLabelValues("unavailable"),
	}
}

// NewCache returns at once and follows the revocation log in the background until Close. It
// refuses nil arguments, secrets that are empty or short, and timeouts that contradict each
// other.
func NewCache(rdb *redis.Client, database Database, opt Options) (*Cache, error) {
	if err := require.All("session.NewCache", require.Argument{Name: "Redis", Value: rdb}, require.Argument{Name: "Database", Value: database}); err != nil {
		return nil, err
	}
	if opt.Secrets != nil {
		if err := models.ValidateSecrets(opt.Secrets); err != nil {
			return nil, fmt.Errorf("session.NewCache: %w", err)
		}
	}
	opt.AbsoluteTimeout = cmp.Or(opt.AbsoluteTimeout, defaultAbsoluteTimeout)
	opt.IdleTimeout = cmp.Or(opt.IdleTimeout, min(defaultIdleTimeout, opt.AbsoluteTimeout))
	for _, option := range []struct {
		name     string
		negative bool
	}{
		{"IdleTimeout", opt.IdleTimeout < 0}, {"AbsoluteTimeout", opt.AbsoluteTimeout < 0},
		{"MaxPerUser", opt.MaxPerUser < 0}, {"MemoryBytes", opt.MemoryBytes < 0},
	} {
		if option.negative {
			return nil, fmt.Errorf("session.NewCache: %s is negative", option.name)
		}
	}
	if opt.IdleTimeout > opt.AbsoluteTimeout {
		return nil, fmt.Errorf("session.NewCache: IdleTimeout %v is above AbsoluteTimeout, which is %v", opt.IdleTimeout, opt.AbsoluteTimeout)
	}
	opt.MaxPerUser = cmp.Or(opt.MaxPerUser, defaultMaxPerUser)
	opt.MemoryBytes = cmp.Or(opt.MemoryBytes, defaultMemoryBytes)
	if opt.Budget == nil {
		opt.Budget = func(ctx context.Context) (context.Context, context.CancelFunc) { return ctx, func() {} }
	}
	opt.Logger = cmp.Or(opt.Logger, slog.Default())
	c := &Cache{
		redis:    rdb,
		database: database,
		opt:      opt,
		log:      opt.Logger,
		follower: newLogFollower(database, opt.Logger),
		memory:   newMemory(opt.MemoryBytes),
		activity: newActivity(opt.IdleTimeout),
		sealer:   newSealer(opt.Secrets),
		store:    rueidis.NewLuaScript(storeScript),
		hints:    make(chan struct{}, 1),
		name:     rand.Text(),
		reads:    newReadCounters(opt.Metrics),
	}
	c.tracking = redis.NewTracking(rdb, c.changedInRedis)
	c.measure(opt.Metrics)
	life, stop := context.WithCancel(context.Background())
	c.stop = stop
	c.tasks.Go(func() { c.follower.run(life) })
	c.tasks.Go(func() { c.writeActivity(life) })
	c.tasks.Go(func() { c.sendHints(life) })
	c.tasks.Go(func() { c.tracking.Run(life) })
	if opt.Watch != nil {
		c.tasks.Go(func() { opt.Watch(life, c.follower.wake) })
	}
	rdb.Subscribe(hintChannel, c.receiveHint)
	return c, nil
}

func (c *Cache) measure(metrics prometheus.Registerer) {
	promauto.With(metrics).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "gatehouse_session_memory_bytes",
		Help: "Estimated size of the sessions kept in memory.",
	}, func() float64 {
		_, bytes := c.memory.size()
		return float64(bytes)
	})
	promauto.With(metrics).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "gatehouse_session_copies_trusted",
		Help: "1 while the revocation log was read recently enough for copies of sessions to be used.",
	}, func() float64 {
		if c.follower.trusted(time.Now()) {
			return 1
		}
		return 0
	})
}

// Close writes the last activity and ends the background work. Call it after the last request
// and before the database and Redis are closed. It fails if ctx ends first, or if the database
// does not take the activity: some sessions then end up to a minute earlier.
func (c *Cache) Close(ctx context.Context) error {
	c.stop()
	done := make(chan struct{})
	go func() { c.tasks.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
		return fmt.Errorf("close sessions: %w", context.Cause(ctx))
	}
	if err := c.flushActivity(ctx); err != nil {
		return fmt.Errorf("close sessions: %w", err)
	}
	return nil
}

// Degraded reports whether the session of a token is read without Redis now. In a Cluster that
// depends on which node has its key.
func (c *Cache) Degraded(token string) bool {
	return !c.redis.Available() && !c.redis.AvailableFor(c.redisKey(hashToken(token)))
}
