package ratelimit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	"gatehouse/models"
	"gatehouse/services/redis"
)

// allUseBlocks reports whether blocks in use may be enough for all requests.
func allUseBlocks(requests []request) bool {
	return !slices.ContainsFunc(requests, func(req request) bool { return !req.usesBlocks() })
}

func someUseBlocks(requests []request) bool {
	return slices.ContainsFunc(requests, func(req request) bool { return req.usesBlocks() })
}

// takeFromRedis takes units out of blocks where policies use them, and decides about the other
// requests in one script. If a request is refused, it returns the units to their blocks.
func (l *Limiter) takeFromRedis(ctx context.Context, group string, requests []request, id int64) (_ []models.Decision, err error) {
	var resultBuffer [4]result
	var blockBuffer [4]int64
	results, blocks := append(resultBuffer[:0], make([]result, len(requests))...), append(blockBuffer[:0], make([]int64, len(requests))...)
	tag, counted := tagOf(group, requests), true
	defer func() {
		for i := range requests {
			if (!counted || err != nil) && blocks[i] != 0 {
				l.blocks.putBack(taggedKey{tag, requests[i].name}, blocks[i], requests[i].cost)
			}
		}
	}()
	if len(requests) > 1 && someUseBlocks(requests) { // up to a call for each
		ctx = redis.EnsureBudget(ctx)
	}
	for i := range requests {
		switch req := &requests[i]; {
		case !req.usesBlocks():
		case req.cost == 0:
			results[i] = l.local.lastKnown(*req)
		default:
			sent, generation := l.local.sending()
			if results[i], blocks[i], err = l.takeUnits(ctx, taggedKey{tag, req.name}, req); err != nil {
				return nil, err
			}
			if !results[i].passes {
				blocks[i] = 0
				l.local.observe(requests[i:i+1], results[i:i+1], false, 0, sent, generation)
			}
			counted = counted && !req.refuses(results[i])
		}
	}
	if !counted {
		id = 0 // the others only look
	}
	passed, now, err := l.decideOthers(ctx, tag, requests, results, id)
	if err != nil {
		return nil, err
	}
	counted = counted && passed
	decisions := make([]models.Decision, len(requests))
	for i := range requests {
		req, v := &requests[i], results[i]
		decisions[i] = req.decision(v)
		req.count(v, counted, false)
		switch {
		case !counted || !v.passes || req.cost == 0:
		case req.usesBlocks():
			l.local.countFromBlock(req, blocks[i], now)
			decisions[i].Admission = req.admission(blocks[i], blockAdmission, v.at, tag) // when its block covered it
		case v.fromBlock:
			decisions[i].Admission = req.admission(v.unit, v.at, now, tag)
		default:
			decisions[i].Admission = req.admission(id, v.at, now, tag)
		}
	}
	return decisions, nil
}

// decideOthers asks Redis about the requests that use no blocks and puts the answers among
// the results. With id 0 it only looks. It returns whether all pass, and the local clock.
func (l *Limiter) decideOthers(ctx context.Context, tag string, requests []request, results []result, id int64) (passed bool, now int64, err error) {
	others := requests
	if someUseBlocks(requests) {
		others = slices.DeleteFunc(slices.Clone(requests), func(req request) bool { return req.usesBlocks() })
	}
	if len(others) == 0 {
		return true, l.local.now(), nil
	}
	replies, passed, now, err := l.decideAlike(ctx, tag, others, id)
	if err != nil {
		return false, 0, err
	}
	for i := range requests {
		if !requests[i].usesBlocks() {
			results[i], replies = replies[0], replies[1:]
		}
	}
	return passed, now, nil
}

