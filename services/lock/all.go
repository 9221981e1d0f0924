package lock

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"gatehouse/models"
	"gatehouse/services/redis"
)

const (
	allChunk   = 500              // locks that one call to Redis returns: it works on them for about 1 ms
	allTimeout = 10 * time.Second // for all calls together
)

// Listed is a lock of All.
type Listed struct {
	models.LockStatus
	// End is when the lease ends by the clock of Redis, in milliseconds: the same each time it is
	// read, where ExpiresAt moves with the time that a reply takes.
	End int64
}

// All returns all locks held now, ordered by resource; nobody but the caller has the slice. Without
// Redis (open) it is what this instance knows, and degraded is true.
//
// It costs time and memory in proportion to the number of locks: use List to look at some of
// many. Calls at the same time share one look at Redis, which begins after each of them: an
// instance has at most one under way, and one that waits for its end.
func (l *Locker) All(ctx context.Context) (locks []Listed, degraded bool, err error) {
	shared, err := l.looks.join(ctx, l.readAll)
	if err == nil {
		return slices.Clone(shared), false, nil
	}
	if !l.mayDegrade(err) {
		return nil, false, fmt.Errorf("list locks: %w", err)
	}
	now := time.Now()
	for _, known := range l.table.living(now, anyLock) {
		status := known.status(now)
		locks = append(locks, Listed{status, status.ExpiresAt.UnixMilli()})
	}
	sortByResource(locks)
	return locks, true, nil
}

// sortByResource puts a later grant, or a later look at the same one, before the earlier.
func sortByResource(locks []Listed) {
	slices.SortFunc(locks, func(a, b Listed) int {
		return cmp.Or(cmp.Compare(a.Resource, b.Resource), b.Holder.Since.Compare(a.Holder.Since), cmp.Compare(b.End, a.End))
	})
}

// readAll asks all shards at once, and each for its locks in chunks, so that no script holds up
// the server for long.
func (l *Locker) readAll(ctx context.Context) ([]Listed, error) {
	var found [shardCount][]Listed
	group, ctx := errgroup.WithContext(ctx)
	for shard := range shardCount {
		group.Go(func() error {
			for after := (cursor{Shard: shard}); ; {
				// A budget for each call: a long list is no reason to count Redis as gone.
				chunk, err := l.listShard(redis.WithBudget(ctx), after, allChunk)
				if err != nil {
					return err
				}
				for _, item := range chunk {
					found[shard] = append(found[shard], Listed{item.LockStatus, item.end})
					after.End, after.Fence = item.end, *item.Fence
				}
				if len(chunk) < allChunk {
					return nil
				}
			}
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	all := slices.Concat(found[:]...)
	sortByResource(all)
	// A lock that was extended between two chunks comes twice.
	return slices.CompactFunc(all, func(a, b Listed) bool { return a.Resource == b.Resource }), nil
}

// looks lets calls share the looks at all locks.
type looks struct {
	turn chan struct{} // holds one value while a look is under way

	mu   sync.Mutex
	next *look // one that has not begun yet; nil if there is none
}

func newLooks() *looks { return &looks{turn: make(chan struct{}, 1)} }

type look struct {
	done chan struct{} // closed when all and err are set
	all  []Listed
	err  error
}

// join waits for a look that begins after the call, or for the end of ctx.
func (s *looks) join(ctx context.Context, read func(context.Context) ([]Listed, error)) ([]Listed, error) {
	s.mu.Lock()
	joined := s.next
	if joined == nil {
		joined = &look{done: make(chan struct{})}
		s.next = joined
		go s.run(context.WithoutCancel(ctx), joined, read) // the others want it, too
	}
	s.mu.Unlock()
	select {
	case <-joined.done:
		return joined.all, joined.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", models.ErrUnavailable, context.Cause(ctx))
	}
}

func (s *looks) run(ctx context.Context, l *look, read func(context.Context) ([]Listed, error)) {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	s.mu.Lock()
	s.next = nil
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, allTimeout)
	defer cancel()
	defer close(l.done)
	l.all, l.err = read(ctx)
}
