package store

import (
	"context"
	"log/slog"
	"sync"
)

// writing waits for the caller's turn to write, as pool.turn does. The caller hands
// done its error: what became of this write says whether others can be done, and a
// write that would be lost must not be acknowledged.
func (s *Store) writing(ctx context.Context) (_ context.Context, done func(err *error)) {
	ctx, release := s.write.turn(ctx)
	ctx, refuse := context.WithCancelCause(ctx)
	if moved := s.file.check(); moved != nil {
		refuse(moved) // what is tried with the context fails
	}
	return ctx, func(err *error) {
		if moved := s.file.check(); moved != nil {
			s.writes.broke(moved)
			*err = failed("write", moved)
		}
		refuse(nil)
		release()
	}
}

// writable is nil if writes can be done, as far as that is known.
func (s *Store) writable() error {
	moved := s.file.check()
	if moved == nil {
		s.writes.mended()
		return nil
	}
	s.writes.broke(moved)
	return failed("write", moved)
}

// writeState is whether writes can be done, as was told last.
type writeState struct {
	log *slog.Logger

	mu     sync.Mutex
	broken error // why nothing can be written; nil if nothing is known against it
}

// broke notes that nothing can be written now, and tells of it once.
func (w *writeState) broke(why error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken == nil {
		w.log.Error("the database cannot be written: changes are refused", "error", why)
	}
	w.broken = why
}

// mended notes that writes can be done again.
func (w *writeState) mended() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken != nil {
		w.log.Info("the database can be written again")
	}
	w.broken = nil
}