// decideAlike decides about requests that are counted hit by hit: out of their keys' blocks if all
// have one, else by one script.
func (l *Limiter) decideAlike(ctx context.Context, tag string, requests []request, id int64) (results []result, passed bool, now int64, err error) {
	var fetch *autoCall
	if id != 0 && allSizeBlocks(requests) {
		results, now, under, begun := l.outbox.takeAhead(tag, requests, false)
		if under != nil {
			under.wait(ctx)
			ctx = l.rest(ctx, now)
			results, now, _, begun = l.outbox.takeAhead(tag, requests, true)
		}
		if results != nil {
			for i := range requests {
				l.local.countFromBlock(&requests[i], results[i].unit, now)
			}
			return results, true, now, nil
		}
		fetch = begun
	}
	sent, generation := l.local.sending()
	if fetch != nil {
		ctx = context.WithoutCancel(ctx) // others wait for it, too
	}
	results, err = l.runFetching(ctx, tag, requests, id, fetch)
	if fetch != nil {
		l.outbox.endFetch(tag, requests, fetch, err)
	}
	if err != nil {
		return nil, false, 0, err
	}
	passed = allPass(requests, results)
	now = l.local.observe(requests, results, passed && id != 0, id, sent, generation)
	return results, passed, now, nil
}

func (l *Limiter) takeLocally(group string, requests []request, id, now int64) ([]models.Decision, error) {
	if err := refusedClosed(requests); err != nil {
		l.local.forgetDenials(requests)
		countUnavailable(requests)
		return nil, err
	}
	var buffer [4]result
	results, counted := l.local.decideAt(now, requests, id, buffer[:0])
	tag := tagOf(group, requests)
	decisions := make([]models.Decision, len(requests))
	for i := range requests {
		req, v := &requests[i], results[i]
		decisions[i] = req.decision(v)
		decisions[i].Degraded = true
		if counted && v.passes && req.cost > 0 && req.local() {
			if !l.redis.Disabled() { // else nothing will be published
				l.outbox.addLocal(taggedKey{tag, req.name}, req, id, v.at)
			}
			if req.usesBlocks() {
				l.blocks.giveUp(taggedKey{tag, req.name})
			}
			decisions[i].Admission = req.admission(id, 0, v.at, tag)
		}
		req.count(v, counted, true)
	}
	return decisions, nil
}

// look asks Redis how things stand, and counts nothing.
func (l *Limiter) look(ctx context.Context, tag string, requests []request) ([]result, error) {
	results := make([]result, len(requests))
	ctx = redis.EnsureBudget(ctx)
	for i := range requests {
		req := &requests[i]
		if !req.usesBlocks() {
			continue
		}
		key := taggedKey{tag, req.name}
		sent, generation := l.local.sending()
		here := l.blocks.unitsLeft(key)
		got := l.requestBlock(ctx, key, req.hit.Policy, rand.Int64N(maxCallID)+1, 0, max(0, req.cost-here), nil)
		if got.err != nil {
			return nil, got.err
		}
		remaining := got.remaining + here
		results[i] = result{passes: req.cost == 0 || req.cost <= remaining, remaining: remaining, more: got.more, at: got.at}
		if !results[i].passes {
			results[i].retry = max(1, got.retry)
			l.local.observe(requests[i:i+1], results[i:i+1], false, 0, sent, generation)
		}
	}
	if allSizeBlocks(requests) {
		if standing := l.outbox.standing(tag, requests); standing != nil {
			return standing, nil
		}
	}
	_, _, err := l.decideOthers(ctx, tag, requests, results, 0)
	return results, err
}

// refusedClosed is an error if a request's policy is closed without Redis.
func refusedClosed(requests []request) error {
	for i := range requests {
		p := &requests[i].hit.Policy
		if p.OnRedisDown == models.OnRedisDownClosed && !p.Shadow && requests[i].cost > 0 {
			return fmt.Errorf("rate limit %s: closed without redis: %w", p.Name, models.ErrUnavailable)
		}
	}
	return nil
}

// allPass reports whether no request is refused.
func allPass(requests []request, results []result) bool {
	for i := range requests {
		if requests[i].refuses(results[i]) {
			return false
		}
	}
	return true
}
