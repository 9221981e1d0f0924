package lock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
)

// Extend makes the time left ttl from now, 30 s if that is zero or less, but ends the
// grant at MaxHold. Only the holder can: else the error is a *models.NotHeldError. Without
// Redis (open) the instance extends a grant unless it knows that it is over. The Lock is
// Degraded then, and Redis gets the new end when it is back.
func (l *Locker) Extend(ctx context.Context, claim Claim, ttl time.Duration) (Lock, error) {
	return l.ExtendFor(ctx, claim, models.Holder{}, ttl)
}

// ExtendFor is Extend for a caller who knows the holder and since when: without
// Redis, an instance that did not make the grant learns of the holder in no other way.
func (l *Locker) ExtendFor(ctx context.Context, claim Claim, holder models.Holder, ttl time.Duration) (Lock, error) {
	ttl = leaseOf(ttl)
	sent := time.Now()
	operation := ""
	if l.table.origin(claim) != originLocal {
		operation = "share"
	}
	got, err := l.runHeld(ctx, "extend", claim, func() (reply, error) {
		return l.run(ctx, l.scripts.extend, claim.Resource, credential(claim), milliseconds(ttl), operation)
	})
	if err == nil {
		lock := got.lock(claim, sent)
		l.record(lock, got.epoch, originRedis)
		return lock, nil
	}
	if !l.mayDegrade(err) {
		return Lock{}, err
	}
	lock, err := l.table.extend(sent, claim, holder, ttl, l.shards.get(shardOf(claim.Resource)).epoch)
	if err == nil {
		l.events.publishOwn(models.LockExtended, lock)
	}
	return lock, err
}

// Check returns nil while the claim holds the lock and a *models.NotHeldError when not.
// Without Redis (open) it refuses only what this instance knows to be over, and degraded
// is true; closed, the error is models.ErrUnavailable. Verify the token's signature first.
func (l *Locker) Check(ctx context.Context, claim Claim) (degraded bool, err error) {
	_, err = l.runHeld(ctx, "check", claim, func() (reply, error) {
		if held, err := l.look(ctx, claim); held || err != nil {
			return reply{code: codeDone}, err
		}
		got, err := l.run(ctx, l.scripts.status, claim.Resource)
		if err == nil && !got.heldBy(claim) {
			got.code = codeRefused
		}
		return got, err
	})
	if err == nil || !l.mayDegrade(err) {
		return false, err
	}
	return true, l.table.check(time.Now(), claim)
}

// Held returns the grant of a claim as it stands, and changes nothing. If the claim holds nothing
// the error is a *models.NotHeldError. Without Redis (open) it answers of a grant that this
// instance knows; of any other the error is models.ErrUnavailable.
func (l *Locker) Held(ctx context.Context, claim Claim) (Lock, error) {
	sent := time.Now()
	got, err := l.run(ctx, l.scripts.status, claim.Resource)
	switch {
	case err == nil && got.heldBy(claim):
		return got.lock(claim, sent), nil
	case err == nil:
		return Lock{}, &models.NotHeldError{Status: got.status(claim.Resource)}
	case l.mayDegrade(err):
		if known, ok := l.table.find(claim); ok {
			lock := known.lock
			lock.TTL, lock.Degraded = lock.trustedUntil.Sub(sent), true
			return lock, nil
		}
		if notHeld := l.table.check(sent, claim); notHeld != nil {
			return Lock{}, notHeld
		}
	}
	return Lock{}, fmt.Errorf("look at the lock of %s: %w", claim.Resource, err)
}

// look reports whether the server has the lock as the claim's. A plain read tells a holder so; only
// who is none needs the script, which says who is.
func (l *Locker) look(ctx context.Context, claim Claim) (held bool, err error) {
	key := l.keys[shardOf(claim.Resource)].lock + claim.Resource
	msg, err := l.redis.DoAt(ctx, key, func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		return c.Do(ctx, c.B().Get().Key(key).Build())
	})
	if rueidis.IsRedisNil(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	text, err := msg.ToString()
	return err == nil && grantsTo(text, claim), nil
}

// Release gives the lock back and grants it to the next waiter in the same step. A claim
// that does not hold the lock is a *models.NotHeldError. Without Redis the instance keeps
// the release until Redis is back: open, that is degraded and no error; closed, the
// error is models.ErrUnavailable, as the instance may not live so long.
func (l *Locker) Release(ctx context.Context, claim Claim) (degraded bool, err error) {
	known, own := l.table.find(claim)
	unknown := false // to Redis, which then keeps it away by the tombstone
	got, err := l.runHeld(ctx, "release", claim, func() (reply, error) {
		args, as := []string{credential(claim)}, opShared
		if known, own = l.table.find(claim); own {
			as = known.releasesAs()
		}
		if as != "" {
			args = append(args, string(as))
		}
		got, err := l.run(ctx, l.scripts.release, claim.Resource, args...)
		unknown = err == nil && got.code == codeRefused && as == opTombstone && got.unknown(known.lock, known.epoch)
		if unknown {
			got.code = codeDone
		}
		return got, err
	})
	if err == nil {
		l.table.release(claim)
		l.passedOn(got)
		if unknown {
			l.events.publishOwn(models.LockReleased, known.lock)
		}
		return false, nil
	}
	if !errors.Is(err, models.ErrUnavailable) {
		return false, err
	}
	// A claim that the table refuses releases nothing, now or later.
	if notHeld := l.table.check(time.Now(), claim); notHeld != nil {
		if l.mayDegrade(err) {
			return true, notHeld
		}
		return false, err
	}
	l.table.put(op{kind: opTombstone, claim: claim})
	l.table.release(claim) // closed, too: else it would be reasserted when Redis returns
	if !l.mayDegrade(err) {
		return false, err
	}
	if own {
		l.events.publishOwn(models.LockReleased, known.lock)
	}
	return true, nil
}

// runHeld runs what only a holder may do. A grant that this instance made or adopted,
// and that Redis does not know because it was away or has forgotten, is reasserted there
// first.
func (l *Locker) runHeld(ctx context.Context, operation string, claim Claim, run func() (reply, error)) (reply, error) {
	epoch := l.table.epochOf(claim)
	var got reply
	_, err := l.tellEnd(ctx, claim.Grant)
	if err == nil {
		got, err = run()
	}
	if err == nil && got.code == codeRefused {
		var stands bool
		if stands, err = l.reassertClaim(ctx, claim, epoch, got); stands {
			got, err = run()
		}
	}
	switch {
	case err != nil && l.opt.OnRedisDown == models.OnRedisDownOpen:
		l.count(operation, "degraded")
	case err != nil:
		l.count(operation, "unavailable")
	case got.code == codeRefused:
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
