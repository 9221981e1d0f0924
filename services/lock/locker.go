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
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/rueidis"

	"gatehouse/internal/require"
	"gatehouse/models"
	"gatehouse/services/redis"
)

const (
	// DefaultTTL is the lease of a lock whose TTL is not said.
	DefaultTTL = 30 * time.Second
	// DefaultMaxHold is how long a grant can last, however often it is extended.
	DefaultMaxHold = time.Hour

	waiterPoll    = 50 * time.Millisecond  // how often a waiter asks the instance's own table
	waiterAsk     = 3 * time.Second        // how often it asks Redis although nothing woke it
	waiterAlive   = 240 * time.Millisecond // waiters of a silent instance are skipped after this, and a round trip
	waiterConfirm = 100 * time.Millisecond // the least a waiter has to take what it was granted
	cleanUpTime   = time.Second            // for giving back what a caller who left had asked for

	// claimGrace is how long after a server has forgotten a shard its free locks are only for
	// holders who claim them: an instance is back within 1 s, and claims within another.
	claimGrace   = 2 * time.Second
	claimsAtOnce = 64 // far fewer than calls may be in flight: others want to use Redis, too
)

// Options configures a Locker.
type Options struct {
	// OnRedisDown is closed (the zero value: without Redis every call answers
	// models.ErrUnavailable) or open (this instance's own table decides, and
	// answers say Degraded). Open is for resources whose writes are guarded by
	// a second rule, such as a version in the database.
	OnRedisDown models.OnRedisDown
	// MaxHold caps extending. Zero is 1 hour.
	MaxHold time.Duration
	// Clock is read in place of time.Now for the times that are told or compared
	// with those of others: Since, ExpiresAt, the end of tokens. Leases do not ask
	// it: they are counted on the monotonic clock. It is called concurrently. Nil is
	// time.Now.
	Clock func() time.Time
	// Logger is told of conflicts after an outage. Nil is slog.Default.
	Logger *slog.Logger
	// Metrics registers the collectors. Nil registers none.
	Metrics prometheus.Registerer
}

// Locker grants locks on resources to holders, across instances, by scripts in
// Redis. A grant ends when it is released, forced, or its TTL has passed. The
// shape follows bsm/redislock and Redisson; fences follow Kleppmann, "How to do
// distributed locking" (2016): they only grow, and a store that remembers the
// highest can refuse the writes of a holder that was too late.
//
// When Redis cannot be asked, every method answers models.ErrUnavailable, or does
// what LockerOptions.OnRedisDown says.
type Locker struct {
	redis    *redis.Client
	opt      Options
	instance string // names this Locker among those that wait
	keys     *lockKeys
	table    *lockTable
	waiters  *lockWaiters
	groups   *lockGroups
	events   *lockEvents
	clock    serverClock
	peers    lockPeers
	scripts  lockScripts

	metrics *lockMetrics
}

// New returns a Locker; nil options mean the defaults. Its background work
// ends when redis is closed. It panics without redis: that is a mistake in the program.
func New(rdb *redis.Client, opt *Options) *Locker {
	require.Must("lock.New", require.Argument{Name: "Redis", Value: rdb})
	if opt == nil {
		opt = &Options{}
	}
	l := &Locker{
		redis: rdb, opt: *opt, instance: rand.Text(), waiters: newLockWaiters(), groups: newLockGroups(),
		events: newLockEvents(), keys: newLockKeys(rdb),
	}
	l.opt.MaxHold = cmp.Or(opt.MaxHold, DefaultMaxHold)
	if l.opt.Clock == nil {
		l.opt.Clock = time.Now
	}
	l.scripts = loadLockScripts(rdb.Key("locks"), rdb.Key("ends"), l.opt.MaxHold)
	l.clock.wall, l.events.wall = l.opt.Clock, l.opt.Clock
	l.table = newLockTable(l.opt.MaxHold, l.opt.Clock)
	if l.opt.Logger == nil {
		l.opt.Logger = slog.Default()
	}
	l.metrics = newLockMetrics(opt.Metrics)
	rdb.OnRecover(l.reconcile)
	rdb.Subscribe("grants:"+l.instance, l.waiters.granted)
	rdb.Subscribe("ends", l.heardEnd)
	l.events.subscribe = func(ctx context.Context, up, down func()) { rdb.Listen(ctx, "locks", l.heard, up, down) }
	rdb.Go(l.beats)
	return l
}

// Claim names a grant and proves it. Only the holder has the Token.
type Claim = models.LockClaim

