package session

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"gatehouse/models"
)

const (
	tailInterval = time.Second      // between two polls without a hint
	tailTrust    = 2 * time.Second  // counted from before the query was sent
	tailHeld     = 15 * time.Minute // older entries are forgotten
	tailMaxHeld  = 100_000          // entries; beyond it the oldest are forgotten early
)

// revocationLog is what a tail needs of a SessionDatabase.
type revocationLog interface {
	Revocations(ctx context.Context, after int64, since time.Time) (models.RevocationTail, error)
	NoteChange(ctx context.Context, hash string) error
}

// revocationTail is one instance's view of the revocation log. It says whether a
// copy of a session, made at an earlier position, still counts. It holds the
// entries of the last 15 min; a copy older than that, or made in another history of
// the log (a restored database), does not count. Who finds the log restored writes
// an entry that ends every copy: rows that copies were made from may be gone.
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
	applied   logPosition      // every entry up to it is known or forgotten
	heldFrom  logPosition      // every entry after it is held
	entries   []heldRevocation // without a gap, from heldFrom to applied
	bySession map[string]int64 // session hash -> its last entry
	byUser    map[string]int64
	everybody int64
	sentAt    time.Time // before the last answered query
	notBefore time.Time // queries sent earlier prove nothing

	state   atomic.Pointer[tailState] // of the above, for vouches: it takes no lock
	failing bool                      // as told last; only run uses it
}

// tailState changes its version with every change of what counts.
type tailState struct {
	version uint64
	until   time.Time // trusted so long
}

type heldRevocation struct {
	models.Revocation
	since time.Time // when this instance learnt of it
}

func newRevocationTail(log revocationLog, logger *slog.Logger) *revocationTail {
	t := &revocationTail{log: log, logger: logger, turn: make(chan struct{}, 1), woken: make(chan struct{}, 1)}
	t.state.Store(&tailState{})
	t.reset(logPosition{})
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
func (t *revocationTail) position() (logPosition, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.applied, t.loaded
}

// vouches reports whether a copy in memory may be used now. It is quick while
// nothing has changed since it was asked last.
func (t *revocationTail) vouches(held *heldCopy, now time.Time) bool {
	state := t.state.Load()
	if !now.Before(state.until) {
		return false
	}
	if held.vouched.Load() == state.version {
		return true
	}
	if s := held.session.Load(); !t.counts(held.position, s.Hash, s.User.ID, now) {
		return false
	}
	held.vouched.Store(state.version)
	return true
}

// counts reports whether a copy made at position pos of the session with that
// hash and user ("" is nobody) may be used now.
func (t *revocationTail) counts(pos logPosition, hash, userID string, now time.Time) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.trusted(now) && t.has(pos) &&
		t.everybody <= pos.seq && t.bySession[hash] <= pos.seq && t.byUser[userID] <= pos.seq
}

// has reports whether pos is a position in the part of this log that is held.
func (t *revocationTail) has(pos logPosition) bool {
	switch {
	case pos == t.applied || pos == t.heldFrom:
		return true
	case pos.seq <= t.heldFrom.seq || pos.seq >= t.applied.seq:
		return false
	}
	return t.entries[pos.seq-t.heldFrom.seq-1].Mark == pos.mark
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
	t.publish(false)
}

// publish renews the state that vouches reads. t.mu is held.
func (t *revocationTail) publish(changed bool) {
	next := &tailState{version: t.state.Load().version}
	if changed {
		next.version++
	}
	if t.loaded && !t.sentAt.Before(t.notBefore) {
		next.until = t.sentAt.Add(tailTrust)
	}
	t.state.Store(next)
}

// poll reads on in the log. The caller has the turn.
func (t *revocationTail) poll(ctx context.Context) error {
	after, loaded := t.position()
	if loaded {
		sent := time.Now()
		tail, err := t.log.Revocations(ctx, after.seq-1, time.Time{}) // with the entry we know, to see that it is the same
		if err != nil {
			return err
		}
		switch follows(tail, after) {
		case sameLog:
			t.apply(tail, sent, false)
			return nil
		case cleanedLog:
			t.apply(tail, sent, true)
			return nil
		}
		t.logger.Warn("the revocation log is not what it was: was the database restored?", "from", after.seq, "to", tail.Head)
		if err := t.log.NoteChange(ctx, ""); err != nil {
			return err
		}
	}
	sent := time.Now()
	tail, err := t.log.Revocations(ctx, 0, sent.Add(-tailHeld))
	if err != nil {
		return err
	}
	t.apply(tail, sent, true)
	return nil
}

// reset forgets every entry, so that only copies made from position on count.
func (t *revocationTail) reset(position logPosition) {
	t.applied, t.heldFrom, t.everybody = position, position, 0
	t.entries, t.bySession, t.byUser = nil, map[string]int64{}, map[string]int64{}
}

// apply takes in what a query sent at sent returned: what came after the last
// position or, anew, the recent part of the log.
func (t *revocationTail) apply(tail models.RevocationTail, sent time.Time, anew bool) {
	news, from := gapless(tail)
	t.mu.Lock()
	defer t.mu.Unlock()
	changed := false
	if anew || from.seq > t.applied.seq { // or entries are missing in between: only what comes from here on is known
		t.reset(from)
		changed = true
	}
	for _, r := range news {
		if r.Seq <= t.applied.seq {
			continue
		}
		t.entries = append(t.entries, heldRevocation{r, sent})
		t.applied, changed = logPosition{r.Seq, r.Mark}, true
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
	t.publish(t.forget(sent) || changed)
}

// forget drops entries older than what is held and reports whether there were any.
func (t *revocationTail) forget(now time.Time) (some bool) {
	for len(t.entries) > 0 && (len(t.entries) > tailMaxHeld || now.Sub(t.entries[0].since) > tailHeld) {
		some = true
		old := t.entries[0]
		t.entries = t.entries[1:]
		t.heldFrom = logPosition{old.Seq, old.Mark}
		if t.bySession[old.SessionHash] == old.Seq {
			delete(t.bySession, old.SessionHash)
		}
		if t.byUser[old.UserID] == old.Seq {
			delete(t.byUser, old.UserID)
		}
	}
	return some
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
