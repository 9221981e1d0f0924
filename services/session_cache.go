package services

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/redis/rueidis"
	"golang.org/x/sync/singleflight"

	"gatehouse/models"
)

const (
	defaultIdleTimeout     = 30 * time.Minute
	defaultAbsoluteTimeout = 12 * time.Hour
	defaultMaxPerUser      = 20

	cleanUpInterval = time.Minute
	cleanUpBatch    = 500
	revokeTimeout   = 2 * time.Second // to make a committed revoke count here
)

// SessionOptions configures a SessionCache. The zero value has the defaults.
type SessionOptions struct {
	// IdleTimeout ends a session that is not used for so long. Zero is 30 min.
	IdleTimeout time.Duration
	// AbsoluteTimeout ends a session however much it is used. Zero is 12 h.
	AbsoluteTimeout time.Duration
	// MaxPerUser bounds the sessions of one user; a new one ends the oldest
	// beyond it. Zero is 20.
	MaxPerUser int
	// Logger gets one line per change of state. Nil is slog.Default.
	Logger *slog.Logger
	// Metrics registers the collectors. Nil registers none.
	Metrics prometheus.Registerer
}

// sessionRows is where sessions live: the database, the authority. *store.Store
// is one.
type sessionRows interface {
	InsertSession(ctx context.Context, s models.Session, maxPerUser int) error
	Session(ctx context.Context, hash string, now time.Time) (models.Session, error)
	SessionsOf(ctx context.Context, userID string, now time.Time) ([]models.Session, error)
	CountSessions(ctx context.Context, userID string, now time.Time) (int, error)
	TouchSession(ctx context.Context, hash string, lastSeen, idleAt time.Time) error
	SaveSessionData(ctx context.Context, hash string, version int64, data []byte) (int64, error)
	ChangePassword(ctx context.Context, userID string, epoch int64, newHash string, next models.Session) error
	CleanUp(ctx context.Context, now time.Time, limit int) (int, error)
}

// sessionEnder ends sessions before their time, each with an entry in the log.
type sessionEnder interface {
	EndSession(ctx context.Context, hash string) error
	EndSessionByID(ctx context.Context, userID, id string) error
	EndUserSessions(ctx context.Context, userID string) error
	EndOtherSessions(ctx context.Context, userID, keepHash string) error
	EndAllSessions(ctx context.Context, keepHash string) error
}

// SessionStore is what a SessionCache asks of the database. *store.Store is one.
type SessionStore interface {
	sessionRows
	sessionEnder
	revocationLog
}

// SessionCache begins, finds and ends sessions. The database decides; copies in
// memory and in Redis only save it work. A copy may say yes, never no: a missing,
// expired or doubtful one is read again from the database. A copy counts only
// while the revocation log vouches for it, so an ended session is refused at once
// by the instance that ended it, within milliseconds by the others while Redis
// carries the hint, and within 2 s whatever Redis does.
//
// Values saved through one instance are seen by the others at most 2 s later.
//
// Without Redis everything works, with one database query per session and
// instance every 2 s. Without the database, copies count for 2 s more; then every
// answer is models.ErrUnavailable: never models.ErrNotFound, never a session.
//
// All methods may be called concurrently.
type SessionCache struct {
	redis *Redis
	store SessionStore
	opt   SessionOptions
	log   *slog.Logger

	tail     *revocationTail
	memory   *sessionMemory
	activity *sessionActivity
	keep     *rueidis.Lua
	owed     *owedDeletes
	flight   singleflight.Group
	hints    chan struct{}

	stop  context.CancelFunc
	tasks sync.WaitGroup
	reads *prometheus.CounterVec
}

// NewSessionCache returns at once and follows the revocation log in the
// background until Close.
func NewSessionCache(redis *Redis, store SessionStore, opt SessionOptions) *SessionCache {
	opt.IdleTimeout = orDefault(opt.IdleTimeout, defaultIdleTimeout)
	opt.AbsoluteTimeout = orDefault(opt.AbsoluteTimeout, defaultAbsoluteTimeout)
	opt.MaxPerUser = orDefault(opt.MaxPerUser, defaultMaxPerUser)
	if opt.Logger == nil {
		opt.Logger = slog.Default()
	}
	c := &SessionCache{
		redis:    redis,
		store:    store,
		opt:      opt,
		log:      opt.Logger,
		tail:     newRevocationTail(store, opt.Logger),
		memory:   newSessionMemory(),
		activity: newSessionActivity(opt.IdleTimeout),
		keep:     rueidis.NewLuaScript(luaSource("session_store")),
		owed:     newOwedDeletes(),
		hints:    make(chan struct{}, 1),
		reads: promauto.With(opt.Metrics).NewCounterVec(prometheus.CounterOpts{
			Name: "gatehouse_session_reads_total",
			Help: "Sessions looked up, by what answered: memory, redis, database, none (no such session) or unavailable.",
		}, []string{"source"}),
	}
	promauto.With(opt.Metrics).NewGaugeFunc(prometheus.GaugeOpts{
		Name: "gatehouse_session_copies_trusted",
		Help: "1 while the revocation log was read recently enough for copies of sessions to count.",
	}, func() float64 {
		if c.tail.isTrusted(time.Now()) {
			return 1
		}
		return 0
	})
	life, stop := context.WithCancel(context.Background())
	c.stop = stop
	c.tasks.Go(func() { c.tail.run(life) })
	c.tasks.Go(func() { c.writeActivity(life) })
	c.tasks.Go(func() { c.cleanUp(life) })
	c.tasks.Go(func() { c.sendHints(life) })
	c.tasks.Go(func() { c.settle(life) })
	redis.Subscribe(revokedChannel, c.hinted)
	redis.OnRecover(c.payOwed)
	return c
}

