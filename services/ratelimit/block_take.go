package ratelimit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"

	"gatehouse/models"
)

// blockReply is what lua/block.lua returns.
type blockReply struct {
	units, remaining, retry, more, at int64
	err                               error
}

// takeUnits decides one request from the block in use, or from a new one. While one request
// calls Redis for a block, the others wait for it.
func (l *Limiter) takeUnits(ctx context.Context, key taggedKey, req *request) (v result, id int64, err error) {
	for {
		if v, id, ok := l.blocks.use(key, req, l.local.now()); ok {
			return v, id, nil
		}
		call, mine, units, returned := l.blocks.join(key, req)
		if mine {
			asked := block{id: rand.Int64N(maxCallID) + 1}
			asked.until = l.local.now() + blockLength(req.rule.window)
			asked.until -= blockLength(req.rule.window)/100 + blockDrift
			got := l.requestBlock(ctx, key, req.hit.Policy, asked.id, units, req.cost, returned)
			v, err := l.blocks.finish(key, req, call, got, asked, returned)
			return v, asked.id, err
		}
		select {
		case <-call.done:
		case <-ctx.Done():
			return result{}, 0, fmt.Errorf("rate limit: %w: %w", models.ErrUnavailable, context.Cause(ctx))
		}
		if call.err != nil {
			return result{}, 0, call.err
		}
		if call.refused.retry > 0 && req.cost >= call.cost {
			return call.refused, 0, nil
		}
	}
}

// blockTerms are the numbers of a call for a block.
type blockTerms struct {
	limit, window, length int64
	units, least          int64 // wanted, and that make it worth while
}

// requestBlock takes units (0: none) if at least so many are there, and returns others. If
// Redis lost something of the key, that is put back first.
func (l *Limiter) requestBlock(ctx context.Context, key taggedKey, policy models.Policy, id, units, least int64, returned []block) blockReply {
	l.noticeLostConnections()
	window := policy.Window.Microseconds()
	call := blockTerms{limit: policy.Limit, window: window, length: blockLength(window), units: units, least: least}
	requests := [1]request{{hit: models.Hit{Policy: policy}, name: key.name, rule: ruleOf(&policy)}}
	var expected [1]expectation
	start, within := l.local.now(), ctx
	for range lossAttempts {
		if behind := l.outbox.beginCall(key.tag, requests[:], expected[:]); behind == nil {
			got := l.sendBlock(within, key, id, call, expected[0], returned)
			switch {
			case got.err == nil && got.units != lostReply:
				l.outbox.recordBlocks(key, &expected[0], id, got, call, returned)
				return got
			case got.err != nil:
				l.outbox.endCall(key.tag, requests[:], expected[:])
				return got
			}
			l.outbox.endCall(key.tag, requests[:], expected[:])
			l.flushSoon() // the other keys
		}
		within = l.rest(ctx, start) //nolint:fatcontext // made from the caller's each time
		if err := l.flush(within, key); err != nil {
			return blockReply{err: err}
		}
	}
	return blockReply{err: fmt.Errorf("rate limit: redis keeps losing what it had: %w", models.ErrUnavailable)}
}

// sendBlock runs the script once.
func (l *Limiter) sendBlock(
	ctx context.Context, key taggedKey, id int64, call blockTerms, e expectation, returned []block,
) blockReply {
	args := append(formatInts(id, call.limit, call.window, call.length, call.units, call.least), e.member, strconv.FormatInt(e.until, 10))
	for _, o := range returned {
		args = append(args, formatInts(o.id, o.used)...)
	}
	msg, err := l.redis.Exec(ctx, l.scripts.block, l.blockKeys(key), args)
	if err != nil {
		return blockReply{err: fmt.Errorf("rate limit: %w", err)}
	}
	reply, err := msg.AsIntSlice()
	if err != nil || len(reply) != 5 {
		l.log.Error("Redis returned an unexpected reply to a rate limit script", "numbers", len(reply), "error", err)
		return blockReply{err: fmt.Errorf("rate limit: %w", models.ErrUnavailable)}
	}
	return blockReply{units: reply[0], remaining: reply[1], retry: reply[2], more: reply[3], at: reply[4]}
}
