package ratelimit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"gatehouse/models"
	"gatehouse/services/redis"
)

// blockReply is what lua/block.lua returns.
type blockReply struct {
	units, remaining, retry, more, at int64
	err                               error
}

// takeUnits decides one request from the block in use, or from a new one. While one request
// calls Redis for a block, the others wait for it, and so it goes on when its client leaves. If it
// fails, it may have had little time left: those who waited have their own.
func (l *Limiter) takeUnits(ctx context.Context, key taggedKey, req *request) (v result, id int64, err error) {
	ctx = redis.EnsureBudget(ctx)
	for {
		if v, id, ok := l.blocks.use(key, req, l.local.now()); ok {
			return v, id, nil
		}
		call, mine, units, returned := l.blocks.join(key, req)
		if mine {
			asked := block{id: rand.Int64N(maxCallID) + 1}
			asked.until = l.local.now() + blockLength(req.rule.window)
			asked.until -= blockLength(req.rule.window)/100 + blockDrift
			got := l.requestBlock(context.WithoutCancel(ctx), key, req.hit.Policy, asked.id, units, req.cost, returned)
			v, err := l.blocks.finish(key, req, call, got, asked, returned)
			return v, asked.id, err
		}
		began := time.Now()
		select {
		case <-call.done:
			redis.Spend(ctx, time.Since(began))
		case <-ctx.Done():
			return result{}, 0, fmt.Errorf("rate limit: %w: %w", models.ErrUnavailable, context.Cause(ctx))
		}
		if call.err == nil && call.refused.retry > 0 && req.cost >= call.cost {
			return call.refused, 0, nil
		}
	}
}

// blockTerms are the numbers of a call for a block.
type blockTerms struct {
	limit, window, length int64
	units, least          int64 // wanted, and that make it worth while
}

// requestBlock takes units (0: none) if at least so many are there, and returns others.
func (l *Limiter) requestBlock(ctx context.Context, key taggedKey, policy models.Policy, id, units, least int64, returned []block) blockReply {
	window := policy.Window.Microseconds()
	call := blockTerms{limit: policy.Limit, window: window, length: blockLength(window), units: units, least: least}
	requests := []request{{hit: models.Hit{Policy: policy}, name: key.name, rule: ruleOf(&policy)}}
	var got blockReply
	err := l.onceWhole(ctx, key.tag, requests, func(ctx context.Context, expected []expectation) ([]taggedKey, error) {
		got = l.sendBlock(ctx, key, id, call, expected[0], returned)
		if got.err != nil || got.units == lostReply {
			return []taggedKey{key}, got.err
		}
		l.outbox.recordBlocks(key, &expected[0], id, got, call, returned)
		return nil, nil
	})
	got.err = err
	return got
}

// sendBlock runs the script once.
func (l *Limiter) sendBlock(
	ctx context.Context, key taggedKey, id int64, call blockTerms, e expectation, returned []block,
) blockReply {
	args := append(formatInts(id, call.limit, call.window, call.length, call.units, call.least), e.member, strconv.FormatInt(e.until, 10))
	for _, o := range returned {
		args = append(args, formatInts(o.id, o.used)...)
	}
	reply, err := l.numbers(ctx, l.scripts.block, l.blockKeys(key), args, 5)
	if err != nil {
		return blockReply{err: fmt.Errorf("rate limit: %w", err)}
	}
	return blockReply{units: reply[0], remaining: reply[1], retry: reply[2], more: reply[3], at: reply[4]}
}
