package store

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"gatehouse/models"
)

// writeRetry is the time between two attempts to find out whether writes work again.
const writeRetry = time.Second

// writeFunc is what a write does, with the context and the querier that it is given. It may run in
// another goroutine than its caller's, which waits for it.
type writeFunc = func(ctx context.Context, q querier) error

// writer runs writes in the order in which they came, each within the timeout and the budget of
// its request. It is *group with SQLite, *pool with PostgreSQL.
type writer interface {
	// one runs a write that changes rows with one statement only.
	one(ctx context.Context, write writeFunc) error
	// all runs a write of several statements: all of them or, if it fails, none.
	all(ctx context.Context, write writeFunc) error
	Close() error
}

// change does a write that changes rows with one statement only.
func (s *Store) change(ctx context.Context, write writeFunc) error {
	return s.noted(ctx, s.write.one(ctx, write))
}

// transact does all of a write or, if it fails, nothing. What WithAudit has is part of it.
//
// Transactions take their row locks in this order, so that none waits for
// another in a circle: admin_guard, users, sessions, revocation_head.
func (s *Store) transact(ctx context.Context, write writeFunc) error {
	audit := auditOf(ctx)
	err := s.write.all(ctx, func(ctx context.Context, q querier) error {
		if audit != nil {
			audit.more, audit.nothing = nil, false // of an attempt that failed
		}
		if err := write(ctx, q); err != nil {
			return err
		}
		return audit.insert(ctx, q)
	})
	if err == nil && audit != nil {
		audit.stored = !audit.nothing
	}
	return s.noted(ctx, err)
}

// result does a write with change or transact, and returns what it returned once it is committed.
func result[T any](ctx context.Context, do func(context.Context, writeFunc) error, write func(ctx context.Context, q querier) (T, error)) (T, error) {
	var value, none T
	err := do(ctx, func(ctx context.Context, q querier) (err error) {
		value, err = write(ctx, q)
		return err
	})
	if err != nil {
		return none, err
	}
	return value, nil
}

// noted takes in how a write ended, unless its caller gave up: that says whether others can be
// done.
func (s *Store) noted(asked context.Context, err error) error {
	if asked.Err() != nil {
		return err
	}
	if refusal(err) == standby && s.reconnect != nil {
		s.reconnect()
	}
	s.writes.note(failed("write", err), time.Now())
	return err
}

// inPlace returns an error, models.ErrNotWritable, if a start would not find what is written: such
// a write must not be acknowledged.
func (s *Store) inPlace() error {
	moved := s.file.check()
	if moved != nil {
		s.writes.broke(moved, time.Now()) // it may be back at any moment
	}
	return moved
}

// writable is nil if writes can be done, as far as that is known from those that were
// made. Only while they cannot does it write something itself now and then, to find
// out when they can again.
func (s *Store) writable(ctx context.Context) error {
	if moved := s.inPlace(); moved != nil {
		return moved
	}
	if s.writes.retryDue(time.Now()) && s.change(ctx, tryWrite) == nil {
		s.writes.mended()
	}
	return s.writes.reason()
}

// tryWrite stores as much as the longest process has, so that it does not work where
// real writes do not.
func tryWrite(ctx context.Context, q querier) error {
	_, err := q.ExecContext(ctx, `INSERT INTO settings (name, value) VALUES ('write_trial', $1)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value`, time.Now().UTC().Format(time.RFC3339Nano)+strings.Repeat(".", models.MaxDescription))
	if refused := refusal(err); refused != "" {
		return &writeError{refused, err}
	}
	return failed("try to write", err)
}

// writeState is whether writes can be done, as the last ones showed.
type writeState struct {
	log      *slog.Logger
	patience time.Duration // so long no write may be answered

	mu         sync.Mutex
	broken     error     // why nothing can be written; nil if nothing is known against it
	retryAt    time.Time // while broken
	brokenAt   time.Time // the last time that a write was refused
	unanswered time.Time // the first write without an answer, if none had one since
}

// note takes in how a write went. What refuses one write refuses all. One
// without an answer may only have waited behind other calls, or for its row.
func (w *writeState) note(err error, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch refused := refusal(err); {
	case refused != "":
		w.breakFor(&writeError{refused, err}, now.Add(writeRetry))
	case errors.Is(err, models.ErrNotWritable): // noted by who found that out
	case err == nil:
		w.unanswered, w.retryAt = time.Time{}, now
	case answered(err):
		w.unanswered = time.Time{}
	case w.unanswered.IsZero() || now.Sub(w.unanswered) > 30*w.patience: // long ago: nothing was tried in between
		w.unanswered = now
	case now.Sub(w.unanswered) >= w.patience:
		w.breakFor(&writeError{"no write is answered", err}, now.Add(writeRetry))
	}
}

// broke notes that nothing can be written, which is worth another look at retryAt.
func (w *writeState) broke(why error, retryAt time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.breakFor(why, retryAt)
}

func (w *writeState) breakFor(why error, retryAt time.Time) {
	if w.broken == nil {
		w.log.Error("the database cannot be written: changes are refused", "error", why)
	}
	w.broken, w.retryAt, w.brokenAt = why, retryAt, time.Now()
}

// workedFor reports whether no write was refused in the last d.
func (w *writeState) workedFor(d time.Duration) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Since(w.brokenAt) >= d
}

// retryDue reports whether to find out now if writes work again.
func (w *writeState) retryDue(now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken == nil || now.Before(w.retryAt) {
		return false
	}
	w.retryAt = now.Add(writeRetry)
	return true
}

// mended notes that writes can be done again.
func (w *writeState) mended() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken != nil {
		w.log.Info("the database can be written again")
	}
	w.broken, w.unanswered = nil, time.Time{}
}

// reason is why nothing can be written, nil if nothing is known against it.
func (w *writeState) reason() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.broken
}
