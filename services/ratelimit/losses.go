package ratelimit

import (
	"context"
	"strings"
	"time"

	"github.com/redis/rueidis"
	"golang.org/x/sync/errgroup"

	"gatehouse/models"
)

const (
	// lossInterval is how often an instance checks whether Redis lost something.
	lossInterval = 200 * time.Millisecond
	// lossSample is how many of its keys an instance checks each time.
	lossSample = 16
)

// noticeLostConnections takes a lost connection for a sign that Redis may have lost something:
// it may have been started again, or another server answers now.
func (l *Limiter) noticeLostConnections() {
	lost := l.redis.LostConnections()
	if known := l.connections.Load(); known != lost && l.connections.CompareAndSwap(known, lost) {
		l.outbox.suspectLoss()
	}
}

// watchLosses checks again and again whether Redis lost what it had, so that keys for which no
// requests come are put back soon as well.
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
			l.noticeLostConnections()
			l.lookForLosses(ctx)
			_ = l.giveLeftovers(ctx, l.outbox.takeLeftovers(false)) // what could not be given back counts until it leaves
			l.flushSoon()
		}
	}
}

// lookForLosses checks some keys, and flushes those that Redis does not have.
func (l *Limiter) lookForLosses(ctx context.Context) {
	group, ctx := errgroup.WithContext(ctx)
	for key, sample := range l.outbox.sample(lossSample) {
		if !l.redis.AvailableFor(key.tag) {
			continue
		}
		group.Go(func() error {
			there, err := l.has(ctx, key, sample)
			if err != nil || there {
				return err
			}
			return l.flush(ctx, key)
		})
	}
	_ = group.Wait() // what could not be looked at is soon
}

// has reports whether Redis has what it must have.
func (l *Limiter) has(ctx context.Context, key taggedKey, e expectedOf) (bool, error) {
	req := request{hit: models.Hit{Policy: e.policy}, name: key.name, rule: e.rule}
	msg, err := l.redis.DoAt(ctx, key.tag, func(ctx context.Context, c rueidis.Client) rueidis.RedisResult {
		switch {
		case req.usesBlocks():
			return c.Do(ctx, c.B().Hget().Key(l.blockKeys(key)[1]).Field(e.member).Build())
		case req.rule.burst > 0:
			return c.Do(ctx, c.B().Get().Key(l.redisKey(key.tag, &req)).Build())
		}
		return c.Do(ctx, c.B().Zscore().Key(l.redisKey(key.tag, &req)).Member(e.member).Build())
	})
	if rueidis.IsRedisNil(err) {
		return false, nil
	}
	if err != nil || req.usesBlocks() || req.rule.burst == 0 {
		return true, err
	}
	held, err := msg.ToString()
	nonce, _, _ := strings.Cut(e.member, " ")
	fields := strings.Fields(held)
	return len(fields) == 4 && fields[2] == nonce, err
}