// proofOf is what the scripts compare: the grant's id and the hash of its token.
func proofOf(c Claim) string { return c.Grant + hashLockToken(c.Token) }

// Lock is one grant, as it was answered. It is a value: it does not follow what
// happens to the grant later.
type Lock struct {
	Claim
	Holder    models.Holder
	Fence     *int64        // grows from grant to grant; nil when granted without Redis
	TTL       time.Duration // time left when answered
	ExpiresAt time.Time
	Note      string // see Locker.Note
	Repeated  bool   // the token had this grant already
	Degraded  bool   // granted without Redis

	// began is not after the grant, ends before the lease can end at the server: both
	// counted on this instance's monotonic clock from before the request was sent.
	began, ends time.Time
	unconfirmed bool // a waiter's, which is to extend it at once
}

// endsThere is when the lease ends at the server, as it answered.
func (l *Lock) endsThere() time.Time { return l.ends.Add(drift(l.TTL)) }

// Extend makes the time left ttl from now, 30 s if that is zero or less, but ends the
// grant at MaxHold. Only the holder can: else the error is a *models.NotHeldError.
func (l *Locker) Extend(ctx context.Context, claim Claim, ttl time.Duration) (Lock, error) {
	return l.ExtendFor(ctx, claim, models.Holder{}, ttl)
}

// ExtendFor is Extend for a caller who knows the holder: without Redis, an instance that
// did not make the grant learns of him in no other way.
func (l *Locker) ExtendFor(ctx context.Context, claim Claim, holder models.Holder, ttl time.Duration) (Lock, error) {
	ttl = leaseOf(ttl)
	sent := time.Now()
	share := ""
	if !l.table.made(claim) {
		share = "1"
	}
	got, err := l.runHeld(ctx, "extend", claim, func() (lockReply, error) {
		return l.run(ctx, l.scripts.extend, claim.Resource, proofOf(claim),
			milliseconds(ttl), milliseconds(l.opt.MaxHold), "0", share)
	})
	if err == nil {
		lock := got.lock(claim, sent)
		l.table.learn(lock, got.epoch, false)
		return lock, nil
	}
	if !l.mayDegrade(err) {
		return Lock{}, err
	}
	lock, err := l.table.extend(sent, claim, holder, ttl)
	if err == nil {
		l.events.tellOwn(models.LockExtended, lock)
	}
	return lock, err
}

// Check answers nil while the claim holds the lock and a *models.NotHeldError
// when not. Without Redis (open) a claim passes unless this instance's table
// knows better; degraded says so. Verify the token's signature first.
func (l *Locker) Check(ctx context.Context, claim Claim) (degraded bool, err error) {
	_, err = l.runHeld(ctx, "check", claim, func() (lockReply, error) {
		got, err := l.run(ctx, l.scripts.status, claim.Resource)
		if err == nil && !got.heldBy(claim) {
			got.code = lockRefused
		}
		return got, err
	})
	if err == nil || !l.mayDegrade(err) {
		return false, err
	}
	return true, l.table.check(time.Now(), claim)
}

// Release gives the lock back and grants it to the next waiter in the same
// step. Without Redis it is carried out when Redis returns; the error says whether
// that is promised (open: none) or not (closed: models.ErrUnavailable).
func (l *Locker) Release(ctx context.Context, claim Claim) (degraded bool, err error) {
	args := append([]string{proofOf(claim)}, l.table.others(claim)...)
	got, err := l.runHeld(ctx, "release", claim, func() (lockReply, error) {
		return l.run(ctx, l.scripts.release, claim.Resource, args...)
	})
	if err == nil {
		l.table.release(claim)
		l.passedOn(got)
		return false, nil
	}
	if !errors.Is(err, models.ErrUnavailable) {
		return false, err
	}
	// Whom the table refuses has no effect, now or later.
	if notHeld := l.table.check(time.Now(), claim); notHeld != nil {
		if l.mayDegrade(err) {
			return true, notHeld
		}
		return false, err
	}
	known, own := l.table.find(claim)
	l.table.owe(claim, asRelease)
	l.table.release(claim) // closed, too: else it would be claimed when Redis returns
	if !l.mayDegrade(err) {
		return false, err
	}
	if own {
		l.events.tellOwn(models.LockReleased, known.lock)
	}
	return true, nil
}

