package lock

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"gatehouse/internal/require"
	"gatehouse/models"
	"gatehouse/services/redis"
)

const (
	// DefaultTTL is the lease of a lock whose TTL is not said.
	DefaultTTL = 30 * time.Second
	// DefaultMaxHold is how long a grant can last, however often it is extended.
	DefaultMaxHold = time.Hour

	cleanUpTime = time.Second // for giving back what a caller who left had asked for
	callsAtOnce = 64          // far fewer than calls may be in flight: others want to use Redis, too

	// claimGrace is how long after a server has forgotten a shard its free locks are only for
	// holders who reassert them: an instance is back within 1 s, and reasserts within another.
	claimGrace = 2 * time.Second
)

// Options configures a Locker.
type Options struct {
	// OnRedisDown is closed (the zero value: without Redis every call returns
	// models.ErrUnavailable) or open (this instance's own table decides, and
	// what it returns is Degraded). Open is for resources whose writes are
	// guarded by a second rule, such as a version in the database.
	OnRedisDown models.OnRedisDown
	// MaxHold is how long a grant can last, however often it is extended. Zero is 1 hour. It
	// must be the same on all instances.
	MaxHold time.Duration
	// Clock is read in place of time.Now for times that leave the instance: Since,
	// ExpiresAt, the end of tokens. Leases do not depend on it. It is called
	// concurrently. Nil is time.Now.
	Clock func() time.Time
	// Logger gets one line for each grant that is lost in an outage. Nil is slog.Default.
	Logger *slog.Logger
	// Metrics registers the collectors. Nil registers none.
	Metrics prometheus.Registerer
	// Ended is called for each grant whose end no caller is answered: leases that ended by
	// themselves, each on one of the instances, and locks of a disabled user that end after an
	// outage. It must not block. Nil hears of none.
	Ended func(lock models.EndedLock)

	grace time.Duration // claimGrace; a test on a busy machine gives holders longer
}

// Locker grants locks on resources to holders, across instances, by scripts in
// Redis. A grant ends when it is released, forced, or its TTL has passed. The
// shape follows bsm/redislock and Redisson; fences follow Kleppmann, "How to do
// distributed locking" (2016): they only grow, and a store that remembers the
// highest can refuse the writes of a holder that was too late.
//
// All methods are safe for concurrent use. When Redis cannot be asked, each returns
// models.ErrUnavailable, or works as its comment says where Options.OnRedisDown is open.
type Locker struct {
	redis      *redis.Client
	opt        Options
	instance   string // names this Locker among those that wait
	keys       *shardKeys
	scripts    scriptSet
	shards     shardStates
	table      *localTable
	waiters    *waiterSet
	waitingDue sync.Map // resources for which a models.LockWaiting is about to be published
	groups     *leaseGroups
	events     *eventHub
	clock      serverClock
	peers      peers
	elsewhere  elsewhere
	looks      *looks
	metrics    *metrics
}

// New returns a Locker. Its background work ends when rdb is closed. It panics without
// rdb, if MaxHold is negative, or if OnRedisDown is another word: those are mistakes in the
// program. Lockers whose clients have different prefixes know nothing of each other; on one metrics
// registry, give each a label by prometheus.WrapRegistererWith.
func New(rdb *redis.Client, opt Options) *Locker {
	require.Must("lock.New", require.Argument{Name: "Redis", Value: rdb})
	if opt.MaxHold < 0 {
		panic("lock.New: negative MaxHold")
	}
	switch opt.OnRedisDown {
	case "", models.OnRedisDownOpen, models.OnRedisDownClosed:
	default:
		panic(fmt.Sprintf("lock.New: OnRedisDown %q is neither open nor closed", opt.OnRedisDown))
	}
	l := &Locker{
		redis: rdb, opt: opt, instance: rand.Text(), waiters: newWaiterSet(), groups: newLeaseGroups(),
		events: newEventHub(), keys: newShardKeys(rdb), looks: newLooks(),
	}
	l.opt.MaxHold = cmp.Or(opt.MaxHold, DefaultMaxHold)
	if l.opt.Ended == nil {
		l.opt.Ended = func(models.EndedLock) {}
	}
	if l.opt.Clock == nil {
		l.opt.Clock = time.Now
	}
	l.scripts = loadScripts(rdb.Key("locks"), rdb.Key("ends"), l.opt.MaxHold, cmp.Or(opt.grace, claimGrace))
	l.clock.wall, l.events.wall = l.opt.Clock, l.opt.Clock
	l.table = newLocalTable(l.opt.MaxHold, l.opt.Clock)
	l.table.alone = rdb.Disabled()
	if l.opt.Logger == nil {
		l.opt.Logger = slog.Default()
	}
	l.metrics = newMetrics(opt.Metrics)
	rdb.OnRecover(l.reconcile)
	rdb.Subscribe("grants:"+l.instance, l.waiters.granted)
	rdb.Subscribe("ends", l.observeEnd)
	l.events.subscribe = func(ctx context.Context, up, down func()) { rdb.Listen(ctx, "locks", l.observeEvent, up, down) }
	rdb.Go(l.heartbeats)
	return l
}

