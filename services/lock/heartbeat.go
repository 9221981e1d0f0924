package lock

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"gatehouse/models"
)

const (
	waitingHeartbeat = 80 * time.Millisecond  // for shards in which this instance waits
	soonestHeartbeat = 5 * time.Millisecond   // after another, when a lock ends
	holdingHeartbeat = 500 * time.Millisecond // for shards in which it only holds locks
	sweepHeartbeat   = 4                      // every so many of these go to all shards: an instance may have crashed
)

// heartbeats sends heartbeats until ctx ends. Those to shards where this instance waits say
// that it is alive, every 80 ms and when a lock that it waits for can end. Those to shards
// where it only holds locks, every 500 ms, find out whether the server still knows them. The
// work that follows from an answer may take long, and is done beside the heartbeats: else
// waiters in other shards would count as dead.
func (l *Locker) heartbeats(ctx context.Context) {
	next := time.NewTimer(0)
	defer next.Stop()
	var last time.Time
	var upkeep errgroup.Group
	upkeep.SetLimit(1)
	defer func() { _ = upkeep.Wait() }()
	for round := 0; ; {
		start := time.Now()
		awaited := l.waiters.awaited()
		var held [shardCount]bool
		due, all := start.Sub(last) >= holdingHeartbeat, false
		if due {
			last = start
			l.publishExpired(start)
			held = l.table.shards(start)
			round++
			all = round%sweepHeartbeat == 0
		}
		heard, soonest := l.heartbeatAll(ctx, func(shard int) (send bool, resources []string) {
			return all || held[shard] || len(awaited[shard]) > 0, awaited[shard]
		})
		upkeep.TryGo(func() error { // while the one before runs, the next heartbeats find the same again
			l.follow(ctx, heard, held)
			if due {
				l.catchUp(ctx)
			}
			return nil
		})
		next.Reset(min(waitingHeartbeat-time.Since(start), soonest))
		select {
		case <-next.C:
		case <-ctx.Done():
			return
		}
	}
}

// publishExpired publishes the end of the grants made without Redis; of the others
// the scripts do.
func (l *Locker) publishExpired(now time.Time) {
	for _, lock := range l.table.expire(now) {
		l.events.publishOwn(models.LockExpired, lock)
		ended := models.EndedLock{Grant: lock.Grant, Resource: lock.Resource, Holder: lock.Holder, Fence: lock.Fence}
		l.opt.Ended(byItself(ended, lock.ExpiresAt))
	}
}

// heartbeatAll sends the heartbeats of all shards at once, and returns those answered.
func (l *Locker) heartbeatAll(ctx context.Context, in func(shard int) (send bool, resources []string)) (heard map[int]leaseSigns, soonest time.Duration) {
	heard, soonest = map[int]leaseSigns{}, waitingHeartbeat
	var mu sync.Mutex
	var group errgroup.Group
	for shard := range shardCount {
		send, awaited := in(shard)
		if !send {
			continue
		}
		group.Go(func() error {
			signs, next, err := l.heartbeat(ctx, shard, awaited)
			if err != nil { // the waiters fall back to the instance's own table, or fail
				l.waiters.wakeAll(shard)
				return nil
			}
			if len(awaited) > 0 && l.queueForgotten(shard) {
				l.waiters.wakeAll(shard) // they queue anew, behind the holders
			}
			mu.Lock()
			defer mu.Unlock()
			heard[shard], soonest = signs, min(soonest, next)
			return nil
		})
	}
	_ = group.Wait()
	return heard, soonest
}

// queueForgotten reports, once, that the server has forgotten the queues of a shard. While
// it does not know this instance's own locks there again, that can wait.
func (l *Locker) queueForgotten(shard int) (forgotten bool) {
	state := l.shards.get(shard)
	if state.queuedIn == state.epoch || len(l.table.forgotten(time.Now(), map[int]string{shard: state.epoch})) > 0 {
		return false
	}
	l.shards.change(shard, func(s *shardState) {
		forgotten = s.queuedIn != "" && s.queuedIn != state.epoch
		s.queuedIn = state.epoch
	})
	return forgotten
}

