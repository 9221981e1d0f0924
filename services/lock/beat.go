package lock

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"gatehouse/models"
)

const (
	waitingBeat = 80 * time.Millisecond  // for shards in which this instance waits
	soonestBeat = 5 * time.Millisecond   // after another, when a lock ends
	holdingBeat = 500 * time.Millisecond // for shards in which it only holds locks
	sweepBeat   = 4                      // every so many of these go to all shards: an instance may have crashed
)

// lockWaiters are the waiters of this instance. A grant that Redis made to one of
// them reaches it by a message, which is only a hint, or by the next beat.
type lockWaiters struct {
	mu     sync.Mutex
	queues map[string]map[string]chan *pushedGrant // resource -> grant id -> its turn
	epochs map[int]string                          // of the shards they queued in
	beaten [lockShards]shardMark
}

func newLockWaiters() *lockWaiters {
	return &lockWaiters{queues: map[string]map[string]chan *pushedGrant{}, epochs: map[int]string{}}
}

func (w *lockWaiters) join(resource, grant string) <-chan *pushedGrant {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.queues[resource] == nil {
		w.queues[resource] = map[string]chan *pushedGrant{}
	}
	turn := make(chan *pushedGrant, 1)
	w.queues[resource][grant] = turn
	return turn
}

func (w *lockWaiters) leave(resource, grant string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.queues[resource], grant)
	if len(w.queues[resource]) == 0 {
		delete(w.queues, resource)
	}
}

// wake tells the waiter of a grant, whatever it waits for.
func (w *lockWaiters) wake(grant string) { w.tell(grant, nil) }

func (w *lockWaiters) tell(grant string, pushed *pushedGrant) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, queue := range w.queues {
		if turn, ok := queue[grant]; ok {
			nudge(turn, pushed)
			return
		}
	}
}

// wakeAll lets all waiters of a shard ask again: what they know is stale.
func (w *lockWaiters) wakeAll(shard int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for resource, queue := range w.queues {
		if shardOf(resource) != shard {
			continue
		}
		for _, turn := range queue {
			nudge(turn, nil)
		}
	}
}

// queued notes the epoch that a queue was joined in.
func (w *lockWaiters) queued(resource, epoch string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if shard := shardOf(resource); w.epochs[shard] == "" {
		w.epochs[shard] = epoch
	}
}

// epoch is the epoch of a shard as the waiters know it, empty before the first.
func (w *lockWaiters) epoch(shard int) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.epochs[shard]
}

// newEpoch reports whether the server has forgotten the queues of a shard.
func (w *lockWaiters) newEpoch(shard int, epoch string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.epochs[shard]
	w.epochs[shard] = epoch
	return before != "" && before != epoch
}

// awaited are the resources waited for, by shard.
func (w *lockWaiters) awaited() map[int][]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	byShard := map[int][]string{}
	for resource := range w.queues {
		shard := shardOf(resource)
		byShard[shard] = append(byShard[shard], resource)
	}
	return byShard
}

func nudge(turn chan *pushedGrant, pushed *pushedGrant) {
	select {
	case turn <- pushed:
	default: // it has been told already
	}
}

// passedOn wakes the next holder if it waits in this instance; others are told by
// a message.
func (l *Locker) passedOn(got lockReply) {
	if instance, grant, ok := strings.Cut(got.extra, " "); ok && instance == l.instance {
		l.waiters.wake(grant)
	}
}

// beats says in each shard where this instance waits that it is alive, every
// 80 ms and when a lock that it waits for can end, and looks every 500 ms whether
// the server still knows the locks it holds. What follows from that may take long
// and is done beside the beats, or those who wait in other shards would count as dead.
func (l *Locker) beats(ctx context.Context) {
	beat := time.NewTimer(0)
	defer beat.Stop()
	var last time.Time
	var seen [lockShards]lockSigns
	var upkeep errgroup.Group
	upkeep.SetLimit(1)
	defer func() { _ = upkeep.Wait() }()
	for round := 0; ; {
		start := time.Now()
		awaited := l.waiters.awaited()
		var held [lockShards]bool
		due, all := start.Sub(last) >= holdingBeat, false
		if due {
			last = start
			l.tellExpired(start)
			held = l.table.shards(start)
			round++
			all = round%sweepBeat == 0
		}
		news, soonest := l.beatShards(ctx, awaited, held, all)
		upkeep.TryGo(func() error { // what has to wait for the one before is found again by the next beats
			l.follow(ctx, news, &seen)
			if due {
				l.catchUp(ctx)
			}
			return nil
		})
		beat.Reset(min(waitingBeat-time.Since(start), soonest))
		select {
		case <-beat.C:
		case <-ctx.Done():
			return
		}
	}
}

