package services

import (
	"context"
	"errors"
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

// sessionActivity knows when this instance last saw each session, and which of
// that the database does not know yet. A row is written at most once per
// interval: at once when what it says is older, else when the interval is over.
type sessionActivity struct {
	idle      time.Duration
	interval  time.Duration
	precision time.Duration // of what is known: later activity is the same
	wake      chan struct{}

	mu   sync.Mutex
	seen map[string]*seenSession // each is in exactly one of the queues
	// urgent are to be written now; waiting, when due, in that order.
	urgent  []string
	waiting []waitingWrite
}

type seenSession struct{ last, written time.Time }

type waitingWrite struct {
	hash string
	due  time.Time
}

func newSessionActivity(idle time.Duration) *sessionActivity {
	return &sessionActivity{
		idle: idle,
		// A short idle timeout needs writes well before it passes.
		interval:  min(max(maxActivityInterval, idle/10), idle/4),
		precision: min(time.Second, idle/1000),
		wake:      make(chan struct{}, 1),
		seen:      map[string]*seenSession{},
	}
}

// Seen notes that a session, as Get returned it, was used now. It does no I/O and
// never blocks: the database is told in the background, at most once per
// max(60 s, idle/10) and session (idle/4 for short idle timeouts). A session that
// this instance has seen within the idle timeout is not ended by it, to a second or,
// if that is less, a thousandth of it.
func (c *SessionCache) Seen(s models.Session) {
	now := time.Now()
	if now.Sub(s.LastSeen) < c.activity.precision || !s.Live(now) {
		return
	}
	if key, ok := keyOfHash(s.Hash); ok {
		if held := c.memory.get(key); held != nil && !held.sawAt(now.UnixMicro(), c.activity.precision) {
			return
		}
	}
	c.activity.note(s, now)
}

func (a *sessionActivity) note(s models.Session, at time.Time) {
	now := atMicrosecond(at)
	a.mu.Lock()
	defer a.mu.Unlock()
	if known, ok := a.seen[s.Hash]; ok {
		known.last = later(known.last, now)
		return
	}
	a.seen[s.Hash] = &seenSession{last: now, written: s.LastSeen}
	if now.Sub(s.LastSeen) < a.interval {
		a.waiting = append(a.waiting, waitingWrite{s.Hash, at.Add(a.interval)})
		return
	}
	a.urgent = append(a.urgent, s.Hash)
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// applyTo adds to a session what this instance has seen of it.
func (a *sessionActivity) applyTo(s models.Session) models.Session {
	a.mu.Lock()
	defer a.mu.Unlock()
	if known, ok := a.seen[s.Hash]; ok && known.last.After(s.LastSeen) {
		s.LastSeen = known.last
		s.IdleAt = later(s.IdleAt, known.last.Add(a.idle))
	}
	return s
}

// asOf is the time at which a row must have been live to be so now: a session
// seen here within the idle timeout may look idle in the database.
func (a *sessionActivity) asOf(hash string, now time.Time) time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	if known, ok := a.seen[hash]; ok && known.last.Before(now) && now.Before(known.last.Add(a.idle)) {
		return known.last
	}
	return now
}

// lastSeenAt is when this instance last saw a session, in Unix microseconds; 0 if
// the row says it all.
func (a *sessionActivity) lastSeenAt(hash string) int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if known, ok := a.seen[hash]; ok {
		return known.last.UnixMicro()
	}
	return 0
}

func (a *sessionActivity) remove(hash string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.seen, hash)
}

// next are sessions to be written now, or how long to wait for one.
func (a *sessionActivity) next(now time.Time) (due []models.Activity, wait time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	take := func(hash string, known *seenSession) {
		due = append(due, models.Activity{Hash: hash, LastSeen: known.last, IdleAt: known.last.Add(a.idle)})
	}
	for len(a.urgent) > 0 && len(due) < activityBatch {
		hash := a.urgent[0]
		a.urgent = a.urgent[1:]
		if known, ok := a.seen[hash]; ok {
			take(hash, known)
		}
	}
	for len(a.waiting) > 0 && len(due) < activityBatch && !now.Before(a.waiting[0].due) {
		hash := a.waiting[0].hash
		a.waiting = a.waiting[1:]
		known, ok := a.seen[hash]
		switch {
		case ok && known.last.After(known.written):
			take(hash, known)
		case ok: // not used since it was written: the row says it all
			delete(a.seen, hash)
		}
	}
	if len(a.waiting) > 0 {
		return due, max(0, a.waiting[0].due.Sub(now))
	}
	return due, a.interval
}

