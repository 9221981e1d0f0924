package store

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"gatehouse/models"
)

// writeRetry is the time between two attempts to find out whether writes work again.
const writeRetry = time.Second

// writing waits for the caller's turn to write, as pool.turn does. The caller hands
// done its error: what became of this write says whether others can be done, and a
// write that would be lost must not be acknowledged.
func (s *Store) writing(ctx context.Context) (_ context.Context, done func(err *error)) {
	asked := ctx
	ctx, release := s.write.turn(ctx)
	ctx, refuse := context.WithCancelCause(ctx)
	if moved := s.file.check(); moved != nil {
		refuse(moved) // what is tried with the context fails
	}
	return ctx, func(err *error) {
		refuse(nil)
		release()
		if moved := s.file.check(); moved != nil {
			s.writes.broke(moved, time.Now()) // it may be back at any moment
			*err = failed("write", moved)
		} else if asked.Err() == nil { // else the caller gave up
			s.noteWrite(*err)
		}
	}
}

// noteWrite takes in how a write went.
func (s *Store) noteWrite(err error) {
	if refusal(err) == standby && s.reconnect != nil {
		s.reconnect()
	}
	s.writes.note(err, time.Now())
}

// writable is nil if writes can be done, as far as that is known from those that were
// made. Only while they cannot does it write something itself now and then, to find
// out when they can again.
func (s *Store) writable(ctx context.Context) error {
	if moved := s.file.check(); moved != nil {
		s.writes.broke(moved, time.Now())
		return moved
	}
	if s.writes.retryDue(time.Now()) && s.tryWrite(ctx) == nil {
		s.writes.mended()
	}
	return s.writes.reason()
}

// tryWrite stores as much as the longest process has, so that it does not work where
// real writes do not.
func (s *Store) tryWrite(ctx context.Context) (err error) {
	ctx, done := s.writing(ctx)
	defer done(&err)
	return s.trial(ctx)
}

func (s *Store) trial(ctx context.Context) error {
	_, err := s.write.ExecContext(ctx, `INSERT INTO settings (name, value) VALUES ('write_trial', $1)
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
	w.broken, w.retryAt = why, retryAt
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
