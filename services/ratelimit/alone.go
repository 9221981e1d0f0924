package ratelimit

import (
	"context"
	"strconv"
	"strings"

	"gatehouse/models"
)

// Of take_log.lua and take_bucket.lua, for each hit.
const (
	aloneArgs     = 7
	logReplies    = 5
	bucketReplies = 4
)

// alwaysFits is a level that no bucket reaches.
const alwaysFits = 1 << 62

// execAlone decides about a request that is alone in its group, and returns the numbers that
// take.lua does. Most decisions are made so. The script of its algorithm does only what needs
// Redis: the rest is reckoned here, by the pure functions, where a microsecond costs all instances
// nothing.
func (l *Limiter) execAlone(ctx context.Context, tag string, req *request, e *expectation, id int64) ([]int64, error) {
	batch, bucket := l.logs, req.rule.burst > 0
	var args [aloneArgs]string
	if bucket {
		batch, args = l.buckets, bucketArgs(id, req, e)
	} else {
		args = logArgs(id, req, e)
	}
	reply, err := batch.Exec(ctx, l.redisKey(tag, req), args[:]...)
	switch {
	case err != nil:
		return nil, err
	case reply[0] == -1:
		l.log.Error("a rate limit cannot be counted: its key holds another type of value in Redis", "policy", req.name.policy)
		return nil, models.ErrUnavailable
	case reply[0] == lostReply:
		return reply, nil
	}
	v, nonce := result{}, int64(0)
	if bucket {
		v, nonce = readBucket(req, reply)
	} else {
		v = readLog(req, reply)
	}
	return []int64{reply[0], v.remaining, v.retry, v.more, v.at, nonce}, nil
}

func logArgs(id int64, req *request, e *expectation) [aloneArgs]string {
	return [...]string{
		callName(id), strconv.FormatInt(req.rule.limit, 10), strconv.FormatInt(req.rule.window, 10), strconv.FormatInt(req.cost, 10),
		strconv.FormatInt(e.leaves, 10), e.member, strconv.FormatInt(e.until, 10),
	}
}

// readLog is slidingLog.look on what take_log.lua says of a log, after the hit was counted if it
// passes.
func readLog(req *request, reply []int64) result {
	v := result{passes: reply[0] == 1, at: reply[1], remaining: max(0, req.rule.limit-reply[2])}
	if quota := reply[3]; quota > 0 {
		v.more = quota - v.at
	}
	if v.passes {
		return v
	}
	if v.retry = req.rule.window; req.cost <= req.rule.limit {
		v.retry = reply[4] - v.at
	}
	if req.cost == 1 {
		v.more = v.retry
	}
	return v
}

func bucketArgs(id int64, req *request, e *expectation) [aloneArgs]string {
	nonce, wrote, found := strings.Cut(e.member, " ")
	if !found {
		wrote = "0"
	}
	fits := int64(alwaysFits)
	if req.cost > 0 {
		fits = (req.rule.burst - req.cost) * req.rule.window
	}
	return [...]string{
		callName(id), strconv.FormatInt(req.rule.refill(), 10), strconv.FormatInt(fits, 10), strconv.FormatInt(req.cost*req.rule.window, 10),
		nonce, wrote, strconv.FormatInt(e.until, 10),
	}
}

// readBucket is bucket.look on the level that take_bucket.lua says, after the hit was counted if it
// passes.
func readBucket(req *request, reply []int64) (v result, nonce int64) {
	cost := req.cost
	if reply[0] == 1 {
		cost = 0
	}
	return bucket{level: reply[2], last: reply[1]}.look(reply[1], req.rule, cost), reply[3]
}
