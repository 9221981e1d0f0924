package ratelimit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"

	"gatehouse/models"
)

// leaseReply is what rate_limit_lease.lua returns.
type leaseReply struct {
	units, remaining, retry, more, at int64
	err                               error
}

// lease decides one hit of a leased policy: from the block at hand, or from a
// new one that it asks Redis for. While one call asks, the others wait for it.
func (l *Limiter) lease(ctx context.Context, key placedKey, a *ask) (v verdict, id int64, err error) {
	for {
		if v, id, ok := l.leases.use(key, a, l.table.now()); ok {
			return v, id, nil
		}
		call, mine, units, owed := l.leases.begin(key, a)
		if mine {
			asked := block{id: rand.Int64N(maxCallID) + 1}
			asked.until = l.table.now() + leaseLength(a.rule.window)
			asked.until -= leaseLength(a.rule.window)/100 + leaseDrift
			got := l.askForBlock(ctx, key, a.hit.Policy, asked.id, units, a.cost, owed)
			v, err := l.leases.end(key, a, call, got, asked, owed)
			return v, asked.id, err
		}
		select {
		case <-call.done:
		case <-ctx.Done():
			return verdict{}, 0, fmt.Errorf("rate limit: %w: %w", models.ErrUnavailable, context.Cause(ctx))
		}
		if call.err != nil {
			return verdict{}, 0, call.err
		}
		if call.refused.retry > 0 && a.cost >= call.cost {
			return call.refused, 0, nil
		}
	}
}

// leaseNumbers are what a call for a block is about.
type leaseNumbers struct {
	limit, window, length int64
	units, least          int64 // wanted, and that make it worth while
}

// askForBlock runs the script: it takes units (0: none), if least of them are
// there, and gives back what is owed. What Redis lost of the key is put back first.
func (l *Limiter) askForBlock(ctx context.Context, key placedKey, policy models.Policy, id, units, least int64, owed []block) leaseReply {
	l.noticeConnections()
	window := policy.Window.Microseconds()
	call := leaseNumbers{limit: policy.Limit, window: window, length: leaseLength(window), units: units, least: least}
	asks := [1]ask{{hit: models.Hit{Policy: policy}, name: key.name, rule: ruleOf(&policy)}}
	var expected [1]expectation
	start, within := l.table.now(), ctx
	for range askAttempts {
		if behind := l.admitted.expect(key.tag, asks[:], expected[:]); behind == nil {
			got := l.sendLease(within, key, id, call, expected[0], owed)
			switch {
			case got.err == nil && got.units != forgotten:
				l.admitted.learnBlocks(key, &expected[0], id, got, call, owed)
				return got
			case got.err != nil:
				l.admitted.asked(key.tag, asks[:], expected[:])
				return got
			}
			l.admitted.asked(key.tag, asks[:], expected[:])
			l.reportSoon() // the other keys
		}
		within = l.rest(ctx, start) //nolint:fatcontext // made from the caller's each time
		if err := l.report(within, key); err != nil {
			return leaseReply{err: err}
		}
	}
	return leaseReply{err: fmt.Errorf("rate limit: redis lost what it was told again and again: %w", models.ErrUnavailable)}
}

// sendLease runs the script once.
func (l *Limiter) sendLease(
	ctx context.Context, key placedKey, id int64, call leaseNumbers, e expectation, owed []block,
) leaseReply {
	args := append(texts(id, call.limit, call.window, call.length, call.units, call.least), e.member, strconv.FormatInt(e.until, 10))
	for _, o := range owed {
		args = append(args, texts(o.id, o.used)...)
	}
	msg, err := l.redis.Exec(ctx, l.scripts.lease, l.leaseKeys(key), args)
	if err != nil {
		return leaseReply{err: fmt.Errorf("rate limit: %w", err)}
	}
	reply, err := msg.AsIntSlice()
	if err != nil || len(reply) != 5 {
		l.log.Error("the rate limit script answered something else", "numbers", len(reply), "error", err)
		return leaseReply{err: fmt.Errorf("rate limit: %w", models.ErrUnavailable)}
	}
	return leaseReply{units: reply[0], remaining: reply[1], retry: reply[2], more: reply[3], at: reply[4]}
}

// leaseKeys are where the blocks of a key are.
func (l *Limiter) leaseKeys(key placedKey) []string {
	blocks := l.redis.Key("{" + key.tag + "}rate:lease:" + key.name.policy + ":" + key.name.key)
	return []string{blocks, blocks + ":units"}
}
