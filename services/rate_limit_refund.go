package services

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/rueidis"

	"gatehouse/models"
)

// Refund takes back exactly what the decisions counted, once; those that counted
// nothing are skipped. Without Redis an admission made there stays until it
// leaves its window, and the error is models.ErrUnavailable: a refund that cannot
// have reached Redis may be tried again, of any other it is not known whether it
// did, and a second one of a GCRA or leased admission takes nothing. Of a GCRA
// admission it takes back what has not leaked out since.
func (l *RateLimiter) Refund(ctx context.Context, decisions ...models.Decision) error {
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
func (l *RateLimiter) refund(ctx context.Context, a *ask, e models.Admission) error {
	if e.Refunded != nil && !e.Refunded.CompareAndSwap(false, true) {
		return nil
	}
	err := l.takeBack(ctx, a, e)
	switch {
	case !errors.Is(err, errNotSent):
		l.table.refund(*a, e.ID, e.LocalAt)
	case e.Refunded != nil:
		e.Refunded.Store(false)
	}
	return err
}

func (l *RateLimiter) takeBack(ctx context.Context, a *ask, e models.Admission) (err error) {
	key := placedKey{e.Tag, a.name}
	switch {
	case e.At == leasedAdmission:
		if l.leases.unuse(key, e.ID, e.Cost) {
			return nil
		}
		return l.askForBlock(ctx, key, a.hit.Policy, 0, 0, 0, []block{{id: e.ID, used: -e.Cost}}).err
	case e.At > 0:
		_, err = l.redis.Exec(ctx, l.scripts.refund, []string{l.redisKey(e.Tag, a)}, refundArgs(e, a.rule))
		return err
	}
	l.owed.remove(e.Tag, a, e.ID, e.LocalAt, l.table.now())
	// An admission made here may be at Redis too, when only the reply got lost or
	// it was accounted since: a log knows it by its id, a bucket cannot tell.
	if a.rule.burst == 0 && !a.leased() && l.redis.Available() {
		_, _ = l.redis.Exec(ctx, l.scripts.refund, []string{l.redisKey(e.Tag, a)}, refundArgs(e, a.rule))
	}
	return nil
}

// Reset gives the keys of the hits, asked in this group, their whole quota back.
// Blocks of a leased policy that other instances have at hand are still used.
// Without Redis only this instance forgets, and the error is models.ErrUnavailable.
func (l *RateLimiter) Reset(ctx context.Context, group string, hits ...models.Hit) error {
	asks, err := l.prepare(hits, nil)
	if err != nil || len(asks) == 0 {
		return err
	}
	tag := tagOf(group, asks)
	var keys []string
	for i := range asks {
		a := &asks[i]
		if a.leased() {
			keys = append(keys, l.leaseKeys(placedKey{tag, a.name})...)
			continue
		}
		keys = append(keys, l.redisKey(tag, a))
	}
	_, err = l.redis.Do(ctx, func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		return c.Do(ctx, c.B().Del().Key(keys...).Build())
	})
	for _, a := range asks {
		key := placedKey{tag, a.name}
		l.leases.drop(key)
		l.owed.forget(key)
		l.table.reset(a)
	}
	if err != nil {
		return fmt.Errorf("reset rate limits: %w", err)
	}
	return nil
}
