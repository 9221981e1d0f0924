package ratelimit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"

	"gatehouse/models"
	"gatehouse/services/redis"
)

// Refund takes back exactly what the decisions counted, once; those that counted
// nothing are skipped. Without Redis an admission made there stays until it
// leaves its window, and the error is models.ErrUnavailable: a refund that cannot
// have reached Redis may be tried again, of any other it is not known whether it
// did, and a second one of a GCRA or leased admission takes nothing. Of a GCRA
// admission it takes back what has not leaked out since.
func (l *Limiter) Refund(ctx context.Context, decisions ...models.Decision) error {
	var errs []error
	for _, d := range decisions {
		if d.Admission == (models.Admission{}) {
			continue
		}
		a := newAsk(&models.Hit{Policy: d.Policy, Cost: d.Admission.Cost})
		a.name.key = d.Admission.Key
		if err := l.refund(ctx, &a, d.Admission); err != nil {
			errs = append(errs, fmt.Errorf("refund %s: %w", d.Policy.Name, err))
		}
	}
	return errors.Join(errs...)
}

// refund takes an admission back, here and at Redis. A log knows it by its id; of
// the others a second refund would give away what others have used.
func (l *Limiter) refund(ctx context.Context, a *ask, e models.Admission) error {
	if e.Refunded != nil && !e.Refunded.CompareAndSwap(false, true) {
		return nil
	}
	err := l.takeBack(ctx, a, e)
	switch {
	case !errors.Is(err, redis.ErrNotSent):
		l.table.refund(*a, e.ID, e.LocalAt)
	case e.Refunded != nil:
		e.Refunded.Store(false)
	}
	return err
}

func (l *Limiter) takeBack(ctx context.Context, a *ask, e models.Admission) (err error) {
	key := placedKey{e.Tag, a.name}
	switch {
	case e.At == leasedAdmission:
		if l.leases.unuse(key, e.ID, e.Cost) {
			return nil
		}
		return l.askForBlock(ctx, key, a.hit.Policy, 0, 0, 0, []block{{id: e.ID, used: -e.Cost}}).err
	case a.rule.burst > 0 && e.At > 0:
		return l.takeBackOfBucket(ctx, key, a, e)
	}
	removed := l.admitted.remove(key, a, e.ID, e.LocalAt)
	// An admission made here may be at Redis too, when only the reply got lost or
	// it was reported since: a log knows it by its id, a bucket cannot tell.
	if a.rule.burst > 0 || a.leased() || e.At == 0 && !l.redis.AvailableFor(e.Tag) {
		return nil
	}
	_, err = l.redis.Exec(ctx, l.scripts.refund, []string{l.redisKey(e.Tag, a)}, refundArgs(e.ID, e.Cost, e.At, a.rule, expectation{}))
	if errors.Is(err, redis.ErrNotSent) && e.At > 0 {
		l.admitted.restore(key, a, removed)
	}
	if e.At == 0 {
		return nil
	}
	return err
}

// takeBackOfBucket takes a GCRA admission back. What Redis lost of the bucket is put
// back first: the admission may be in it.
func (l *Limiter) takeBackOfBucket(ctx context.Context, key placedKey, a *ask, e models.Admission) error {
	ctx = redis.EnsureBudget(ctx)
	asks := []ask{*a}
	expected := make([]expectation, 1)
	for range askAttempts {
		if behind := l.admitted.expect(e.Tag, asks, expected); behind == nil {
			msg, err := l.redis.Exec(ctx, l.scripts.refund, []string{l.redisKey(e.Tag, a)}, refundArgs(e.ID, e.Cost, e.At, a.rule, expected[0]))
			reply, wrong := msg.AsIntSlice()
			switch {
			case err == nil && wrong == nil && len(reply) == 4 && reply[0] != forgotten:
				l.admitted.learnRefund(key, &expected[0], reply[3], reply[1], reply[2])
				return nil
			case err == nil && wrong == nil && len(reply) == 4:
				l.admitted.asked(e.Tag, asks, expected)
			default:
				l.admitted.asked(e.Tag, asks, expected)
				return cmp.Or(err, wrong, models.ErrUnavailable)
			}
		}
		if err := l.report(ctx, key); err != nil {
			return fmt.Errorf("%w: %w", redis.ErrNotSent, err)
		}
	}
	return redis.ErrNotSent
}

// Reset gives the keys of the hits, asked in this group, their whole quota back.
// Blocks of a leased policy that other instances have at hand are still used.
// Without Redis only this instance forgets, and the error is models.ErrUnavailable.
func (l *Limiter) Reset(ctx context.Context, group string, hits ...models.Hit) error {
	asks, err := l.prepare(hits, nil)
	if err != nil || len(asks) == 0 {
		return err
	}
	tag := tagOf(group, asks)
	var keys, markers, windows []string
	for i := range asks {
		a := &asks[i]
		key := placedKey{tag, a.name}
		if a.leased() {
			keys = append(keys, l.leaseKeys(key)...)
		} else {
			keys = append(keys, l.redisKey(tag, a))
		}
		markers = append(markers, l.resetKey(key))
		windows = append(windows, strconv.FormatInt(a.rule.window, 10))
	}
	at := int64(0)
	msg, err := l.redis.Exec(ctx, l.scripts.reset, append(keys, markers...), windows)
	if err == nil {
		at, err = msg.AsInt64()
	}
	for i := range asks {
		a := &asks[i]
		key := placedKey{tag, a.name}
		l.leases.reset(key)
		l.admitted.reset(key, a, at)
		l.table.reset(*a)
	}
	if err != nil {
		return fmt.Errorf("reset rate limits: %w", err)
	}
	return nil
}
