package ratelimit

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/rueidis"

	"gatehouse/models"
	"gatehouse/services/redis"
)

const (
	// lossAttempts is how often a decision is asked for when Redis loses its key again and again.
	lossAttempts = 20
	// lostReply in place of a reply's first number says that Redis lacks what it must have.
	lostReply = -2
)

// run decides about the requests in one script; with id 0 it only looks.
func (l *Limiter) run(ctx context.Context, tag string, requests []request, id int64) (results []result, err error) {
	return l.runFetching(ctx, tag, requests, id, nil)
}

// runFetching is run where the call may also fetch blocks. It does not end that call.
func (l *Limiter) runFetching(ctx context.Context, tag string, requests []request, id int64, fetch *autoCall) (results []result, err error) {
	err = l.onceWhole(ctx, tag, requests, func(ctx context.Context, expected []expectation) ([]taggedKey, error) {
		reply, err := l.exec(ctx, tag, requests, expected, id, fetch)
		if err != nil {
			return nil, fmt.Errorf("rate limit: %w", err)
		}
		lost := lostOf(tag, requests, reply)
		if lost == nil {
			results = l.readReply(tag, requests, expected, id, reply, fetch)
		}
		return lost, nil
	})
	return results, err
}

// onceWhole makes a call about the requests when Redis has what it must have of their keys. If
// Redis lost something, that is put back first. The call gets what it is to expect. It records
// its reply, or returns the keys of which Redis lacks something, and is made again.
func (l *Limiter) onceWhole(
	ctx context.Context, tag string, requests []request, call func(context.Context, []expectation) (lost []taggedKey, err error),
) error {
	l.noticeLostConnections()
	expected := make([]expectation, len(requests))
	start, within := l.local.now(), ctx
	for range lossAttempts {
		behind := l.outbox.beginCall(tag, requests, expected)
		if behind == nil {
			lost, err := call(within, expected)
			if err == nil && lost == nil {
				return nil
			}
			l.outbox.endCall(tag, requests, expected)
			if err != nil {
				return err
			}
			behind = lost
			l.flushSoon() // the other keys
		}
		within = l.rest(ctx, start) //nolint:fatcontext // made from the caller's each time
		for _, key := range behind {
			if err := l.flush(within, key); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("rate limit: redis keeps losing what it had: %w", models.ErrUnavailable)
}

// lostOf returns the keys of which Redis lacks what it must have.
func lostOf(tag string, requests []request, reply []int64) (lost []taggedKey) {
	for i := range requests {
		if reply[takeReplies*i] == lostReply {
			lost = append(lost, taggedKey{tag, requests[i].name})
		}
	}
	return lost
}

// rest returns ctx with what is left of one Timeout since start, unless it has a budget.
func (l *Limiter) rest(ctx context.Context, start int64) context.Context {
	return redis.WithSpentBudget(ctx, time.Duration(l.local.now()-start)*time.Microsecond)
}

// exec runs a take script once and returns its numbers.
func (l *Limiter) exec(ctx context.Context, tag string, requests []request, expected []expectation, id int64, fetch *autoCall) ([]int64, error) {
	if len(requests) == 1 && fetch == nil {
		return l.execAlone(ctx, tag, &requests[0], &expected[0], id)
	}
	keys, args := make([]string, len(requests)), make([]string, 0, takeArgs*len(requests))
	for i := range requests {
		keys[i] = l.redisKey(tag, &requests[i])
		args = addTakeArgs(args, id, &requests[i], &expected[i])
	}
	if fetch == nil {
		return l.numbers(ctx, l.scripts.take, keys, args, takeReplies*len(requests))
	}
	for i := range requests {
		keys = append(keys, l.inUseKey(taggedKey{tag, requests[i].name}))
		args = addFetchArgs(args, &fetch.asked[i], &fetch.unused[i], requests[i].rule)
	}
	return l.numbers(ctx, l.scripts.take, keys, args, (takeReplies+1)*len(requests))
}

// numbers runs a script and returns its numbers, at least so many.
func (l *Limiter) numbers(ctx context.Context, script *rueidis.Lua, keys, args []string, least int) ([]int64, error) {
	msg, err := l.redis.Exec(ctx, script, keys, args)
	if err != nil {
		return nil, err
	}
	reply, err := msg.AsIntSlice()
	if err != nil || len(reply) < least {
		l.log.Error("Redis returned an unexpected reply to a rate limit script", "numbers", len(reply), "error", err)
		return nil, models.ErrUnavailable
	}
	return reply, nil
}

// readReply turns the numbers of a take script into results, and records them.
func (l *Limiter) readReply(tag string, requests []request, expected []expectation, id int64, reply []int64, fetch *autoCall) []result {
	results := make([]result, len(requests))
	for i := range results {
		r := reply[takeReplies*i:]
		results[i] = result{passes: r[0] == 1, remaining: r[1], retry: r[2], more: r[3], at: r[4]}
	}
	counted := id != 0 && allPass(requests, results)
	for i := range requests {
		req, block := &requests[i], autoBlock{}
		if fetch != nil {
			block = fetch.asked[i]
			block.count = reply[takeReplies*len(requests)+i]
		}
		held := l.outbox.recordDecision(
			taggedKey{tag, req.name}, req, &expected[i], id, counted, results[i], reply[takeReplies*i+5], fetch, block)
		results[i].remaining += held
	}
	return results
}
