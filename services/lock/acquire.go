package lock

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
)

// Request asks for a lock.
type Request struct {
	Resource string // any text
	// TTL is the lease, rounded up to milliseconds and at most MaxHold. Zero or
	// less is 30 s.
	TTL    time.Duration
	Holder models.Holder // UserID, Email and Reason are kept, Since is not read
	// Token makes the request safe to repeat: the same token gets the same
	// grant while that lives. It must be unguessable, as crypto/rand.Text is. Empty
	// takes a new one.
	Token string
}

// leaseOf is ttl, or the default where it says nothing.
func leaseOf(ttl time.Duration) time.Duration {
	if ttl <= 0 {
		return DefaultTTL
	}
	return ttl
}

// newToken is a new unguessable token of 128 random bits or more.
func newToken() string { return rand.Text() }

// TryAcquire takes the lock, or returns a *models.NotAcquiredError that says who has it. A
// lock with a living queue is not free to a newcomer. Without Redis (open) the instance
// grants what it does not know to be held, Degraded and without a fence.
func (l *Locker) TryAcquire(ctx context.Context, req Request) (Lock, error) {
	a := l.newAttempt(req)
	lock, err := a.once(ctx, false)
	if err == nil || ctx.Err() == nil { // of a caller that left, nothing is known
		l.countAcquire(lock, err)
	}
	if err != nil && ctx.Err() != nil {
		l.giveUp(ctx, a)
	}
	return lock, err
}

// attempt is one request under way; its grant id is its name in the queue.
type attempt struct {
	l         *Locker
	req       Request
	grant     string
	since     time.Time
	arrival   string            // in the queue, as Redis answered, or by its clock when it could not be asked
	taken     models.LockStatus // how the lock stood, as Redis answered last ...
	heldUntil time.Time         // ... and how long it is held at least, unless it is given back
	block     int               // fences to reserve
	sent      bool              // Redis may have executed it
	extends   bool              // its caller extends the lock at once
	reasserts *entry            // the known grant that it brings back to Redis; nil for a new one
}

func (l *Locker) newAttempt(req Request) *attempt {
	req.TTL = min(leaseOf(req.TTL), l.opt.MaxHold)
	if req.Token == "" {
		req.Token = newToken()
	}
	return &attempt{l: l, req: req, grant: newGrantID(), since: time.Now(), block: 1}
}

func (a *attempt) claim() Claim {
	return Claim{Resource: a.req.Resource, Grant: a.grant, Token: a.req.Token}
}

// once asks Redis, or the instance's own table if OnRedisDown is open. An attempt whose reply
// was lost is repeated or given back with the same token.
func (a *attempt) once(ctx context.Context, queue bool) (Lock, error) {
	l := a.l
	if known, unsynced := l.table.unsyncedLock(time.Now(), a.req.Resource, l.shards.get(shardOf(a.req.Resource)).epoch); unsynced {
		// Its holder comes first, also where claimGrace was too short for all that is reasserted, or
		// where a single call to Redis had failed.
		_, _ = l.reassert(ctx, known)
	}
	sent := time.Now()
	got, err := l.runAcquire(ctx, a, queue)
	a.sent = a.sent || !errors.Is(err, redis.ErrNotSent)
	switch {
	case err == nil && got.code == codeRefused:
		return Lock{}, a.refusedBy(got, sent, queue)
	case err == nil:
		lock := got.lock(a.claim(), sent)
		origin := originRedis
		if lock.Grant == a.grant {
			origin = originLocal
		}
		l.record(lock, got.epoch, origin)
		return lock, nil
	case ctx.Err() != nil:
		return Lock{}, fmt.Errorf("acquire %s: %w", a.req.Resource, err)
	case l.opt.OnRedisDown != models.OnRedisDownOpen:
		l.abandonLater(a)
		return Lock{}, fmt.Errorf("acquire %s: %w", a.req.Resource, err)
	}
	if queue && a.arrival == "" {
		a.arrival = l.clock.arrival(a.since)
	}
	if queue && l.table.stillTaken(sent, a) {
		a.taken.TTL, a.taken.Degraded = a.heldUntil.Sub(sent), true
		return Lock{}, &models.NotAcquiredError{Status: a.taken}
	}
	holder := a.req.Holder
	holder.Since = l.opt.Clock().Add(-time.Since(a.since)).UTC()
	lock, status := l.table.acquire(sent, a.claim(), holder, a.req.TTL, queue)
	if status != nil {
		if !queue {
			l.abandonLater(a)
		}
		return Lock{}, &models.NotAcquiredError{Status: *status}
	}
	l.events.publishOwn(models.LockAcquired, lock)
	return lock, nil
}

