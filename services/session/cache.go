package session

import (
	"cmp"
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
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

	redisSessions = "session:"      // before the hash, in the names of keys
	revokeTimeout = 2 * time.Second // to make a committed revoke count here
)

// Options configures a SessionCache. The zero value has the defaults.
type Options struct {
	// IdleTimeout ends a session that is not used for so long. Zero is 30 min, or
	// AbsoluteTimeout if that is less; more than that is refused.
	IdleTimeout time.Duration
	// AbsoluteTimeout ends a session however much it is used. Zero is 12 h.
	AbsoluteTimeout time.Duration
	// MaxPerUser bounds the sessions of one user; a new one ends the oldest
	// beyond it. Zero is 20.
	MaxPerUser int
	// MemoryBytes bounds the copies that an instance keeps in memory: about 0.9 KiB
	// for a session, and its data. Zero is 128 MiB.
	MemoryBytes int
	// Secrets encrypt the copies in Redis: the first seals, all open. To change
	// one, give every instance the new one as a later one, then as the first.
	// A copy that cannot be opened is read again from the database, so nobody is
	// signed out. Each has at least 32 bytes. Nil is a random one: instances then
	// cannot share copies.
	Secrets []string
	// Watch calls changed soon after the revocation log has grown, until ctx ends. It may
	// miss some, or all: the log is read once a second anyway. Nil watches nothing.
	Watch func(ctx context.Context, changed func())
	// Budget bounds how long a caller waits for a query that it shares with others, and is
	// told by done when that is over. Nil is as long as the caller's context allows.
	Budget func(ctx context.Context) (_ context.Context, done context.CancelFunc)
	// Logger gets one line per change of state. Nil is slog.Default.
	Logger *slog.Logger
	// Metrics registers the collectors. Nil registers none.
	Metrics prometheus.Registerer
}

// SessionDatabase is where sessions live: the authority. *store.Store is one.
//
// Each method is one transaction and may be called concurrently. Whatever keeps it from
// answering now is models.ErrUnavailable. A session is live while Session.Live says so,
// nothing has ended it, and Epoch is its user's. Rows that are not live may be removed two
// minutes later. Times are kept to the microsecond.
//
// The revocation log numbers its entries from 1 without gaps, in the order in which their
// transactions commit: a read that returns an entry has missed none before it. It holds at
// least the entries of the last 20 min.
type SessionDatabase interface {
	// InsertSession stores a session, if the user's epoch is still s.Epoch; otherwise
	// models.ErrStale. It ends the user's oldest live sessions beyond maxPerUser, each
	// with an entry in the log, and returns how many.
	InsertSession(ctx context.Context, s models.Session, maxPerUser int) (ended int, err error)
	// Session returns the session, if it was live at that time, with its user's address
	// and roles; otherwise models.ErrNotFound.
	Session(ctx context.Context, hash string, at time.Time) (models.Session, error)
	// SessionsOf returns the live sessions of a user, newest first.
	SessionsOf(ctx context.Context, userID string, at time.Time) ([]models.Session, error)
	// TouchSessions moves LastSeen and IdleAt of sessions that were live at LastSeen, never
	// back. It returns the hashes that it wrote; it may leave out live ones that another
	// transaction is changing, unless it is asked for one alone.
	TouchSessions(ctx context.Context, used []models.Activity) (written []string, err error)
	// SaveSessionData stores the data of a live session that still has that version, and
	// returns the next version. models.ErrStale if it has another, models.ErrNotFound if
	// it is not live.
	SaveSessionData(ctx context.Context, hash string, version int64, data []byte) (int64, error)
	// EndSessions ends sessions for good, with one entry in the log. models.ErrNotFound,
	// and nothing is ended, if there is none, or the one to keep has been ended itself.
	EndSessions(ctx context.Context, which models.Ending) error
	// NoteChange writes an entry to the log that names a session, or everybody's if hash
	// is empty, and ends nothing: older copies do not count.
	NoteChange(ctx context.Context, hash string) error
	// Revocations returns the entries above a number or, if since is not zero, from the
	// first one not before since on, and the head of the log, all from one snapshot. If
	// the oldest are missing, the caller starts anew.
	Revocations(ctx context.Context, after int64, since time.Time) (models.Revocations, error)
}

//go:embed lua/store.lua
var storeScript string

