package ratelimit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	"gatehouse/models"
	"gatehouse/services/redis"
)

// allLeased reports whether blocks at hand may be enough.
func allLeased(asks []ask) bool {
	return !slices.ContainsFunc(asks, func(a ask) bool { return !a.leased() })
}

func someLeased(asks []ask) bool {
	return slices.ContainsFunc(asks, func(a ask) bool { return a.leased() })
}

// takeFromRedis takes the hits of leased policies out of their blocks, decides about the
// others by one script, and puts the former back if one is refused.
func (l *Limiter) takeFromRedis(ctx context.Context, group string, asks []ask, id int64) (_ []models.Decision, err error) {
	var roomForVerdicts [4]verdict
	var roomForBlocks [4]int64
	verdicts, blocks := append(roomForVerdicts[:0], make([]verdict, len(asks))...), append(roomForBlocks[:0], make([]int64, len(asks))...)
	tag, counted := tagOf(group, asks), true
	defer func() {
		for i := range asks {
			if (!counted || err != nil) && blocks[i] != 0 {
				l.leases.unuse(placedKey{tag, asks[i].name}, blocks[i], asks[i].cost)
			}
		}
	}()
	if len(asks) > 1 && someLeased(asks) { // up to a call for each
		ctx = redis.EnsureBudget(ctx)
	}
	for i := range asks {
		switch a := &asks[i]; {
		case !a.leased():
		case a.cost == 0:
			verdicts[i] = l.table.recall(*a)
		default:
			sent, generation := l.table.sending()
			if verdicts[i], blocks[i], err = l.lease(ctx, placedKey{tag, a.name}, a); err != nil {
				return nil, err
			}
			if !verdicts[i].passes {
				blocks[i] = 0
				l.table.learn(asks[i:i+1], verdicts[i:i+1], false, 0, sent, generation)
			}
			counted = counted && !a.refuses(verdicts[i])
		}
	}
	if !counted {
		id = 0 // the others are only told
	}
	passed, now, err := l.askOthers(ctx, tag, asks, verdicts, id)
	if err != nil {
		return nil, err
	}
	counted = counted && passed
	decisions := make([]models.Decision, len(asks))
	for i := range asks {
		a, v := &asks[i], verdicts[i]
		decisions[i] = a.decision(v)
		a.count(v, counted, false)
		switch {
		case !counted || !v.passes || a.cost == 0:
		case a.leased():
			l.table.countUnit(a, blocks[i], now)
			decisions[i].Admission = a.admission(blocks[i], leasedAdmission, v.at, tag) // when its lease covered it
		default:
			decisions[i].Admission = a.admission(id, v.at, now, tag)
		}
	}
	return decisions, nil
}

// askOthers asks Redis about the hits that blocks do not serve, and puts its answers among
// the verdicts. With id 0 it only looks. It returns whether all pass, and the table's clock.
func (l *Limiter) askOthers(ctx context.Context, tag string, asks []ask, verdicts []verdict, id int64) (passed bool, now int64, err error) {
	others := asks
	if someLeased(asks) {
		others = slices.DeleteFunc(slices.Clone(asks), func(a ask) bool { return a.leased() })
	}
	if len(others) == 0 {
		return true, l.table.now(), nil
	}
	sent, generation := l.table.sending()
	replies, err := l.run(ctx, tag, others, id)
	if err != nil {
		return false, 0, err
	}
	passed = allPass(others, replies)
	now = l.table.learn(others, replies, passed && id != 0, id, sent, generation)
	for i := range asks {
		if !asks[i].leased() {
			verdicts[i], replies = replies[0], replies[1:]
		}
	}
	return passed, now, nil
}

func (l *Limiter) takeLocally(group string, asks []ask, id, now int64) ([]models.Decision, error) {
	if err := refusedClosed(asks); err != nil {
		l.table.away(asks)
		countUnavailable(asks)
		return nil, err
	}
	var room [4]verdict
	verdicts, counted := l.table.decideAt(now, asks, id, room[:0])
	tag := tagOf(group, asks)
	decisions := make([]models.Decision, len(asks))
	for i := range asks {
		a, v := &asks[i], verdicts[i]
		decisions[i] = a.decision(v)
		decisions[i].Degraded = true
		if counted && v.passes && a.cost > 0 && a.local() {
			if !l.redis.Disabled() { // else it will never be asked for
				l.admitted.addLocal(placedKey{tag, a.name}, a, id, v.at)
			}
			decisions[i].Admission = a.admission(id, 0, v.at, tag)
		}
		a.count(v, counted, true)
	}
	return decisions, nil
}

// look asks Redis how things stand.
func (l *Limiter) look(ctx context.Context, tag string, asks []ask) ([]verdict, error) {
	verdicts := make([]verdict, len(asks))
	ctx = redis.EnsureBudget(ctx)
	for i := range asks {
		a := &asks[i]
		if !a.leased() {
			continue
		}
		key := placedKey{tag, a.name}
		sent, generation := l.table.sending()
		here := l.leases.atHand(key)
		got := l.askForBlock(ctx, key, a.hit.Policy, rand.Int64N(maxCallID)+1, 0, max(0, a.cost-here), nil)
		if got.err != nil {
			return nil, got.err
		}
		remaining := got.remaining + here
		verdicts[i] = verdict{passes: a.cost == 0 || a.cost <= remaining, remaining: remaining, more: got.more, at: got.at}
		if !verdicts[i].passes {
			verdicts[i].retry = max(1, got.retry)
			l.table.learn(asks[i:i+1], verdicts[i:i+1], false, 0, sent, generation)
		}
	}
	_, _, err := l.askOthers(ctx, tag, asks, verdicts, 0)
	return verdicts, err
}

// refusedClosed is an error if a policy that is closed without Redis is asked.
func refusedClosed(asks []ask) error {
	for i := range asks {
		p := &asks[i].hit.Policy
		if p.OnRedisDown == models.OnRedisDownClosed && !p.Shadow && asks[i].cost > 0 {
			return fmt.Errorf("rate limit %s: closed without redis: %w", p.Name, models.ErrUnavailable)
		}
	}
	return nil
}

// allPass reports whether the hits were counted.
func allPass(asks []ask, verdicts []verdict) bool {
	for i := range asks {
		if asks[i].refuses(verdicts[i]) {
			return false
		}
	}
	return true
}