// refusedBy is the error of an attempt that Redis refused.
func (a *attempt) refusedBy(got reply, sent time.Time, queue bool) error {
	l, shard := a.l, shardOf(a.req.Resource)
	a.arrival = got.extra
	l.shards.change(shard, func(s *shardState) {
		s.observe(got.epoch)
		if queue {
			s.queuedIn = cmp.Or(s.queuedIn, got.epoch)
		}
	})
	status := got.status(a.req.Resource)
	if forgotten := !status.Held && got.remaining > 0; !forgotten {
		a.taken, a.heldUntil = status, time.Now().Add(got.remaining)
	} else if known := l.table.status(sent, a.req.Resource); known.Held {
		known.Degraded, known.Waiting = false, status.Waiting // its holder is about to reassert it
		return &models.NotAcquiredError{Status: known}
	}
	status.TTL = got.remaining
	return &models.NotAcquiredError{Status: status}
}

// runAcquire sends an attempt.
func (l *Locker) runAcquire(ctx context.Context, a *attempt, queue bool) (reply, error) {
	known := ""
	if l.shards.get(shardOf(a.req.Resource)).epoch != "" {
		known = "known"
		if l.peers.none() && !l.table.holds(time.Now(), a.req.Resource) {
			known = "free"
		}
	}
	args := []string{
		credential(a.claim()) + writeRecord(a.req.Resource, a.req.Holder), milliseconds(a.req.TTL), l.givenUp(ctx),
		strconv.Itoa(a.block), random128(), known,
	}
	switch {
	case a.reasserts != nil:
		held := time.Since(a.reasserts.lock.grantedAt)
		args = append(args, "", "", string(a.reasserts.origin), a.reasserts.epoch, milliseconds(held))
	case queue:
		args = append(args, l.instance, a.arrival)
	}
	keys := l.keys.of(a.req.Resource)
	got, err := l.exec(ctx, l.scripts.acquire, keys, args)
	if err == nil && got.code == codeTooLate { // or the server's clock was put forward: the reply has its time
		args[2] = l.givenUp(ctx)
		got, err = l.exec(ctx, l.scripts.acquire, keys, args)
	}
	switch {
	case err == nil && got.code == codeTooLate:
		return got, fmt.Errorf("acquire %s: too late: %w", a.req.Resource, models.ErrUnavailable)
	case err == nil && got.code == codeDone && got.grant == "": // the shortcut's reply leaves out what is known here
		since := got.holder.Since
		got.grant, got.holder, got.remaining = a.grant, a.req.Holder, a.req.TTL
		got.holder.Since = since
	}
	return got, err
}

// givenUp is when the caller stops to wait for a call that begins now, in the server's time.
// A call sent after that finds this one executed, or never to be executed.
func (l *Locker) givenUp(ctx context.Context) string {
	now, patience := time.Now(), l.redis.Timeout()
	if deadline, ok := ctx.Deadline(); ok {
		patience = min(patience, deadline.Sub(now))
	}
	return l.clock.after(now, patience)
}

// giveUp takes back an attempt whose caller has left; it outlives the caller's ctx.
func (l *Locker) giveUp(ctx context.Context, a *attempt) {
	ctx, cancel := context.WithTimeout(redis.WithBudget(context.WithoutCancel(ctx)), cleanUpTime)
	defer cancel()
	got, err := l.run(ctx, l.scripts.release, a.req.Resource, credential(a.claim()), string(opAbandon))
	if err == nil && got.grant == a.grant { // another attempt with its token keeps it
		return
	}
	l.table.release(a.claim())
	if err != nil {
		l.abandonLater(a)
		return
	}
	l.passedOn(got)
}

// abandonLater gives an attempt back when Redis returns, if Redis may have granted
// it and only the reply was lost.
func (l *Locker) abandonLater(a *attempt) {
	if a.sent {
		l.table.put(op{kind: opAbandon, claim: a.claim()})
	}
}
