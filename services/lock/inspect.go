package lock

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"gatehouse/models"
)

// Inspect is Status with the requests that wait, of all instances, first come first: at most so
// many of them. A waiter of a crashed instance goes from the queue 10 s later. Without Redis (open)
// it returns what this instance knows: its own waiters, and only those for a lock that it knows to
// be held.
func (l *Locker) Inspect(ctx context.Context, resource string, most int) (models.LockStatus, []models.LockWaiter, error) {
	got, err := l.run(ctx, l.scripts.queue, resource, strconv.Itoa(most))
	if err == nil {
		return got.status(resource), got.queue, nil
	}
	if !l.mayDegrade(err) {
		return models.LockStatus{}, nil, fmt.Errorf("inspect the lock of %s: %w", resource, err)
	}
	status, queue := l.table.inspect(time.Now(), resource)
	return status, queue[:min(most, len(queue))], nil
}

// inspect is status with the queue, without the waiters that have left without a word.
func (t *localTable) inspect(now time.Time, resource string) (models.LockStatus, []models.LockWaiter) {
	t.mu.Lock()
	defer t.mu.Unlock()
	status := models.LockStatus{Resource: resource, Degraded: true}
	l := t.live(now, resource)
	if l == nil {
		return status, nil
	}
	status = l.status(now)
	var queue []models.LockWaiter
	for _, w := range l.queue {
		if now.Sub(w.seen) <= waiterAlive {
			queue = append(queue, models.LockWaiter{By: models.UserRef{ID: w.holder.UserID, Email: w.holder.Email}, Since: w.holder.Since})
		}
	}
	status.Waiting = len(queue)
	return status, queue
}

// readWaiters reads pairs of an arrival, in microseconds, and of a grant's text without fence and
// since. One that cannot be read is left out.
func readWaiters(pairs []string) (queue []models.LockWaiter) {
	for i := 0; i+1 < len(pairs); i += 2 {
		arrival, err := strconv.ParseInt(pairs[i], 10, 64)
		g, ok := readRecord(noFence + pairs[i+1])
		if err == nil && ok {
			queue = append(queue, models.LockWaiter{By: models.UserRef{ID: g.holder.UserID, Email: g.holder.Email}, Since: time.UnixMicro(arrival).UTC()})
		}
	}
	return queue
}
