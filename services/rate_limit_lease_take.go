package services

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
func (l *RateLimiter) lease(ctx context.Context, key placedKey, a *ask) (v verdict, id int64, err error) {
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

// askForBlock runs the script: it takes units (0: none), if least of them are
// there, and gives back what is owed.
func (l *RateLimiter) askForBlock(ctx context.Context, key placedKey, policy models.Policy, id, units, least int64, owed []block) leaseReply {
	window := policy.Window.Microseconds()
	return l.runLease(ctx, key, id, []int64{policy.Limit, window, leaseLength(window), units, least}, owed)
}

func (l *RateLimiter) runLease(ctx context.Context, key placedKey, id int64, numbers []int64, owed []block) leaseReply {
	args := make([]string, 0, 6+2*len(owed))
	args = append(args, strconv.FormatInt(id, 10))
	for _, n := range numbers {
		args = append(args, strconv.FormatInt(n, 10))
	}
	for _, o := range owed {
		args = append(args, strconv.FormatInt(o.id, 10), strconv.FormatInt(o.used, 10))
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
func (l *RateLimiter) leaseKeys(key placedKey) []string {
	blocks := l.redis.Key("{" + key.tag + "}rate:lease:" + key.name.policy + ":" + key.name.key)
	return []string{blocks, blocks + ":units"}
}