// runHeld runs what only a holder may do. A grant that this instance made or took
// over, and that Redis does not know because it was away or has forgotten, is claimed
// there first.
func (l *Locker) runHeld(ctx context.Context, operation string, claim Claim, run func() (lockReply, error)) (lockReply, error) {
	got, err := run()
	if err == nil && got.code == lockRefused {
		var stands bool
		if stands, err = l.claimAgain(ctx, claim, got); stands {
			got, err = run()
		}
	}
	switch {
	case err != nil && l.opt.OnRedisDown == models.OnRedisDownOpen:
		l.count(operation, "degraded")
	case err != nil:
		l.count(operation, "unavailable")
	case got.code == lockRefused:
		l.count(operation, "refused")
		l.table.release(claim)
		return got, &models.NotHeldError{Status: got.status(claim.Resource)}
	default:
		l.count(operation, "done")
	}
	if err != nil {
		return got, fmt.Errorf("%s %s: %w", operation, claim.Resource, err)
	}
	return got, nil
}

// Status tells which user has the lock, if one has.
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

// ForceRelease ends the lock whoever holds it and answers how it stood before.
// With a fence it ends only that grant: another one is a *models.NotHeldError.
// A free lock is models.ErrNotFound. Without Redis (open) that is what this instance
// knows; the status then says Degraded, beside an error, too.
func (l *Locker) ForceRelease(ctx context.Context, resource string, fence *int64) (models.LockStatus, error) {
	return l.force(ctx, resource, fence, "")
}

// force ends a lock; with a fence or a grant only that one.
func (l *Locker) force(ctx context.Context, resource string, fence *int64, grant string) (models.LockStatus, error) {
	wanted := ""
	if fence != nil {
		wanted = strconv.FormatInt(*fence, 10)
	}
	got, err := l.run(ctx, l.scripts.force, resource, wanted, grant)
	switch {
	case err == nil && got.code == lockRefused:
		return models.LockStatus{}, fmt.Errorf("force %s: %w", resource, models.ErrNotFound)
	case err == nil && got.code == lockOtherFence:
		return models.LockStatus{}, &models.NotHeldError{Status: got.status(resource)}
	case err == nil:
		l.count("force", "done")
		l.table.end(resource, got.grant)
		l.groups.revoke(got.grant)
		l.passedOn(got)
		return got.status(resource), nil
	case !l.mayDegrade(err):
		l.count("force", "unavailable")
		return models.LockStatus{}, fmt.Errorf("force %s: %w", resource, err)
	}
	l.count("force", "degraded")
	was, err := l.table.force(time.Now(), resource, fence, grant)
	if err == nil {
		l.groups.revoke(was.Grant)
		l.events.tellOwn(models.LockForced, Lock{Claim: Claim{Resource: resource}, Holder: was.Holder, Fence: was.Fence})
	}
	return was, err
}

// Note keeps a short text with the grant until it ends; the first one stays and
// is answered. It must not be a secret in clear.
func (l *Locker) Note(ctx context.Context, lock Lock, note string) (string, error) {
	if !lock.Degraded {
		got, err := l.run(ctx, l.scripts.note, lock.Resource, lock.Grant, note)
		switch {
		case err == nil && got.code == lockRefused:
			return "", &models.NotHeldError{Status: got.status(lock.Resource)}
		case err == nil:
			l.table.note(lock.Resource, lock.Grant, got.note)
			return got.note, nil
		case !l.mayDegrade(err):
			return "", fmt.Errorf("note %s: %w", lock.Resource, err)
		}
	}
	return l.table.note(lock.Resource, lock.Grant, note), nil
}

func (l *Locker) mayDegrade(err error) bool {
	return errors.Is(err, models.ErrUnavailable) && l.opt.OnRedisDown == models.OnRedisDownOpen
}

// run executes one of the scripts on the keys of a resource.
func (l *Locker) run(ctx context.Context, script *rueidis.Lua, resource string, args ...string) (lockReply, error) {
	return l.exec(ctx, script, l.keys.of(resource)[:3], args)
}

func (l *Locker) exec(ctx context.Context, script *rueidis.Lua, keys, args []string) (lockReply, error) {
	msg, err := l.redis.Exec(ctx, script, keys, args)
	if err != nil {
		return lockReply{}, err
	}
	got, err := readLockReply(msg)
	got.heard = l.opt.Clock()
	if err == nil && got.now != 0 {
		l.clock.heard(time.Now(), got.now)
	}
	return got, err
}

func hashLockToken(token string) string {
	sum := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func milliseconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Millisecond-1)/time.Millisecond), 10)
}
