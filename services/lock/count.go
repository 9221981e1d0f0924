package lock

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"gatehouse/services/redis"
)

// CountHeld is how many locks a user has now, on all instances. Of a shard that cannot be
// asked, only those count that this instance knows.
func (l *Locker) CountHeld(ctx context.Context, userID string) int {
	ctx = redis.WithBudget(ctx)
	var held atomic.Int64
	var group errgroup.Group
	for shard := range lockShards {
		group.Go(func() error {
			msg, err := l.redis.Exec(ctx, l.scripts.count, l.keys.in(shard, "")[:3], []string{userID})
			if err == nil {
				var there int64
				if there, err = msg.AsInt64(); err == nil {
					held.Add(there)
				}
			}
			if err != nil {
				held.Add(int64(l.table.countHeld(time.Now(), shard, userID)))
			}
			return nil
		})
	}
	_ = group.Wait()
	return int(held.Load())
}

// countHeld is how many locks of a shard a user has, as far as this instance knows.
func (t *lockTable) countHeld(now time.Time, shard int, userID string) (held int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for resource := range t.locks {
		if shardOf(resource) != shard {
			continue
		}
		if l := t.live(now, resource); l != nil && l.lock.Holder.UserID == userID {
			held++
		}
	}
	return held
}
