package redis

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// deadlines gives calls that begin within a short time of each other one deadline,
// so that a call needs neither a timer nor a context tree of its own. A deadline is
// up to a fiftieth later than asked for.
type deadlines struct {
	timeout, grain time.Duration

	mu     sync.Mutex
	newest atomic.Pointer[deadline]
}

type deadline struct {
	joinable time.Time // calls that begin later take the next one
	at       time.Time
	passed   chan struct{}
}

func newDeadlines(timeout time.Duration) *deadlines {
	return &deadlines{timeout: timeout, grain: max(timeout/50, time.Millisecond)}
}

// under is ctx with the deadline of a call that begins now. It does not end when
// ctx is cancelled: the call is over soon in any case.
func (d *deadlines) under(ctx context.Context, now time.Time) context.Context {
	current := d.newest.Load()
	if current == nil || now.After(current.joinable) {
		current = d.open(now)
	}
	return deadlineContext{ctx, current}
}

func (d *deadlines) open(now time.Time) *deadline {
	d.mu.Lock()
	defer d.mu.Unlock()
	if current := d.newest.Load(); current != nil && !now.After(current.joinable) {
		return current
	}
	opened := &deadline{joinable: now.Add(d.grain), at: now.Add(d.grain + d.timeout), passed: make(chan struct{})}
	time.AfterFunc(d.grain+d.timeout, func() { close(opened.passed) })
	d.newest.Store(opened)
	return opened
}

// deadlineContext has the values of one context and the end of another.
type deadlineContext struct {
	context.Context //nolint:containedctx // it is a context itself
	deadline        *deadline
}

func (c deadlineContext) Deadline() (time.Time, bool) { return c.deadline.at, true }

func (c deadlineContext) Done() <-chan struct{} { return c.deadline.passed }

func (c deadlineContext) Err() error {
	select {
	case <-c.deadline.passed:
		return context.DeadlineExceeded
	default:
		return nil
	}
}
