package ratelimit

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"gatehouse/models"
	"gatehouse/services/redis"
)

// Refund takes back exactly what the decisions counted, and each at most once; decisions that
// counted nothing are skipped. Of a GCRA admission it takes back what has not leaked out since, and
// nothing while an instance uses a block of a policy whose blocks size themselves.
//
// Without Redis an admission made through Redis stays until it leaves its window, and the error
// is models.ErrUnavailable. If it is also redis.ErrNotSent, the refund cannot have reached Redis
// and may be tried again. After any other error Redis may have executed it; a second refund of a
// GCRA admission or of one from a block then takes nothing.
func (l *Limiter) Refund(ctx context.Context, decisions ...models.Decision) error {
	var errs []error
	for _, d := range decisions {
		if d.Admission == (models.Admission{}) {
			continue
		}
		req := newRequest(&models.Hit{Policy: d.Policy, Cost: d.Admission.Cost})
		req.name.key = d.Admission.Key
		if err := l.refund(ctx, &req, d.Admission); err != nil {
			errs = append(errs, fmt.Errorf("refund %s: %w", d.Policy.Name, err))
		}
	}
	return errors.Join(errs...)
}

// refund takes an admission back, here and at Redis. A log knows it by its id. For the others a
// second refund would give away what others have used.
func (l *Limiter) refund(ctx context.Context, req *request, e models.Admission) error {
	if e.Refunded != nil && !e.Refunded.CompareAndSwap(false, true) {
		return nil
	}
	err := l.undo(ctx, req, e)
	switch {
	case !errors.Is(err, redis.ErrNotSent):
		l.local.refund(*req, e.ID, e.LocalAt)
	case e.Refunded != nil:
		e.Refunded.Store(false)
	}
	return err
}

func (l *Limiter) undo(ctx context.Context, req *request, e models.Admission) (err error) {
	key := taggedKey{e.Tag, req.name}
	switch {
	case e.At == blockAdmission:
		if l.blocks.putBack(key, e.ID, e.Cost) {
			return nil
		}
		return l.requestBlock(ctx, key, req.hit.Policy, 0, 0, 0, []block{{id: e.ID, used: -e.Cost}}).err
	case req.rule.burst > 0 && e.At > 0:
		return l.refundBucket(ctx, key, req, e)
	}
	removed := l.outbox.remove(key, req, e.ID, e.LocalAt)
	// Redis may have an admission made here, too, if only the reply got lost or it was flushed
	// since. A log knows it by its id, a bucket does not.
	if req.rule.burst > 0 || req.usesBlocks() || e.At == 0 && !l.redis.AvailableFor(e.Tag) {
		return nil
	}
	_, err = l.redis.Exec(ctx, l.scripts.refund, l.refundKeys(e.Tag, req), refundArgs(e.ID, 1, e.Cost, e.At, req.rule, expectation{}))
	if errors.Is(err, redis.ErrNotSent) && e.At > 0 {
		l.outbox.restore(key, req, removed)
	}
	if e.At == 0 {
		return nil
	}
	return err
}

// refundKeys are the keys of the script that takes admissions back.
func (l *Limiter) refundKeys(tag string, req *request) []string {
	return []string{l.redisKey(tag, req), l.inUseKey(taggedKey{tag, req.name})}
}

// refundBucket takes a GCRA admission back. If Redis lost the bucket, that is put back first:
// the admission may be in it.
func (l *Limiter) refundBucket(ctx context.Context, key taggedKey, req *request, e models.Admission) error {
	var failed error
	err := l.onceWhole(redis.EnsureBudget(ctx), e.Tag, []request{*req}, func(ctx context.Context, expected []expectation) ([]taggedKey, error) {
		var reply []int64
		reply, failed = l.numbers(ctx, l.scripts.refund, l.refundKeys(e.Tag, req), refundArgs(e.ID, 1, e.Cost, e.At, req.rule, expected[0]), 4)
		if failed != nil || reply[0] == lostReply {
			return []taggedKey{key}, failed
		}
		l.outbox.recordRefund(key, &expected[0], reply[3], reply[1], reply[2])
		return nil, nil
	})
	if err != nil && failed == nil {
		return fmt.Errorf("%w: %w", redis.ErrNotSent, err)
	}
	return err
}

// Reset gives the keys of the hits, asked in this group, their whole quota back. Blocks that
// other instances hold are still used until they end. Other instances show the reset within a
// second. Without Redis only this instance forgets, and the error is models.ErrUnavailable. The
// other errors are those of Take.
func (l *Limiter) Reset(ctx context.Context, group string, hits ...models.Hit) error {
	requests, err := l.prepare(hits, nil)
	if err != nil || len(requests) == 0 {
		return err
	}
	tag := tagOf(group, requests)
	var keys, markers, windows []string
	for i := range requests {
		req := &requests[i]
		key := taggedKey{tag, req.name}
		if req.usesBlocks() {
			keys = append(keys, l.blockKeys(key)...)
		} else {
			keys = append(keys, l.redisKey(tag, req))
		}
		markers = append(markers, l.resetKey(key))
		windows = append(windows, strconv.FormatInt(req.rule.window, 10))
	}
	at := int64(0)
	msg, err := l.redis.Exec(ctx, l.scripts.reset, append(keys, markers...), windows)
	if err == nil {
		at, err = msg.AsInt64()
	}
	for i := range requests {
		req := &requests[i]
		key := taggedKey{tag, req.name}
		l.blocks.reset(key)
		l.outbox.reset(key, req, at)
		l.local.reset(*req)
	}
	if err != nil {
		return fmt.Errorf("reset rate limits: %w", err)
	}
	return nil
}
