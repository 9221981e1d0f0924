package ratelimit

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"gatehouse/models"
)

// leftoverPause is how long after its end a block is given back: then a bucket surely has none in
// use, unless another instance has.
const leftoverPause = int64(10_000)

// maxLeftovers bounds the blocks that wait to be given back. Others count until a window after
// their end.
const maxLeftovers = 1024

// forgetUnused takes what is left of a block out of the log: it is given back.
func (s *outboxState) forgetUnused(a *autoBlock) {
	if s.rule.burst > 0 || a.left() == 0 {
		return
	}
	for id := a.first + a.used; id < a.first+a.count; id++ {
		s.log.remove(id)
		if s.flushing {
			s.refunded = append(s.refunded, id)
		}
	}
	s.findLatest()
	s.leaves = 0
}

// leftover is a block that is over, or whose policy is another one by now, to be given back.
type leftover struct {
	key    taggedKey
	policy models.Policy
	rule   rule
	block  autoBlock
}

// leave puts what is left of a block among the leftovers. The caller holds b.mu.
func (b *outbox) leave(key taggedKey, s *outboxState, block autoBlock) {
	if block.left() == 0 {
		return
	}
	s.forgetUnused(&block)
	if len(b.leftovers) == maxLeftovers {
		b.leftovers = b.leftovers[1:]
	}
	b.leftovers = append(b.leftovers, leftover{key, s.policy, s.rule, block})
}

// takeLeftovers returns what is to be given back: blocks that are over, or all of them.
func (b *outbox) takeLeftovers(all bool) []leftover {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	for key, s := range b.withBlocks {
		if b.keys[key] != s || s.auto.left() == 0 {
			delete(b.withBlocks, key)
			continue
		}
		if all || now >= s.auto.until+leftoverPause {
			block := s.auto
			s.auto = autoBlock{}
			b.leave(key, s, block)
			b.resize(key, s, now)
			delete(b.withBlocks, key)
		}
	}
	taken := b.leftovers
	b.leftovers = nil
	return taken
}

// giveLeftovers gives back what was not used of blocks that sized themselves, some at a time. It
// stops at the first error.
func (l *Limiter) giveLeftovers(ctx context.Context, all []leftover) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(flushCalls)
	for _, o := range all {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			if err := l.giveLeftover(ctx, o); err != nil {
				return fmt.Errorf("give back %s: %w", o.policy.Name, err)
			}
			return nil
		})
	}
	return group.Wait() //nolint:wrapcheck // it is ours
}

func (l *Limiter) giveLeftover(ctx context.Context, o leftover) error {
	req := request{hit: models.Hit{Policy: o.policy}, name: o.key.name, rule: o.rule}
	if o.rule.burst > 0 {
		req.cost = o.block.left() * o.block.cost
		return l.refundBucket(ctx, o.key, &req, models.Admission{Cost: req.cost, At: o.block.at, Tag: o.key.tag})
	}
	_, err := l.redis.Exec(ctx, l.scripts.refund, l.refundKeys(o.key.tag, &req),
		refundArgs(o.block.first+o.block.used, o.block.left(), o.block.cost, 0, o.rule, expectation{}))
	return err
}
