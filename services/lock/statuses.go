package lock

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"gatehouse/models"
)

// Statuses is Status of several locks, in the order of the resources, by one command for each of
// the 16 shards in which one of them is, all sent at once. It does not say how many wait for a lock
// that is free. Without Redis (open) those of a shard that cannot be asked are what this instance
// knows, Degraded.
func (l *Locker) Statuses(ctx context.Context, resources []string) ([]models.LockStatus, error) {
	all := make([]models.LockStatus, len(resources))
	var places [shardCount][]int
	for i, resource := range resources {
		shard := shardOf(resource)
		places[shard] = append(places[shard], i)
	}
	group, ctx := errgroup.WithContext(ctx)
	for shard, of := range places {
		if len(of) == 0 {
			continue
		}
		group.Go(func() error {
			names := make([]string, len(of))
			for i, place := range of {
				names[i] = resources[place]
			}
			found, err := l.statusesIn(ctx, shard, names)
			if err != nil && !l.mayDegrade(err) {
				return fmt.Errorf("status of %d locks: %w", len(names), err)
			}
			for i, place := range of {
				if err == nil {
					all[place] = found[i]
				} else {
					all[place] = l.table.status(time.Now(), resources[place])
				}
			}
			return nil
		})
	}
	return all, group.Wait()
}

// statusesIn asks one shard.
func (l *Locker) statusesIn(ctx context.Context, shard int, resources []string) ([]models.LockStatus, error) {
	msg, err := l.redis.Exec(ctx, l.scripts.statuses, l.keys.in(shard, "")[:3], resources)
	if err != nil {
		return nil, err
	}
	answers, err := msg.ToArray()
	if err != nil || len(answers) != len(resources) {
		return nil, fmt.Errorf("read %d of %d locks: %w: %w", len(answers), len(resources), models.ErrUnavailable, err)
	}
	found := make([]models.LockStatus, len(resources))
	for i, answer := range answers {
		found[i].Resource = resources[i]
		if answer.IsString() { // it is free
			continue
		}
		got, err := readReply(answer)
		if err != nil {
			return nil, err
		}
		got.at = l.opt.Clock()
		found[i] = got.status(resources[i])
	}
	return found, nil
}