// tellExpired tells of the grants made without Redis that have ended; of the
// others the scripts tell.
func (l *Locker) tellExpired(now time.Time) {
	for _, lock := range l.table.expire(now) {
		l.events.tellOwn(models.LockExpired, lock)
	}
}

// shardNews is what a beat was answered about a shard.
type shardNews struct {
	heard bool
	epoch string
	held  bool // this instance holds locks there
	signs lockSigns
}

func (l *Locker) beatShards(ctx context.Context, awaited map[int][]string, held [lockShards]bool, all bool) (news [lockShards]shardNews, soonest time.Duration) {
	var group errgroup.Group
	var ends [lockShards]time.Duration
	for shard := range lockShards {
		ends[shard] = waitingBeat
		if len(awaited[shard]) == 0 && !held[shard] && !all {
			continue
		}
		group.Go(func() error {
			lost := l.redis.LostConnections()
			epoch, forced, end, err := l.beat(ctx, shard, awaited[shard])
			if err != nil { // the waiters fall back to the instance's own table, or fail
				l.waiters.wakeAll(shard)
				return nil
			}
			ends[shard] = end
			news[shard] = shardNews{heard: true, epoch: epoch, held: held[shard], signs: lockSigns{forced, lost}}
			l.table.heardEpoch(shard, epoch)
			if len(awaited[shard]) > 0 && l.waiters.epoch(shard) != epoch && len(l.table.forgotten(time.Now(), map[int]string{shard: epoch})[shard]) == 0 &&
				l.waiters.newEpoch(shard, epoch) {
				l.waiters.wakeAll(shard) // they queue anew, behind the holders
			}
			return nil
		})
	}
	_ = group.Wait()
	return news, slices.Min(ends[:])
}

// follow does what the beats' answers call for: it claims the locks that the server
// has forgotten, and looks after leases until it has seen all of a shard.
func (l *Locker) follow(ctx context.Context, news [lockShards]shardNews, seen *[lockShards]lockSigns) {
	epochs := map[int]string{}
	for shard, now := range news {
		if now.heard {
			epochs[shard] = now.epoch
		}
	}
	if len(epochs) == 0 {
		return
	}
	for _, forgotten := range l.table.forgotten(time.Now(), epochs) {
		l.claimAll(ctx, forgotten)
	}
	var group errgroup.Group
	for shard := range epochs {
		now := news[shard]
		group.Go(func() error {
			if now.held && now.signs != seen[shard] && l.lookAfter(ctx, shard) == nil {
				seen[shard] = now.signs
			}
			return nil
		})
	}
	_ = group.Wait()
}

// beat is one word about a shard, whose answer the waiters learn. soonest is when to look again for a lock that
// ends before the next.
func (l *Locker) beat(ctx context.Context, shard int, awaited []string) (epoch, forced string, soonest time.Duration, err error) {
	waits := "0"
	if len(awaited) > 0 {
		waits = "1"
	}
	epoch = ""
	if l.table.epoch(shard) != "" {
		epoch = random128()
	}
	sent := time.Now()
	msg, err := l.redis.Exec(ctx, l.scripts.beat, l.keys.in(shard, "")[:3], append([]string{l.instance, waits, epoch}, awaited...))
	if err != nil {
		return "", "", 0, err
	}
	answer, err := msg.AsStrSlice()
	if err != nil || len(answer) < 4 {
		return "", "", 0, fmt.Errorf("read beat of %d fields: %w: %w", len(answer), models.ErrUnavailable, err)
	}
	if now, err := strconv.ParseInt(answer[2], 10, 64); err == nil {
		l.clock.heard(time.Now(), now)
	}
	soonest = waitingBeat
	if left, err := strconv.Atoi(answer[3]); err == nil {
		soonest = max(time.Duration(left+1)*time.Millisecond, soonestBeat)
	}
	for _, grant := range answer[4:] {
		l.waiters.wake(grant)
	}
	mark := markOf(sent, answer[0])
	if waits == "1" {
		l.waiters.mark(shard, mark)
	}
	return mark.epoch, answer[1], soonest, nil
}
