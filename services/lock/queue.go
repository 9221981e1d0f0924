package lock

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"strings"
	"sync"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
)

const (
	waiterPoll    = 50 * time.Millisecond  // how often a waiter asks the instance's own table
	waiterAsk     = 3 * time.Second        // how often it asks Redis although nothing woke it
	waiterAlive   = 240 * time.Millisecond // waiters of a silent instance are passed over after this, and a round trip
	waiterConfirm = 100 * time.Millisecond // the least a waiter has to take what it was granted
	leastEarly    = 50 * time.Millisecond  // the least of a pushed lease to start under
	waiterTells   = 250 * time.Millisecond // a waiter that waits for longer publishes that it does
)

// waiterSet are the waiters of this instance, by grant. A grant that Redis made to one of
// them reaches it by a message, which is only a hint, or by the next heartbeat.
type waiterSet struct {
	mu      sync.Mutex
	waiting map[string]waiter
}

type waiter struct {
	resource string
	wake     chan *pushedGrant // nil: ask again
}

// pushedGrant is a grant as the message publishes it that wakes its waiter.
type pushedGrant struct {
	grant record
	epoch string
}

func newWaiterSet() *waiterSet { return &waiterSet{waiting: map[string]waiter{}} }

func (w *waiterSet) join(resource, grant string) <-chan *pushedGrant {
	w.mu.Lock()
	defer w.mu.Unlock()
	wake := make(chan *pushedGrant, 1)
	w.waiting[grant] = waiter{resource, wake}
	return wake
}

func (w *waiterSet) leave(grant string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.waiting, grant)
}

// wake lets the waiter of a grant ask again, or start under what was pushed.
func (w *waiterSet) wake(grant string, pushed *pushedGrant) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if waiter, ok := w.waiting[grant]; ok {
		waiter.signal(pushed)
	}
}

func (w waiter) signal(pushed *pushedGrant) {
	select {
	case w.wake <- pushed:
	default: // it is awake already
	}
}

// wakeAll lets all waiters of a shard ask again: what they know is stale.
func (w *waiterSet) wakeAll(shard int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, waiter := range w.waiting {
		if shardOf(waiter.resource) == shard {
			waiter.signal(nil)
		}
	}
}

// awaited are the resources waited for, by shard.
func (w *waiterSet) awaited() (byShard [shardCount][]string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := make(map[string]bool, len(w.waiting))
	for _, waiter := range w.waiting {
		if !seen[waiter.resource] {
			seen[waiter.resource] = true
			shard := shardOf(waiter.resource)
			byShard[shard] = append(byShard[shard], waiter.resource)
		}
	}
	return byShard
}

// granted receives the message about a grant to one of this instance's waiters.
func (w *waiterSet) granted(message string) {
	if len(message) < epochLength {
		return
	}
	if g, ok := readRecord(message[epochLength:]); ok {
		w.wake(g.grant, &pushedGrant{grant: g, epoch: message[:epochLength]})
	}
}

// passedOn wakes the next holder if it waits in this instance; others get a message.
func (l *Locker) passedOn(got reply) {
	if instance, grant, ok := strings.Cut(got.extra, " "); ok && instance == l.instance {
		l.waiters.wake(grant, nil)
	}
}

// Acquire waits in the lock's queue, first come, first served across instances, until it is
// granted or ctx ends; then the error matches models.ErrNotAcquired and the cause of ctx, and
// models.ErrUnavailable if Redis had not answered by then.
// A waiter that leaves gives up its place, and the lock if the grant was already under way.
// Without Redis (open) it waits in the instance's own queue, and for a lease that Redis
// answered about before until that was to end; closed, it returns models.ErrUnavailable.
//
// Waiting costs Redis one command every 80 ms per instance and shard, however many wait, and
// one every 3 s per waiter. When a lock waited for can end, it costs one more. A waiter that waits
// for longer than 250 ms publishes that (models.LockWaiting), and again if it leaves without the
// lock.
func (l *Locker) Acquire(ctx context.Context, req Request) (Lock, error) {
	done := l.metrics.wait()
	lock, err := l.acquire(ctx, l.newAttempt(req))
	done(err)
	return lock, err
}

// acquire counts once, however often it asks.
func (l *Locker) acquire(ctx context.Context, a *attempt) (Lock, error) {
	lock, err := l.await(ctx, a)
	l.countAcquire(lock, err)
	return lock, err
}

func (l *Locker) await(ctx context.Context, a *attempt) (got Lock, err error) {
	wake := l.waiters.join(a.req.Resource, a.grant)
	defer l.waiters.leave(a.grant)
	var refused *models.NotAcquiredError
	var told *time.Timer
	defer func() {
		if told != nil && !told.Stop() && err != nil {
			l.publishWaiting(a.req.Resource)
		}
	}()
	for {
		lock, err := a.once(redis.WithBudget(ctx), true)
		switch {
		case err == nil:
			return lock, nil
		case errors.As(err, &refused):
		case ctx.Err() == nil:
			return Lock{}, err
		}
		if told == nil {
			told = time.AfterFunc(waiterTells, func() { l.publishWaiting(a.req.Resource) })
		}
		pause := waiterAsk
		if refused == nil || refused.Status.Degraded {
			pause = waiterPoll
		}
		again := time.NewTimer(pause*3/4 + mathrand.N(pause/2)) // not in step with others
		select {
		case pushed := <-wake:
			if lock, ok := l.startEarly(a, pushed); ok {
				again.Stop()
				return lock, nil
			}
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			l.giveUp(ctx, a)
			if refused == nil {
				return Lock{}, fmt.Errorf("acquire %s, before Redis answered: %w: %w: %w",
					a.req.Resource, models.ErrUnavailable, models.ErrNotAcquired, context.Cause(ctx))
			}
			return Lock{}, fmt.Errorf("%w: %w", refused, context.Cause(ctx))
		}
		again.Stop()
	}
}

// startEarly returns the lock of a pushed grant to a holder who extends it at once and need
// not wait until the grant is confirmed. The message may have been on its way for any time.
// So the lease is counted from the latest heartbeat, which was before the grant. If that is
// not sure, or long ago, ok is false, and the waiter asks.
func (l *Locker) startEarly(a *attempt, pushed *pushedGrant) (lock Lock, ok bool) {
	if !a.extends || pushed == nil {
		return Lock{}, false
	}
	shard, g := l.shards.get(shardOf(a.req.Resource)), &pushed.grant
	lease := min(waiterAlive, a.req.TTL)
	until := shard.heardAt.Add(lease - drift(lease))
	left := time.Until(until)
	if pushed.epoch != shard.epoch || g.fence <= shard.highestFence || left < leastEarly ||
		subtle.ConstantTimeCompare([]byte(g.tokenHash), []byte(hashToken(a.req.Token))) != 1 {
		return Lock{}, false
	}
	lock = Lock{
		Claim: a.claim(), Holder: g.holder, Fence: &g.fence, TTL: left, ExpiresAt: l.opt.Clock().Add(left).UTC(),
		grantedAt: shard.heardAt, trustedUntil: until, unconfirmed: true,
	}
	l.table.record(lock, pushed.epoch, originLocal)
	return lock, true
}