// lastSeen is what to write.
func (a *sessionActivity) lastSeen(hash string) (time.Time, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	known, ok := a.seen[hash]
	if !ok {
		return time.Time{}, false
	}
	return known.last, true
}

// wrote notes that the row says last, and looks again after the interval.
func (a *sessionActivity) wrote(hash string, last, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if known, ok := a.seen[hash]; ok {
		known.written = later(known.written, last)
		a.waiting = append(a.waiting, waitingWrite{hash, now.Add(a.interval)})
	}
}

func (a *sessionActivity) again(failed []models.Activity) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, seen := range failed {
		a.urgent = append(a.urgent, seen.Hash)
	}
}

// ahead reports whether this instance has seen the session later than its row says.
func (a *sessionActivity) ahead(hash string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	known, ok := a.seen[hash]
	return ok && known.last.After(known.written)
}

// unwritten are the sessions whose row is behind.
func (a *sessionActivity) unwritten() []models.Activity {
	a.mu.Lock()
	defer a.mu.Unlock()
	var behind []models.Activity
	for hash, known := range a.seen {
		if known.last.After(known.written) {
			behind = append(behind, models.Activity{Hash: hash, LastSeen: known.last, IdleAt: known.last.Add(a.idle)})
		}
	}
	return behind
}

// writeActivity keeps the rows up to date until ctx ends.
func (c *SessionCache) writeActivity(ctx context.Context) {
	for {
		due, wait := c.activity.next(time.Now())
		wake := c.activity.wake
		if len(due) > 0 {
			failed := c.touchAll(ctx, due)
			if len(failed) == 0 {
				continue
			}
			c.activity.again(failed)
			wait, wake = activityRetry, nil // new activity does not make the database come back
		}
		select {
		case <-wake:
			wait = activityGather // others come with it
		case <-time.After(wait):
			continue
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// touchAll writes activity, all of it in one write, and returns what is to be
// tried again.
func (c *SessionCache) touchAll(ctx context.Context, seen []models.Activity) (failed []models.Activity) {
	written, err := c.store.TouchSessions(ctx, seen)
	if err != nil {
		return seen
	}
	now, done := time.Now(), make(map[string]bool, len(written))
	for _, hash := range written {
		done[hash] = true
	}
	for _, one := range seen {
		if done[one.Hash] {
			c.activity.wrote(one.Hash, one.LastSeen, now)
		} else if c.touch(ctx, one.Hash) != nil { // it has ended, or somebody was changing it
			failed = append(failed, one)
		}
	}
	return failed
}

// touch writes one session's activity. An error means try again.
func (c *SessionCache) touch(ctx context.Context, hash string) error {
	last, ok := c.activity.lastSeen(hash)
	if !ok {
		return nil
	}
	err := c.store.TouchSession(ctx, hash, last, last.Add(c.activity.idle))
	switch {
	case err == nil:
		c.activity.wrote(hash, last, time.Now())
		return nil
	case errors.Is(err, models.ErrNotFound): // it has ended
		c.activity.remove(hash)
		c.forget(hash)
		return nil
	}
	return fmt.Errorf("write session activity: %w", err)
}

// flushActivity writes what is unwritten, once.
func (c *SessionCache) flushActivity(ctx context.Context) error {
	for batch := range slices.Chunk(c.activity.unwritten(), activityBatch) {
		if failed := c.touchAll(ctx, batch); failed != nil {
			return fmt.Errorf("activity of %d sessions or more is not written: %w", len(failed), models.ErrUnavailable)
		}
	}
	return nil
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// atMicrosecond is t as the database keeps it.
func atMicrosecond(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }
