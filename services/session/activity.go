package session

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"gatehouse/models"
)

const (
	maxActivityInterval = time.Minute
	activityRetry       = time.Second // after a write that the database refused
	activityBatch       = 500         // sessions in one write
	activityGather      = 50 * time.Millisecond
)

// activity is the set of sessions that were used and whose rows do not say so yet.
//
// A row that is written at t says that the session lives until t + idle + interval. It is
// written again when the session is used after t + interval. So a session ends at most one
// interval late, and no instance ends it early, even if the one that served it has crashed.
type activity struct {
	idle     time.Duration
	interval time.Duration
	wake     chan struct{}

	mu       sync.Mutex
	lastSeen map[string]time.Time // by hash
	// since has the first use that is not written. If writes fail for longer than the idle timeout,
	// the row looks idle at the last use, but not at the first, and each one found a live session.
	since map[string]time.Time
	// written has the uses stored in rows within this interval, older those of the one before:
	// a copy in Redis may be older than they are.
	written, older map[string]time.Time
	rotated        time.Time
}

func newActivity(idle time.Duration) *activity {
	return &activity{
		idle:     idle,
		interval: min(maxActivityInterval, idle/10),
		wake:     make(chan struct{}, 1),
		lastSeen: map[string]time.Time{},
		since:    map[string]time.Time{},
		written:  map[string]time.Time{},
	}
}

// used is what is stored in the row of a session that was used at that time.
func (a *activity) used(hash string, at time.Time) models.Activity {
	at = atMicrosecond(at)
	return models.Activity{Hash: hash, Since: at, LastSeen: at, IdleAt: at.Add(a.idle + a.interval)}
}

// due is what is to be written of a session that is in lastSeen. It is called with a.mu held.
func (a *activity) due(hash string) models.Activity {
	used := a.used(hash, a.lastSeen[hash])
	used.Since = a.since[hash]
	return used
}

// Touch records that a session, as Get returned it, was used now. It does no I/O and never
// blocks. The row is written in the background, at most once a minute, or once in a tenth of
// the idle timeout if that is less. Session.LastSeen is behind by as much, and the session ends
// by as much late, never early. Without the database the write is tried until Close.
func (c *Cache) Touch(s models.Session) {
	now := time.Now()
	if s.IdleAt.After(now.Add(c.activity.idle)) || !s.Live(now) {
		return
	}
	used := c.activity.record(s.Hash, now)
	if key, ok := keyOfHash(s.Hash); ok {
		if held := c.memory.get(key); held != nil {
			held.used(used.LastSeen, used.IdleAt)
		}
	}
}

func (a *activity) record(hash string, at time.Time) models.Activity {
	used := a.used(hash, at)
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.lastSeen[hash]; !ok {
		a.since[hash] = used.Since
	}
	a.lastSeen[hash] = used.LastSeen
	a.wakeUp()
	return used
}

func (a *activity) wakeUp() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// of is what is to be written of a session, if anything is.
func (a *activity) of(hash string) (models.Activity, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, ok := a.lastSeen[hash]
	return a.due(hash), ok
}

// last is what this instance knows of the use of a session, written or not.
func (a *activity) last(hash string) (models.Activity, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, known := range []map[string]time.Time{a.lastSeen, a.written, a.older} {
		if at, ok := known[hash]; ok {
			return a.used(hash, at), true
		}
	}
	return models.Activity{}, false
}

// unwritten is all that is to be written.
func (a *activity) unwritten() []models.Activity {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make([]models.Activity, 0, len(a.lastSeen))
	for hash := range a.lastSeen {
		all = append(all, a.due(hash))
	}
	return all
}

// remove takes out what was written, unless the session was used again since.
func (a *activity) remove(written models.Activity) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch at, ok := a.lastSeen[written.Hash]; {
	case at.Equal(written.LastSeen):
		delete(a.lastSeen, written.Hash)
		delete(a.since, written.Hash)
	case ok:
		a.since[written.Hash] = written.LastSeen // the row is live at what it has itself
	}
	a.written[written.Hash] = written.LastSeen
	if now := time.Now(); now.Sub(a.rotated) > a.interval {
		a.older, a.written, a.rotated = a.written, map[string]time.Time{}, now
	}
}

// writeActivity is the one writer: it brings the rows up to date until ctx ends.
func (c *Cache) writeActivity(ctx context.Context) {
	wait := activityGather // more sessions come with it
	for {
		select {
		case <-c.activity.wake:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		wait = activityGather
		if c.flushActivity(ctx) != nil {
			wait = activityRetry
			c.activity.wakeUp()
		}
	}
}

// flushActivity writes all that is unwritten.
func (c *Cache) flushActivity(ctx context.Context) error {
	for batch := range slices.Chunk(c.activity.unwritten(), activityBatch) {
		if err := c.writeUsed(ctx, batch...); err != nil {
			return err
		}
	}
	return nil
}

// writeUsed brings rows up to date. An error means try again.
func (c *Cache) writeUsed(ctx context.Context, batch ...models.Activity) error {
	written, err := c.database.TouchSessions(ctx, batch)
	if err != nil {
		return fmt.Errorf("write session activity: %w", err)
	}
	for _, used := range batch {
		switch {
		case slices.Contains(written, used.Hash):
			c.activity.remove(used)
		case len(batch) == 1: // it has ended
			c.activity.remove(used)
			c.forget(used.Hash)
		default: // it has ended, or another transaction is changing it
			if err := c.writeUsed(ctx, used); err != nil {
				return err
			}
		}
	}
	return nil
}

// flushOne brings the row of one session up to date: it may only look idle.
func (c *Cache) flushOne(ctx context.Context, hash string) error {
	if used, ok := c.activity.of(hash); ok {
		return c.writeUsed(ctx, used)
	}
	return nil
}

// atMicrosecond is t as the database keeps it.
func atMicrosecond(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }
