package lock

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
)

// Request asks for a lock.
type Request struct {
	Resource string
	// TTL is the lease, rounded up to milliseconds and at most MaxHold. Zero or
	// less is 30 s.
	TTL    time.Duration
	Holder models.Holder // UserID, Email and Reason are kept
	// Token makes the request safe to repeat: the same token gets the same
	// grant while that lives. It must be unguessable. Empty takes a new one.
	Token string
}

// leaseOf is ttl, or the default where it says nothing.
func leaseOf(ttl time.Duration) time.Duration {
	if ttl <= 0 {
		return DefaultTTL
	}
	return ttl
}

// NewToken is a new unguessable token of 128 random bits or more.
func NewToken() string { return rand.Text() }

// TryAcquire takes the lock or answers at once: a *models.NotAcquiredError says
// who has it. A lock with a living queue is not free to a newcomer.
func (l *Locker) TryAcquire(ctx context.Context, req Request) (Lock, error) {
	try := l.newAttempt(req)
	lock, err := try.once(ctx, false)
	if err == nil || ctx.Err() == nil { // of a caller that left, nothing is known
		l.countAcquire(lock, err)
	}
	if err != nil && ctx.Err() != nil {
		l.giveUp(ctx, try)
	}
	return lock, err
}

// Acquire waits in the lock's queue, first come, first served across instances,
// until it is granted or ctx ends; then the error matches models.ErrNotAcquired
// and the cause of ctx. A waiter that leaves gives up its place, and the lock if
// the grant was already under way. Waiting costs Redis one command every 80 ms per
// instance and shard, however many wait, one more when a lock waited for can end, and
// one every 3 s per waiter.
func (l *Locker) Acquire(ctx context.Context, req Request) (Lock, error) {
	done := l.metrics.wait()
	lock, err := l.acquire(ctx, l.newAttempt(req))
	done(err)
	return lock, err
}

// acquire counts once, however often it asks.
func (l *Locker) acquire(ctx context.Context, try *attempt) (Lock, error) {
	lock, err := l.await(ctx, try)
	l.countAcquire(lock, err)
	return lock, err
}

func (l *Locker) await(ctx context.Context, try *attempt) (Lock, error) {
	turn := l.waiters.join(try.req.Resource, try.grant)
	defer l.waiters.leave(try.req.Resource, try.grant)
	var refused *models.NotAcquiredError
	for {
		lock, err := try.once(redis.WithBudget(ctx), true)
		switch {
		case err == nil:
			return lock, nil
		case errors.As(err, &refused):
		case ctx.Err() == nil:
			return Lock{}, err
		}
		pause := waiterAsk
		if refused == nil || refused.Status.Degraded {
			pause = waiterPoll
		}
		again := time.NewTimer(pause*3/4 + mathrand.N(pause/2)) // not in step with others
		select {
		case pushed := <-turn:
			if lock, ok := l.begin(try, pushed); ok {
				again.Stop()
				return lock, nil
			}
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			l.giveUp(ctx, try)
			if refused == nil {
				return Lock{}, fmt.Errorf("acquire %s: %w: %w", try.req.Resource, models.ErrNotAcquired, context.Cause(ctx))
			}
			return Lock{}, fmt.Errorf("%w: %w", refused, context.Cause(ctx))
		}
		again.Stop()
	}
}

// attempt is one request under way; its grant id is its name in the queue.
type attempt struct {
	l       *Locker
	req     Request
	grant   string
	since   time.Time
	arrival string            // in the queue, as Redis answered, or by its clock when it could not be asked
	told    models.LockStatus // who has the lock, as Redis answered last ...
	until   time.Time         // ... and how long at least, unless it is given back
	held    time.Duration     // of a claim: since the grant
	block   int               // fences to reserve
	claims  string            // of a grant that this instance knows, not a new one; see localLock.claims
	sent    bool              // Redis may have executed it
	extends bool              // its caller extends the lock at once
}