// Cache begins, finds and ends sessions. The database decides; copies in
// memory and in Redis only save it work. A copy may say yes, never no: a missing,
// expired or doubtful one is read again from the database. A copy counts only
// while the revocation log vouches for it, so an ended session is refused at once
// by the instance that ended it, within milliseconds by the others while Redis or
// PostgreSQL carries the hint, and within 2 s whatever Redis does.
//
// A copy in memory is kept fresh by Redis, which tells of a change, for at most
// 10 min. Without that, because Redis is away or its user, version or proxy does not
// allow CLIENT TRACKING, a copy is good for 2 s. Values saved through one instance are
// seen by the others at most 2 s later, also if Redis cannot be reached from there;
// if Redis lost them, by failing over or coming back from a dump, in at most 10 min.
//
// Without Redis everything works, with one database query per session and
// instance every 2 s. Without the database, copies count for 2 s more; then every
// answer is models.ErrUnavailable: never models.ErrNotFound, never a session.
//
// The methods that end sessions (Delete and those that begin with it) return when
// that is committed and counts in this instance. models.ErrUnavailable leaves open
// whether it was committed; ending again is harmless.
//
// All methods may be called concurrently.
type Cache struct {
	redis    *redis.Client
	database SessionDatabase
	opt      Options
	log      *slog.Logger

	follower *logFollower
	memory   *sessionMemory
	tracking *redis.Tracking
	activity *sessionActivity
	seal     *sessionSeal
	keep     *rueidis.Lua
	flight   singleflight.Group
	hints    chan struct{}
	name     string // of this instance, in hints

	stop  context.CancelFunc
	tasks sync.WaitGroup
	reads sessionReads
}

// sessionReads counts the answers of Get, by where they came from.
type sessionReads struct{ memory, redis, database, none, unavailable prometheus.Counter }

func newSessionReads(metrics prometheus.Registerer) sessionReads {
	reads := promauto.With(metrics).NewCounterVec(prometheus.CounterOpts{
		Name: "gatehouse_session_reads_total",
		Help: "Sessions looked up, by what answered: memory, redis, database, none (no such session) or unavailable.",
	}, []string{"source"})
	return sessionReads{
		memory: reads.WithLabelValues("memory"), redis: reads.WithLabelValues("redis"), database: reads.WithLabelValues("database"),
		none: reads.WithLabelValues("none"), unavailable: reads.WithLabelValues("unavailable"),
	}
}

// NewCache returns at once and follows the revocation log in the
// background until Close. It refuses to work without redis and database, and with
// options that are not allowed.
func NewCache(rdb *redis.Client, database SessionDatabase, opt Options) (*Cache, error) {
	if err := require.All("session.NewCache", require.Argument{Name: "Redis", Value: rdb}, require.Argument{Name: "SessionDatabase", Value: database}); err != nil {
		return nil, err
	}
	if opt.Secrets != nil {
		if err := models.ValidateSecrets(opt.Secrets); err != nil {
			return nil, fmt.Errorf("session.NewCache: %w", err)
		}
	}
	opt.AbsoluteTimeout = cmp.Or(opt.AbsoluteTimeout, defaultAbsoluteTimeout)
	opt.IdleTimeout = cmp.Or(opt.IdleTimeout, min(defaultIdleTimeout, opt.AbsoluteTimeout))
	if opt.IdleTimeout < 0 || opt.AbsoluteTimeout < 0 || opt.MaxPerUser < 0 || opt.MemoryBytes < 0 {
		return nil, errors.New("session.NewCache: a negative option")
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
		memory:   newSessionMemory(opt.MemoryBytes),
		activity: newSessionActivity(opt.IdleTimeout),
		seal:     newSessionSeal(opt.Secrets),
		keep:     rueidis.NewLuaScript(storeScript),
		hints:    make(chan struct{}, 1),
		name:     rand.Text(),
		reads:    newSessionReads(opt.Metrics),
	}
	c.tracking = redis.NewTracking(rdb, c.changedInRedis)
	promauto.With(opt.Metrics).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "gatehouse_session_memory_bytes",
		Help: "Estimated size of the sessions kept in memory.",
	}, func() float64 {
		_, bytes := c.memory.size()
		return float64(bytes)
	})
	promauto.With(opt.Metrics).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "gatehouse_session_copies_trusted",
		Help: "1 while the revocation log was read recently enough for copies of sessions to count.",
	}, func() float64 {
		if c.follower.trusted(time.Now()) {
			return 1
		}
		return 0
	})
	life, stop := context.WithCancel(context.Background())
	c.stop = stop
	c.tasks.Go(func() { c.follower.run(life) })
	c.tasks.Go(func() { c.writeActivity(life) })
	c.tasks.Go(func() { c.sendHints(life) })
	c.tasks.Go(func() { c.tracking.Run(life) })
	if opt.Watch != nil {
		c.tasks.Go(func() { opt.Watch(life, c.follower.wake) })
	}
	rdb.Subscribe(revokedChannel, c.hinted)
	return c, nil
}

// Close writes down the last activity and ends the background work. Call it
// after the last request and before the store and Redis are closed. An error
// says that ctx ended first.
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

// Degraded reports whether the session of a token is read without Redis now. In a Cluster
// that depends on where it lives.
func (c *Cache) Degraded(token string) bool {
	return !c.redis.Available() && !c.redis.AvailableFor(c.redisKey(hashToken(token)))
}