// Close writes down the last activity and ends the background work. Call it
// after the last request and before the store and Redis are closed. An error
// says that ctx ended first.
func (c *SessionCache) Close(ctx context.Context) error {
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

// Degraded reports whether sessions are read without Redis now.
func (c *SessionCache) Degraded() bool { return !c.redis.Available() }

// Get returns the live session of a token. models.ErrNotFound means that there is
// none; models.ErrUnavailable, that nobody can say now. It is no activity: see Seen.
func (c *SessionCache) Get(ctx context.Context, token string) (models.Session, error) {
	if !isSessionToken(token) {
		c.reads.WithLabelValues("none").Inc()
		return models.Session{}, fmt.Errorf("get session: %w", models.ErrNotFound)
	}
	s, source, err := c.find(ctx, hashToken(token))
	c.reads.WithLabelValues(source).Inc()
	if err != nil {
		return models.Session{}, fmt.Errorf("get session: %w", err)
	}
	return s, nil
}

// Warm reports whether a token's session is in memory, so that Get will answer
// without Redis and database. It does no I/O itself.
func (c *SessionCache) Warm(token string) bool {
	if !isSessionToken(token) {
		return false
	}
	_, ok := c.fromMemory(hashToken(token), time.Now())
	return ok
}

// Known reports whether this instance has found the session of a token before, so
// that it is no guess; it may have ended since. It does no I/O.
func (c *SessionCache) Known(token string) bool {
	return isSessionToken(token) && c.memory.holds(hashToken(token))
}

func (c *SessionCache) find(ctx context.Context, hash string) (s models.Session, source string, err error) {
	if s, ok := c.fromMemory(hash, time.Now()); ok {
		return s, "memory", nil
	}
	if s, ok := c.fromRedis(ctx, hash); ok {
		return s, "redis", nil
	}
	s, err = c.fromRow(ctx, hash)
	switch {
	case err == nil:
		return s, "database", nil
	case errors.Is(err, models.ErrNotFound):
		c.forget(hash)
		return s, "none", err
	}
	return s, "unavailable", err
}

func (c *SessionCache) fromMemory(hash string, now time.Time) (models.Session, bool) {
	known, ok := c.memory.get(hash, now)
	if !ok {
		return models.Session{}, false
	}
	return c.accept(known, now)
}

// accept decides whether a copy may be used: it is live, counting what this
// instance has seen of it, and the revocation log vouches for it.
func (c *SessionCache) accept(known sessionCopy, now time.Time) (models.Session, bool) {
	s := c.activity.applyTo(known.Session)
	if !s.Live(now) || !c.tail.counts(known.Position, s.Hash, s.User.ID, now) {
		return models.Session{}, false
	}
	return s, true
}

// rowRead is the answer of one query that several callers may share.
type rowRead struct {
	session models.Session
	sentAt  time.Time
}

// fromRow reads the database, one query for all who ask for the same session,
// and renews the copies.
func (c *SessionCache) fromRow(ctx context.Context, hash string) (models.Session, error) {
	asked := time.Now()
	for {
		result := c.flight.DoChan(hash, func() (any, error) {
			return c.readRow(context.WithoutCancel(ctx), hash)
		})
		select {
		case <-ctx.Done():
			return models.Session{}, fmt.Errorf("%w: %w", models.ErrUnavailable, context.Cause(ctx))
		case got := <-result:
			read := got.Val.(rowRead)
			if read.sentAt.Before(asked) && !errors.Is(got.Err, models.ErrUnavailable) {
				continue // somebody's earlier query: the session may have ended since
			}
			return read.session, got.Err
		}
	}
}

func (c *SessionCache) readRow(ctx context.Context, hash string) (rowRead, error) {
	pos, stamped := c.tail.position()
	read := rowRead{sentAt: time.Now()}
	s, err := c.store.Session(ctx, hash, c.activity.asOf(hash, read.sentAt))
	switch {
	case errors.Is(err, models.ErrNotFound):
		c.forget(hash)
		return read, err
	case errors.Is(err, models.ErrUnavailable):
		return read, err
	case err != nil:
		return read, fmt.Errorf("%w: %w", models.ErrUnavailable, err)
	}
	read.session = c.activity.applyTo(s)
	if !read.session.Live(time.Now()) {
		return read, models.ErrNotFound
	}
	if stamped {
		c.remember(ctx, sessionCopy{Session: s, Position: pos, ReadAt: read.sentAt})
	}
	return read, nil
}

// cleanUp removes what has expired from the database, a batch at a time.
func (c *SessionCache) cleanUp(ctx context.Context) {
	for {
		select {
		case <-time.After(cleanUpInterval/2 + rand.N(cleanUpInterval)): // instances take turns by chance
		case <-ctx.Done():
			return
		}
		for ctx.Err() == nil {
			// A row may be behind what the instances have seen of it.
			n, err := c.store.CleanUp(ctx, time.Now().Add(-2*c.activity.interval), cleanUpBatch)
			if err != nil && ctx.Err() == nil {
				c.log.Warn("expired sessions cannot be removed now", "error", err)
			}
			if err != nil || n < cleanUpBatch {
				break
			}
		}
	}
}