func (l *Locker) newAttempt(req Request) *attempt {
	req.TTL = min(leaseOf(req.TTL), l.opt.MaxHold)
	if req.Token == "" {
		req.Token = NewToken()
	}
	return &attempt{l: l, req: req, grant: random128(), since: time.Now(), block: 1}
}

// proof is what the scripts compare: the grant's id and the hash of its token.
func (a *attempt) proof() string { return proofOf(a.claim()) }

func (a *attempt) claim() Claim {
	return Claim{Resource: a.req.Resource, Grant: a.grant, Token: a.req.Token}
}

// once asks Redis, or the instance's own table where the policy allows it. An
// attempt whose reply was lost is repeated or given back with the same token.
func (a *attempt) once(ctx context.Context, queue bool) (Lock, error) {
	l := a.l
	sent := time.Now()
	got, err := l.runAcquire(ctx, a, queue, "")
	a.sent = a.sent || !errors.Is(err, redis.ErrNotSent)
	switch {
	case err == nil && got.code == lockRefused:
		a.arrival = got.extra
		l.table.heardEpoch(shardOf(a.req.Resource), got.epoch)
		if queue {
			l.waiters.queued(a.req.Resource, got.epoch)
		}
		status := got.status(a.req.Resource)
		forgotten := !status.Held && got.remaining > 0
		if !forgotten {
			a.told, a.until = status, time.Now().Add(got.remaining)
		} else if known := l.table.status(sent, a.req.Resource); known.Held {
			known.Degraded, known.Waiting = false, status.Waiting // its holder is about to claim it
			return Lock{}, &models.NotAcquiredError{Status: known}
		}
		status.TTL = got.remaining
		return Lock{}, &models.NotAcquiredError{Status: status}
	case err == nil:
		lock := got.lock(a.claim(), sent)
		l.table.learn(lock, got.epoch, lock.Grant == a.grant)
		return lock, nil
	case ctx.Err() != nil:
		return Lock{}, fmt.Errorf("acquire %s: %w", a.req.Resource, err)
	case l.opt.OnRedisDown != models.OnRedisDownOpen:
		l.oweAttempt(a)
		return Lock{}, fmt.Errorf("acquire %s: %w", a.req.Resource, err)
	}
	if queue && a.arrival == "" {
		a.arrival = l.clock.arrival(a.since)
	}
	if queue && l.table.stillTaken(sent, a) {
		a.told.TTL, a.told.Degraded = a.until.Sub(sent), true
		return Lock{}, &models.NotAcquiredError{Status: a.told}
	}
	lock, status := l.table.acquire(sent, a.claim(), a.req.Holder, a.req.TTL, queue)
	if status != nil {
		if !queue {
			l.oweAttempt(a)
		}
		return Lock{}, &models.NotAcquiredError{Status: *status}
	}
	l.events.tellOwn(models.LockAcquired, lock)
	return lock, nil
}

// What lock_release.lua is to give back.
const (
	asRelease = ""        // the grant, wherever it is known
	asAttempt = "attempt" // which may have been granted, although its caller was not told
	asPlace   = "place"   // only that in the queue: the waiter was granted the lock without Redis
)

// giveUp takes back an attempt whose caller has left; it outlives the caller's ctx.
func (l *Locker) giveUp(ctx context.Context, a *attempt) {
	ctx, cancel := context.WithTimeout(redis.WithBudget(context.WithoutCancel(ctx)), cleanUpTime)
	defer cancel()
	got, err := l.run(ctx, l.scripts.release, a.req.Resource, a.proof(), asAttempt)
	if err == nil && got.grant == a.grant { // another attempt with its token keeps it
		return
	}
	l.table.release(a.claim())
	if err != nil {
		l.oweAttempt(a)
		return
	}
	l.passedOn(got)
}

// oweAttempt gives an attempt back when Redis returns, if Redis may have granted
// it and only the reply was lost.
func (l *Locker) oweAttempt(a *attempt) {
	if a.sent {
		l.table.owe(a.claim(), asAttempt)
	}
}