// follow does what the answers to heartbeats call for: it reasserts the locks that the
// server has forgotten, and verifies leases until Redis has answered about all of a shard.
func (l *Locker) follow(ctx context.Context, heard map[int]leaseSigns, held [shardCount]bool) {
	epochs := map[int]string{}
	for shard := range heard {
		epochs[shard] = l.shards.get(shard).epoch
	}
	if len(epochs) > 0 && len(l.table.forgotten(time.Now(), epochs)) > 0 { // one look, where mostly there is nothing
		for shard := range heard {
			l.reassertAll(ctx, l.table.forgotten(time.Now(), map[int]string{shard: l.shards.get(shard).epoch}))
		}
	}
	var group errgroup.Group
	for shard, signs := range heard {
		group.Go(func() error {
			if held[shard] && signs != l.shards.get(shard).verified && l.verifyLeases(ctx, shard) == nil {
				l.shards.change(shard, func(s *shardState) { s.verified = signs })
			}
			return nil
		})
	}
	_ = group.Wait()
}

// heartbeat sends one for a shard and wakes the waiters that it brings a grant to. A lock that
// can end before the next heartbeat is due calls for one after soonest.
func (l *Locker) heartbeat(ctx context.Context, shard int, awaited []string) (signs leaseSigns, soonest time.Duration, err error) {
	epoch := ""
	if l.shards.get(shard).epoch != "" {
		epoch = random128()
	}
	signs.lostConnections = l.redis.LostConnections()
	sent := time.Now()
	msg, err := l.redis.Exec(ctx, l.scripts.heartbeat, l.keys.in(shard, "")[:3], append([]string{l.instance, epoch}, awaited...))
	if err != nil {
		return signs, 0, err
	}
	answer, err := msg.AsStrSlice()
	if err != nil || len(answer) < 4 {
		return signs, 0, fmt.Errorf("read heartbeat of %d fields: %w: %w", len(answer), models.ErrUnavailable, err)
	}
	if now, err := strconv.ParseInt(answer[2], 10, 64); err == nil {
		l.clock.observe(time.Now(), now)
	}
	soonest = waitingHeartbeat
	if left, err := strconv.Atoi(answer[3]); err == nil {
		soonest = max(time.Duration(left+1)*time.Millisecond, soonestHeartbeat)
	}
	signs.forced = answer[1]
	l.shards.change(shard, func(s *shardState) {
		fence, epoch, ok := readShard(answer[0])
		s.observe(epoch)
		if ok && len(awaited) > 0 { // else it did not say that the instance is alive
			s.watermark = watermark{highestFence: fence, heardAt: sent}
		}
	})
	for _, told := range answer[4:] {
		if len(told) == epochLength { // a grant's id is as long
			l.waiters.wake(told, nil)
		} else {
			l.leaseEnded(told)
		}
	}
	return signs, soonest, nil
}

// leaseEnded takes in a lease that a heartbeat found to have ended: when, and the grant.
func (l *Locker) leaseEnded(told string) {
	const digits = 13
	if len(told) < digits {
		return
	}
	at, err := strconv.ParseInt(told[:digits], 10, 64)
	if g, ok := readRecord(told[digits:]); ok && err == nil {
		ended := models.EndedLock{Grant: g.grant, Resource: g.resource, Holder: g.holder, Fence: &g.fence}
		l.opt.Ended(byItself(ended, time.UnixMilli(at)))
	}
}

// byItself is a grant whose lease ended by itself.
func byItself(ended models.EndedLock, at time.Time) models.EndedLock {
	ended.End = models.LockEnd{How: models.LockExpired, At: at.UTC()}
	return ended
}