// Claim names a grant and proves it. Only the holder has the Token.
type Claim = models.LockClaim

// credential is what the scripts compare: the grant's id and the hash of its token.
func credential(c Claim) string { return c.Grant + hashToken(c.Token) }

// Lock is one grant as Redis, or without it the instance, answered. It is a value: it
// does not follow what happens to the grant later.
type Lock struct {
	Claim
	Holder    models.Holder
	Fence     *int64        // grows from grant to grant; nil when granted without Redis
	TTL       time.Duration // time left when answered
	ExpiresAt time.Time     // the same by Options.Clock
	Metadata  string        // see Locker.Metadata
	Repeated  bool          // the token had this grant already
	Degraded  bool          // granted without Redis

	// grantedAt is not after the grant, trustedUntil before the lease can end at the server:
	// both on this instance's monotonic clock, counted from before the request was sent.
	grantedAt, trustedUntil time.Time
	unconfirmed             bool // a waiter's, which is to extend it at once
}

// serverExpiry is when the lease ends at the server, as it answered.
func (l *Lock) serverExpiry() time.Time { return l.trustedUntil.Add(drift(l.TTL)) }

// Status returns who has the lock, if it is held, and how many wait. Without Redis (open)
// it returns what this instance knows, Degraded.
func (l *Locker) Status(ctx context.Context, resource string) (models.LockStatus, error) {
	got, err := l.run(ctx, l.scripts.status, resource)
	if err == nil {
		return got.status(resource), nil
	}
	if !l.mayDegrade(err) {
		return models.LockStatus{}, fmt.Errorf("lock status of %s: %w", resource, err)
	}
	return l.table.status(time.Now(), resource), nil
}

// Metadata keeps a short text with the grant until it ends; the first one stays and
// is returned. It must not be a secret in clear. A grant that has ended is a
// *models.NotHeldError. Without Redis (open) this instance keeps the text, until it can
// bring it to Redis with the grant; closed, the error is models.ErrUnavailable.
func (l *Locker) Metadata(ctx context.Context, lock Lock, text string) (string, error) {
	if !lock.Degraded {
		got, err := l.run(ctx, l.scripts.metadata, lock.Resource, lock.Grant, text)
		switch {
		case err == nil && got.code == codeRefused:
			return "", &models.NotHeldError{Status: got.status(lock.Resource)}
		case err == nil:
			l.table.metadata(lock.Resource, lock.Grant, got.metadata)
			return got.metadata, nil
		case !l.mayDegrade(err):
			return "", fmt.Errorf("metadata of %s: %w", lock.Resource, err)
		}
	}
	return l.table.metadata(lock.Resource, lock.Grant, text), nil
}

func (l *Locker) mayDegrade(err error) bool {
	return errors.Is(err, models.ErrUnavailable) && l.opt.OnRedisDown == models.OnRedisDownOpen
}

func hashToken(token string) string {
	sum := sha256.Sum256([]byte(token))
	var text [grantRest - grantToken]byte
	base64.RawURLEncoding.Encode(text[:], sum[:])
	return string(text[:])
}

func milliseconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Millisecond-1)/time.Millisecond), 10)
}
