package lock

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"gatehouse/services/redis"
)

// keptElsewhere is for how many users an instance remembers how many locks it does not know.
const keptElsewhere = 10_000

// elsewhere is, by user, how many locks Redis has that this instance does not know: of an earlier
// process, or of instances that are gone. While this one is alone they only get fewer, so that with
// those in its table they are never less than what the user holds, and Redis is not asked.
type elsewhere struct {
	mu    sync.Mutex
	since int64 // the state of peers that users are true of
	users map[string]int
}

// of returns a user's number, if it is known since others were expected last.
func (e *elsewhere) of(userID string, since int64) (locks int, known bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	locks, known = e.users[userID]
	return locks, known && e.since == since
}

func (e *elsewhere) set(userID string, locks int, since int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.since != since || len(e.users) >= keptElsewhere {
		e.users = nil
	}
	if e.users == nil {
		e.since, e.users = since, map[string]int{}
	}
	e.users[userID] = locks
}

// HoldsMore reports whether a user has more than n locks now, on all instances. Where Redis cannot
// be asked about a shard, only those count that this instance knows. An instance that is alone asks
// Redis only if the user may have more. It learns of an instance that starts within a heartbeat
// (500 ms); what the other grants until then may go uncounted here.
func (l *Locker) HoldsMore(ctx context.Context, userID string, n int) bool {
	since, alone := l.peers.since.Load(), l.peers.none()
	if alone {
		if others, known := l.elsewhere.of(userID, since); known && others+len(l.table.grantsOf(userID)) <= n {
			return false
		}
	}
	held, complete := l.grantsOf(ctx, userID)
	if alone && complete {
		own := l.table.grantsOf(userID) // now: what was granted meanwhile counts twice, at most
		others := slices.DeleteFunc(slices.Clone(held), func(grant string) bool { return slices.Contains(own, grant) })
		l.elsewhere.set(userID, len(others), since)
	}
	return len(held) > n
}

// grantsOf returns the grants of a user; complete is false if Redis could not be asked about all.
func (l *Locker) grantsOf(ctx context.Context, userID string) (grants []string, complete bool) {
	ctx = redis.WithBudget(ctx)
	var shards [shardCount][]string
	var group errgroup.Group
	for shard := range shardCount {
		group.Go(func() (err error) {
			if shards[shard], err = l.grantsInShard(ctx, shard, userID); err != nil {
				for _, known := range l.table.living(time.Now(), func(known *entry) bool {
					return known.lock.Holder.UserID == userID && shardOf(known.lock.Resource) == shard
				}) {
					shards[shard] = append(shards[shard], known.lock.Grant)
				}
			}
			return err
		})
	}
	err := group.Wait()
	return slices.Concat(shards[:]...), err == nil
}

func (l *Locker) grantsInShard(ctx context.Context, shard int, userID string) ([]string, error) {
	msg, err := l.redis.Exec(ctx, l.scripts.held, l.keys.in(shard, "")[:3], []string{userID})
	if err != nil {
		return nil, err
	}
	grants, err := msg.AsStrSlice()
	return slices.DeleteFunc(grants, l.table.knowsEnd), err // an end may have still to be told
}
