package services

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"gatehouse/models"
)

const (
	tailInterval = time.Second      // between two polls without a hint
	tailTrust    = 2 * time.Second  // counted from before the query was sent
	tailHeld     = 15 * time.Minute // older entries are forgotten
	tailMaxHeld  = 100_000          // entries; beyond it the oldest are forgotten early
)

// revocationLog is where the tail reads from. *store.Store is one. Its numbers
// have no gaps and grow in commit order.
type revocationLog interface {
	Revocations(ctx context.Context, after int64) (models.RevocationTail, error)
	RevocationsSince(ctx context.Context, at time.Time) (models.RevocationTail, error)
}

// revocationTail is one instance's view of the revocation log. It says whether a
// copy of a session, made at an earlier position, still counts. It holds the
// entries of the last 15 min; a copy older than that, or made while the log was
// further than it is now (a restored database), does not count.
//
// It is trusted for 2 s, by the monotonic clock, from the instant before the last
// answered query was sent. Untrusted, no copy counts, and who asks must read the
// database.
type revocationTail struct {
	log    revocationLog
	logger *slog.Logger
	turn   chan struct{} // one poll at a time
	woken  chan struct{}

	mu        sync.RWMutex
	loaded    bool
	applied   int64 // position: every entry up to it is known or forgotten
	heldFrom  int64 // every entry after it is held
	entries   []heldRevocation
	bySession map[string]int64 // session hash -> its last entry
	byUser    map[string]int64
	everybody int64
	sentAt    time.Time // before the last answered query
	notBefore time.Time // queries sent earlier prove nothing
	failing   bool
}

type heldRevocation struct {
	models.Revocation
	since time.Time // when this instance learnt of it
}

func newRevocationTail(log revocationLog, logger *slog.Logger) *revocationTail {
	t := &revocationTail{log: log, logger: logger, turn: make(chan struct{}, 1), woken: make(chan struct{}, 1)}
	t.reset(0)
	return t
}

// run polls until ctx ends.
func (t *revocationTail) run(ctx context.Context) {
	ticker := time.NewTicker(tailInterval)
	defer ticker.Stop()
	for {
		t.turn <- struct{}{} // a poll is bounded by the database's timeout
		err := t.poll(ctx)
		<-t.turn
		if ctx.Err() == nil {
			t.tell(err)
		}
		select {
		case <-ticker.C:
		case <-t.woken:
		case <-ctx.Done():
			return
		}
	}
}

// poke asks for a poll soon. It never blocks.
func (t *revocationTail) poke() {
	select {
	case t.woken <- struct{}{}:
	default: // one is asked for already
	}
}

// position is what a copy is stamped with: it must be read before the row is.
// False until the log was read for the first time.
func (t *revocationTail) position() (int64, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.applied, t.loaded
}

// counts reports whether a copy made at position pos of the session with that
// hash and user ("" is nobody) may be used now.
func (t *revocationTail) counts(pos int64, hash, userID string, now time.Time) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.trusted(now) && pos >= t.heldFrom && pos <= t.applied &&
		t.everybody <= pos && t.bySession[hash] <= pos && t.byUser[userID] <= pos
}

func (t *revocationTail) isTrusted(now time.Time) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.trusted(now)
}

func (t *revocationTail) trusted(now time.Time) bool {
	return t.loaded && !t.sentAt.Before(t.notBefore) && now.Sub(t.sentAt) < tailTrust
}

// catchUp returns when everything committed before the call is applied. If it
// fails, no copy counts until a later poll succeeds.
func (t *revocationTail) catchUp(ctx context.Context) error {
	asked := time.Now()
	select {
	case t.turn <- struct{}{}:
	case <-ctx.Done():
		t.distrust()
		return fmt.Errorf("catch up with the revocation log: %w: %w", models.ErrUnavailable, context.Cause(ctx))
	}
	defer func() { <-t.turn }()
	if t.askedAfter(asked) {
		return nil // the poll we waited for was sent late enough
	}
	if err := t.poll(ctx); err != nil {
		t.distrust()
		return fmt.Errorf("catch up with the revocation log: %w", err)
	}
	return nil
}

func (t *revocationTail) askedAfter(at time.Time) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.loaded && t.sentAt.After(at)
}

func (t *revocationTail) distrust() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.notBefore = time.Now()
}

// poll reads on in the log. The caller has the turn.
func (t *revocationTail) poll(ctx context.Context) error {
	after, loaded := t.position()
	if loaded {
		sent := time.Now()
		tail, err := t.log.Revocations(ctx, after)
		if err != nil {
			return err
		}
		if tail.Head >= after {
			t.apply(tail, sent, false)
			return nil
		}
		t.logger.Warn("the revocation log went back: was the database restored?", "from", after, "to", tail.Head)
	}
	sent := time.Now()
	tail, err := t.log.RevocationsSince(ctx, sent.Add(-tailHeld))
	if err != nil {
		return err
	}
	t.apply(tail, sent, true)
	return nil
}

// reset forgets every entry, so that only copies made from position on count.
func (t *revocationTail) reset(position int64) {
	t.applied, t.heldFrom, t.everybody = position, position, 0
	t.entries, t.bySession, t.byUser = nil, map[string]int64{}, map[string]int64{}
}

// apply takes in what a query sent at sent returned: what came after the last
// position or, anew, the recent part of the log.
func (t *revocationTail) apply(tail models.RevocationTail, sent time.Time, anew bool) {
	news, from := gapless(tail)
	t.mu.Lock()
	defer t.mu.Unlock()
	if anew || from > t.applied { // or entries are missing in between: only what comes from here on is known
		t.reset(from)
	}
	for _, r := range news {
		if r.Seq <= t.applied {
			continue
		}
		t.entries = append(t.entries, heldRevocation{r, sent})
		t.applied = r.Seq
		switch {
		case r.SessionHash != "":
			t.bySession[r.SessionHash] = r.Seq
		case r.UserID != "":
			t.byUser[r.UserID] = r.Seq
		default:
			t.everybody = r.Seq
		}
	}
	t.loaded, t.sentAt = true, sent
	t.forget(sent)
}

// gapless returns the entries that lead to the head without a gap, and the
// position before them.
func gapless(tail models.RevocationTail) (entries []models.Revocation, from int64) {
	from = tail.Head
	if n := len(tail.Entries); n > 0 {
		from = max(from, tail.Entries[n-1].Seq)
	}
	first := len(tail.Entries)
	for first > 0 && tail.Entries[first-1].Seq == from {
		first--
		from--
	}
	return tail.Entries[first:], from
}

// forget drops entries older than what is held.
func (t *revocationTail) forget(now time.Time) {
	for len(t.entries) > 0 && (len(t.entries) > tailMaxHeld || now.Sub(t.entries[0].since) > tailHeld) {
		old := t.entries[0]
		t.entries = t.entries[1:]
		t.heldFrom = old.Seq
		if t.bySession[old.SessionHash] == old.Seq {
			delete(t.bySession, old.SessionHash)
		}
		if t.byUser[old.UserID] == old.Seq {
			delete(t.byUser, old.UserID)
		}
	}
}

// tell logs one line per change of state.
func (t *revocationTail) tell(err error) {
	failed := err != nil
	if failed == t.failing {
		return
	}
	t.failing = failed
	if failed {
		t.logger.Warn("the revocation log cannot be read: sessions are read from the database", "error", err)
		return
	}
	t.logger.Info("the revocation log is read")
}
