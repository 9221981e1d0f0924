package ratelimit

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/redis/rueidis"
	"golang.org/x/sync/errgroup"

	"gatehouse/models"
	"gatehouse/services/redis"
)

const (
	// askAttempts is how often a key is asked for when Redis goes on losing it.
	askAttempts = 20
	// lossInterval is how often an instance looks whether Redis lost something.
	lossInterval = 200 * time.Millisecond
	// lossSample is at how many of its keys it looks.
	lossSample = 16
	// forgotten in place of the first number of a reply says that Redis does not have
	// what it must have.
	forgotten = -2
)

// run asks the script; with id 0 it only looks. What Redis lost of the keys is put
// back first.
func (l *Limiter) run(ctx context.Context, tag string, asks []ask, id int64) ([]verdict, error) {
	l.noticeConnections()
	var room [4]expectation
	expected := append(room[:0], make([]expectation, len(asks))...)
	start, within := l.table.now(), ctx
	for range askAttempts {
		if behind := l.admitted.expect(tag, asks, expected); behind != nil {
			within = l.rest(ctx, start) //nolint:fatcontext // made from the caller's each time
			if err := l.reportThese(within, behind); err != nil {
				return nil, err
			}
			continue
		}
		reply, err := l.ask(within, tag, asks, expected, id)
		if err != nil {
			l.admitted.asked(tag, asks, expected)
			return nil, fmt.Errorf("rate limit: %w", err)
		}
		lost := lostOf(tag, asks, reply)
		if lost == nil {
			return l.learned(tag, asks, expected, id, reply), nil
		}
		l.admitted.asked(tag, asks, expected)
		within = l.rest(ctx, start)
		if err := l.reportThese(within, lost); err != nil {
			return nil, err
		}
		l.reportSoon() // the other keys
	}
	return nil, fmt.Errorf("rate limit: redis lost what it was told again and again: %w", models.ErrUnavailable)
}

// lostOf are the keys of which Redis does not have what it must have.
func lostOf(tag string, asks []ask, reply []int64) (lost []placedKey) {
	for i := range asks {
		if reply[takeReplies*i] == forgotten {
			lost = append(lost, placedKey{tag, asks[i].name})
		}
	}
	return lost
}

func (l *Limiter) reportThese(ctx context.Context, keys []placedKey) error {
	for _, key := range keys {
		if err := l.report(ctx, key); err != nil {
			return err
		}
	}
	return nil
}

// rest is ctx with what is left of one Timeout since start, if it has no budget yet.
func (l *Limiter) rest(ctx context.Context, start int64) context.Context {
	return redis.WithSpentBudget(ctx, time.Duration(l.table.now()-start)*time.Microsecond)
}

// ask runs a take script once and returns its numbers.
func (l *Limiter) ask(ctx context.Context, tag string, asks []ask, expected []expectation, id int64) ([]int64, error) {
	if len(asks) == 1 {
		reply, err := l.single.Exec(ctx, l.redisKey(tag, &asks[0]), addTakeArgs(nil, id, &asks[0], &expected[0])...)
		if err == nil && reply[0] == -1 {
			l.log.Error("the key of a rate limit holds something else in Redis", "policy", asks[0].name.policy)
			err = models.ErrUnavailable
		}
		return reply, err
	}
	keys, args := make([]string, len(asks)), make([]string, 0, takeArgs*len(asks))
	for i := range asks {
		keys[i] = l.redisKey(tag, &asks[i])
		args = addTakeArgs(args, id, &asks[i], &expected[i])
	}
	msg, err := l.redis.Exec(ctx, l.scripts.take, keys, args)
	if err != nil {
		return nil, err
	}
	reply, err := msg.AsIntSlice()
	if err == nil && len(reply) != takeReplies*len(asks) {
		l.log.Error("the rate limit script answered something else", "reply", reply)
		return nil, models.ErrUnavailable
	}
	return reply, err
}

// learned reads the reply of a take script and records it.
func (l *Limiter) learned(tag string, asks []ask, expected []expectation, id int64, reply []int64) []verdict {
	verdicts := make([]verdict, len(asks))
	for i := range verdicts {
		r := reply[takeReplies*i:]
		verdicts[i] = verdict{passes: r[0] == 1, remaining: r[1], retry: r[2], more: r[3], at: r[4]}
	}
	counted := id != 0 && allPass(asks, verdicts)
	for i := range asks {
		a := &asks[i]
		l.admitted.learn(placedKey{tag, a.name}, a, &expected[i], id, counted, verdicts[i], reply[takeReplies*i+5])
	}
	return verdicts
}

// noticeConnections takes a lost connection for a sign that Redis may have lost
// something: it may have been started again, or be another server now.
func (l *Limiter) noticeConnections() {
	lost := l.redis.LostConnections()
	if known := l.connections.Load(); known != lost && l.connections.CompareAndSwap(known, lost) {
		l.admitted.lose()
	}
}

// watchLosses looks again and again whether Redis lost what it was told, so that also
// what is not asked for is put back soon.
func (l *Limiter) watchLosses(ctx context.Context) {
	ticker := time.NewTicker(lossInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		if l.redis.AnyAvailable() {
			l.noticeConnections()
			l.lookForLosses(ctx)
			l.reportSoon()
		}
	}
}

// lookForLosses looks at some keys, and reports those that Redis does not have.
func (l *Limiter) lookForLosses(ctx context.Context) {
	group, ctx := errgroup.WithContext(ctx)
	for key, sample := range l.admitted.sample(lossSample) {
		if !l.redis.AvailableFor(key.tag) {
			continue
		}
		group.Go(func() error {
			there, err := l.has(ctx, key, sample)
			if err != nil || there {
				return err
			}
			return l.report(ctx, key)
		})
	}
	_ = group.Wait() // what could not be looked at is soon
}

// has reports whether Redis has what it must have.
func (l *Limiter) has(ctx context.Context, key placedKey, e expectedOf) (bool, error) {
	a := ask{hit: models.Hit{Policy: e.policy}, name: key.name, rule: e.rule}
	msg, err := l.redis.DoAt(ctx, key.tag, func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		switch {
		case a.leased():
			return c.Do(ctx, c.B().Hget().Key(l.leaseKeys(key)[1]).Field(e.member).Build())
		case a.rule.burst > 0:
			return c.Do(ctx, c.B().Get().Key(l.redisKey(key.tag, &a)).Build())
		}
		return c.Do(ctx, c.B().Zscore().Key(l.redisKey(key.tag, &a)).Member(e.member).Build())
	})
	if rueidis.IsRedisNil(err) {
		return false, nil
	}
	if err != nil || a.leased() || a.rule.burst == 0 {
		return true, err
	}
	held, err := msg.ToString()
	nonce, _, _ := strings.Cut(e.member, " ")
	fields := strings.Fields(held)
	return len(fields) == 4 && fields[2] == nonce, err
}
