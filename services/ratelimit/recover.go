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
)

const (
	// reportingPause is how long Redis, when it returns, is kept from the others to be
	// told what was admitted without it, or what it may have lost; the rest follows
	// meanwhile, and a key's own before Redis decides about it.
	reportingPause = 300 * time.Millisecond
	reportingTime  = 10 * time.Second
	reportingCalls = 64                     // at once
	awayPause      = 250 * time.Millisecond // between two looks whether a node is back
)

// recovered tells Redis, before it is used again, what was admitted without it and
// what it may have lost.
func (l *Limiter) recovered(ctx context.Context) {
	l.admitted.lose()
	ctx, cancel := context.WithTimeout(ctx, reportingPause)
	defer cancel()
	l.reportAll(ctx)
}

// reportSoon brings keys that are behind up to date in the background: after a single
// call that failed, Redis never counts as away.
func (l *Limiter) reportSoon() {
	if !l.admitted.some.Load() || !l.admitted.busy.CompareAndSwap(false, true) {
		return
	}
	started := l.goBackground(func() {
		defer l.admitted.busy.Store(false)
		ctx, cancel := context.WithTimeout(context.Background(), reportingTime)
		defer cancel()
		l.reportAll(ctx)
		if l.admitted.some.Load() { // its node is away: do not look at every call
			<-time.After(awayPause)
		}
	})
	if !started {
		l.admitted.busy.Store(false)
	}
}

// reportAll reports the keys that are behind, some at a time. It stops at the first
// error; the rest stay behind. So do those of a node that is away, until it returns.
func (l *Limiter) reportAll(ctx context.Context) {
	group, until := errgroup.WithContext(ctx)
	group.SetLimit(reportingCalls)
	away := false
	for _, key := range l.admitted.takeBehind() {
		if !l.redis.Reaches(ctx, key.tag) {
			away = true
			continue
		}
		group.Go(func() error { return l.report(until, key) })
	}
	if group.Wait() != nil || away {
		l.admitted.some.Store(true)
	}
}

// lose says that Redis may have lost something.
func (b *admittedBook) lose() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.losses++; len(b.keys) > 0 {
		b.some.Store(true)
	}
}

// takeBehind are the keys that are behind; those of which nothing is left are dropped.
func (b *admittedBook) takeBehind() (behind []placedKey) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.some.Store(false)
	now := b.now()
	for key, s := range b.keys {
		switch {
		case s.asking == 0 && !s.reporting && now-s.used > s.lasts():
			b.drop(key)
		case s.isBehind(b):
			behind = append(behind, key)
		}
	}
	return behind
}

// report tells Redis what this instance admitted of a key, when the calls about it that
// are under way have ended. While one call does, the others wait for it, so it goes on
// when its own caller leaves.
func (l *Limiter) report(ctx context.Context, key placedKey) error {
	err := ctx.Err()
	if err == nil {
		_, err, _ = l.reports.Do(key.tag+" "+key.name.policy+" "+key.name.key, func() (any, error) {
			return nil, l.reportNow(context.WithoutCancel(ctx), key)
		})
	}
	if err != nil {
		return fmt.Errorf("report %s: %w", key.name.policy, err)
	}
	return nil
}

func (l *Limiter) reportNow(ctx context.Context, key placedKey) (err error) {
	asked, some := l.admitted.stop(key)
	if !some {
		return nil
	}
	patience := time.NewTimer(l.redis.Timeout())
	defer patience.Stop()
	select {
	case <-asked:
	case <-patience.C:
		err = fmt.Errorf("calls under way do not end: %w", models.ErrUnavailable)
	}
	r := l.admitted.begin(key)
	if r == nil {
		return err
	}
	var got reportReply
	if err == nil {
		got, err = l.send(ctx, r)
	}
	for _, e := range l.admitted.end(r, got, err) {
		a := r.ask()
		_, _ = l.redis.Exec(ctx, l.scripts.refund, []string{l.redisKey(key.tag, &a)}, refundArgs(e.id, e.cost, 0, a.rule, expectation{}))
	}
	return err
}

// ask is the report's policy as of a hit.
func (r *report) ask() ask {
	return ask{hit: models.Hit{Policy: r.policy}, name: r.key.name, rule: r.rule}
}

func (l *Limiter) send(ctx context.Context, r *report) (reportReply, error) {
	if r.policy.Lease > 0 {
		return l.sendBlocks(ctx, r)
	}
	if r.log.used == 0 && r.bucket.level == 0 && r.seen.level == 0 && r.resetAt == 0 {
		return reportReply{nonce: r.seen.nonce, now: r.seen.at}, nil // nothing is left of it
	}
	args := texts(r.rule.burst, r.rule.limit, r.rule.window, r.resetAt)
	if r.rule.burst > 0 {
		nonce := ""
		if r.seen.nonce > 0 {
			nonce = strconv.FormatInt(r.seen.nonce, 10)
		}
		args = append(append(args, nonce), texts(r.seen.level, r.seen.at, r.seen.wrote, r.bucket.level, rand.Int64N(maxCallID)+1)...)
	}
	for _, e := range r.log.entries {
		args = append(args, texts(e.told, r.now-e.at, e.id, e.cost)...)
	}
	a := r.ask()
	return l.sent(l.redis.Exec(ctx, l.scripts.account, []string{l.redisKey(r.key.tag, &a), l.resetKey(r.key)}, args))
}

// sendBlocks reports the blocks taken, and as one that is over what was admitted
// without any: it leaves a window from now, the limit notwithstanding.
func (l *Limiter) sendBlocks(ctx context.Context, r *report) (got reportReply, err error) {
	if len(r.blocks) > 0 || r.resetAt > 0 {
		args := texts(r.rule.window, r.resetAt)
		for _, c := range r.blocks {
			args = append(args, texts(c.id, c.units, c.taken, c.leaves)...)
		}
		if got, err = l.sent(l.redis.Exec(ctx, l.scripts.blocks, append(l.leaseKeys(r.key), l.resetKey(r.key)), args)); err != nil {
			return got, err
		}
	}
	if r.log.used == 0 {
		return got, nil
	}
	call := leaseNumbers{limit: 1 << 50, window: r.rule.window, units: r.log.used}
	over := l.sendLease(ctx, r.key, r.block, call, expectation{}, nil)
	if over.err == nil {
		got.over = countedBlock{id: r.block, units: over.units, taken: over.at, leaves: over.at + call.window, gone: r.now + call.window}
	}
	return got, over.err
}

// sent reads the reply to a report.
func (l *Limiter) sent(msg rueidis.RedisMessage, err error) (reportReply, error) {
	if err != nil {
		return reportReply{}, err
	}
	reply, err := msg.AsIntSlice()
	if err != nil || len(reply) < 3 {
		l.log.Error("the rate limit script answered something else", "numbers", len(reply), "error", err)
		return reportReply{}, models.ErrUnavailable
	}
	got := reportReply{lost: reply[0], now: reply[1], resetAt: reply[2]}
	if len(reply) >= 5 {
		got.nonce, got.level, got.times = reply[3], reply[4], reply[5:]
	}
	return got, nil
}

// texts are numbers as arguments of a script.
func texts(numbers ...int64) []string {
	all := make([]string, len(numbers), 2*len(numbers))
	for i, n := range numbers {
		all[i] = strconv.FormatInt(n, 10)
	}
	return all
}
