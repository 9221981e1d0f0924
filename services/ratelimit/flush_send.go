package ratelimit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/redis/rueidis"
	"golang.org/x/sync/errgroup"

	"gatehouse/models"
	"gatehouse/services/redis"
)

const (
	// flushPause is how long calls wait for a Redis that returns, while this instance publishes
	// what it admitted meanwhile and what Redis may have lost. The rest follows, each key at the
	// latest before Redis decides about it again.
	flushPause = 300 * time.Millisecond
	flushTime  = 10 * time.Second
	flushCalls = 64                     // at once
	awayPause  = 250 * time.Millisecond // before the next flush while a node is away
)

// recovered publishes, before Redis is used again, what was admitted without it and what it
// may have lost.
func (l *Limiter) recovered(ctx context.Context) {
	l.outbox.suspectLoss()
	ctx, cancel := context.WithTimeout(ctx, flushPause)
	defer cancel()
	l.flushAll(ctx)
}

// flushSoon flushes the keys that are behind in the background. After a single call that
// failed Redis does not count as away, so recovered is not called.
func (l *Limiter) flushSoon() {
	if !l.outbox.pending.Load() || !l.outbox.running.CompareAndSwap(false, true) {
		return
	}
	started := l.goBackground(func() {
		defer l.outbox.running.Store(false)
		ctx, cancel := context.WithTimeout(context.Background(), flushTime)
		defer cancel()
		l.flushAll(ctx)
		if l.outbox.pending.Load() { // its node is away: do not try at every call
			<-time.After(awayPause)
		}
	})
	if !started {
		l.outbox.running.Store(false)
	}
}

// flushAll flushes the keys that are behind, some at a time. It stops at the first error, and
// skips the keys of a node that is away. Keys that are not flushed stay behind.
func (l *Limiter) flushAll(ctx context.Context) {
	group, until := errgroup.WithContext(ctx)
	group.SetLimit(flushCalls)
	away := false
	for _, key := range l.outbox.behindKeys() {
		if !l.redis.Reaches(ctx, key.tag) {
			away = true
			continue
		}
		group.Go(func() error { return l.flush(until, key) })
	}
	if group.Wait() != nil || away {
		l.outbox.pending.Store(true)
	}
}

// suspectLoss says that Redis may have lost what it had.
func (b *outbox) suspectLoss() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.losses++; len(b.keys) > 0 {
		b.pending.Store(true)
	}
}

// behindKeys returns the keys that are behind, and drops those of which nothing is left.
func (b *outbox) behindKeys() (behind []taggedKey) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pending.Store(false)
	now := b.now()
	for key, s := range b.keys {
		switch {
		case s.underway == 0 && !s.flushing && now-s.used > s.lasts():
			b.drop(key)
		case s.isBehind(b):
			behind = append(behind, key)
		}
	}
	return behind
}

// flush publishes what this instance admitted of a key, once the calls about it that are under
// way have ended. One flush of a key at a time is made, in a time of its own, and all callers wait
// for it, each for what is left of its budget.
func (l *Limiter) flush(ctx context.Context, key taggedKey) error {
	if err := l.awaitFlush(ctx, key); err != nil {
		return fmt.Errorf("flush %s: %w", key.name.policy, err)
	}
	return nil
}

func (l *Limiter) awaitFlush(ctx context.Context, key taggedKey) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	began := time.Now()
	defer func() { redis.Spend(ctx, time.Since(began)) }()
	var late <-chan time.Time
	if left, limited := l.redis.Left(ctx); limited {
		patience := time.NewTimer(left)
		defer patience.Stop()
		late = patience.C
	}
	flushed := l.flushes.DoChan(key.tag+" "+key.name.policy+" "+key.name.key, func() (any, error) {
		return nil, l.flushNow(redis.WithBudget(context.WithoutCancel(ctx)), key)
	})
	select {
	case got := <-flushed:
		return got.Err
	case <-late:
		return fmt.Errorf("it takes too long: %w", models.ErrUnavailable)
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", models.ErrUnavailable, context.Cause(ctx))
	}
}

func (l *Limiter) flushNow(ctx context.Context, key taggedKey) (err error) {
	idle, some := l.outbox.holdCalls(key)
	if !some {
		return nil
	}
	began, patience := time.Now(), time.NewTimer(l.redis.Timeout())
	defer patience.Stop()
	select {
	case <-idle:
		redis.Spend(ctx, time.Since(began))
	case <-patience.C:
		err = fmt.Errorf("calls under way do not end: %w", models.ErrUnavailable)
	}
	r := l.outbox.beginFlush(key)
	if r == nil {
		return err
	}
	var got flushReply
	if err == nil {
		got, err = l.send(ctx, r)
	}
	for _, e := range l.outbox.endFlush(r, got, err) {
		req := r.request()
		_, _ = l.redis.Exec(ctx, l.scripts.refund, l.refundKeys(key.tag, &req), refundArgs(e.id, 1, e.cost, 0, req.rule, expectation{}))
	}
	return err
}

// request is a request of the flush's policy.
func (r *flush) request() request {
	return request{hit: models.Hit{Policy: r.policy}, name: r.key.name, rule: r.rule}
}

func (l *Limiter) send(ctx context.Context, r *flush) (flushReply, error) {
	if r.policy.Block > 0 {
		return l.sendBlocks(ctx, r)
	}
	if r.log.used == 0 && r.bucket.level == 0 && r.seen.level == 0 && r.resetAt == 0 {
		return flushReply{nonce: r.seen.nonce, now: r.seen.at}, nil // nothing is left of it
	}
	args := formatInts(r.rule.burst, r.rule.limit, r.rule.window, r.resetAt)
	if r.rule.burst > 0 {
		nonce := ""
		if r.seen.nonce > 0 {
			nonce = strconv.FormatInt(r.seen.nonce, 10)
		}
		args = append(append(args, nonce), formatInts(r.seen.level, r.seen.at, r.seen.wrote, r.bucket.level, rand.Int64N(maxCallID)+1)...)
	}
	for _, e := range r.log.entries {
		args = append(args, formatInts(e.serverAt, r.now-e.at, e.id, e.cost)...)
	}
	req := r.request()
	return l.publish(ctx, l.scripts.flush, []string{l.redisKey(r.key.tag, &req), l.resetKey(r.key)}, args)
}

// sendBlocks publishes the blocks taken and, as one more block that has ended, what was
// admitted without any. That one leaves a window from now, and is taken whatever the limit is.
func (l *Limiter) sendBlocks(ctx context.Context, r *flush) (got flushReply, err error) {
	if len(r.blocks) > 0 || r.resetAt > 0 {
		args := formatInts(r.rule.window, r.resetAt)
		for _, c := range r.blocks {
			args = append(args, formatInts(c.id, c.units, c.taken, c.leaves)...)
		}
		if got, err = l.publish(ctx, l.scripts.flushBlocks, append(l.blockKeys(r.key), l.resetKey(r.key)), args); err != nil {
			return got, err
		}
	}
	if r.log.used == 0 {
		return got, nil
	}
	call := blockTerms{limit: 1 << 50, window: r.rule.window, units: r.log.used}
	over := l.sendBlock(ctx, r.key, r.block, call, expectation{}, nil)
	if over.err == nil {
		got.over = countedBlock{id: r.block, units: over.units, taken: over.at, leaves: over.at + call.window, gone: r.now + call.window}
	}
	return got, over.err
}

// publish runs a script of a flush.
func (l *Limiter) publish(ctx context.Context, script *rueidis.Lua, keys, args []string) (got flushReply, err error) {
	reply, err := l.numbers(ctx, script, keys, args, 3)
	if err != nil {
		return flushReply{}, err
	}
	got = flushReply{lost: reply[0], now: reply[1], resetAt: reply[2]}
	if len(reply) >= 5 {
		got.nonce, got.level, got.times = reply[3], reply[4], reply[5:]
	}
	return got, nil
}
