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
	logInterval = time.Second      // between two polls without a hint
	logTrust    = 2 * time.Second  // counted from before the query was sent
	logHeld     = 15 * time.Minute // older entries are dropped
	logMaxHeld  = 100_000          // entries; beyond it the oldest are dropped early
)

// revocationLog is what a follower needs of a Database.
type revocationLog interface {
	Revocations(ctx context.Context, after int64, since time.Time) (models.Revocations, error)
	NoteChange(ctx context.Context, hash string) error
}

// logOffset is a place in the log: the number and the nonce of its last entry. A database
// restored to an earlier state gives the same number another nonce.
type logOffset struct{ seq, nonce int64 }

// unknownNonce is no entry's: nonces are not negative.
const unknownNonce = -1

// logFollower is one instance's view of the revocation log. It validates copies of
// sessions, which are made at an offset of the log. It holds the entries of the last
// 15 min: an older copy is not valid, nor one made in another history of the log.
//
// It is trusted for 2 s, by the monotonic clock, from the instant before the last answered
// query was sent. Untrusted, it validates no copy: callers read the database.
type logFollower struct {
	log     revocationLog
	logger  *slog.Logger
	polling chan struct{} // one poll at a time
	woken   chan struct{}

	mu        sync.RWMutex
	loaded    bool
	head      logOffset            // every entry up to it is held, or was dropped
	heldFrom  logOffset            // every entry after it is held
	entries   []heldEntry          // without a gap, from heldFrom to head
	last      map[logSubject]int64 // the number of the last entry about it
	sentAt    time.Time            // before the last answered query
	notBefore time.Time            // queries sent earlier prove nothing

	state   atomic.Pointer[followerState] // of the above, for validates: it takes no lock
	failing bool                          // as logged last; only run uses it
}

// followerState changes its version with every change of what is valid.
type followerState struct {
	version      uint64
	trustedUntil time.Time
}

type heldEntry struct {
	logOffset
	subject logSubject
	since   time.Time // when this instance read it
}

// logSubject is what an entry is about: a session, a user, or everybody.
type logSubject struct{ hash, userID string }

func newLogFollower(log revocationLog, logger *slog.Logger) *logFollower {
	f := &logFollower{log: log, logger: logger, polling: make(chan struct{}, 1), woken: make(chan struct{}, 1)}
	f.state.Store(&followerState{})
	f.startAt(logOffset{})
	return f
}

// run polls until ctx ends.
func (f *logFollower) run(ctx context.Context) {
	ticker := time.NewTicker(logInterval)
	defer ticker.Stop()
	for {
		f.polling <- struct{}{} // a poll is bounded by the database's timeout
		err := f.poll(ctx)
		<-f.polling
		if ctx.Err() == nil {
			f.report(err)
		}
		select {
		case <-ticker.C:
		case <-f.woken:
		case <-ctx.Done():
			return
		}
	}
}

// report logs one line per change of state.
func (f *logFollower) report(err error) {
	if failed := err != nil; failed != f.failing {
		f.failing = failed
		if failed {
			f.logger.Warn("the revocation log cannot be read: sessions are read from the database", "error", err)
		} else {
			f.logger.Info("the revocation log is read")
		}
	}
}

// wake asks for a poll soon. It never blocks.
func (f *logFollower) wake() {
	select {
	case f.woken <- struct{}{}:
	default: // a poll is due already
	}
}

// offset is what a copy is made at: it must be read before the row is. False until the log
// was read for the first time.
func (f *logFollower) offset() (logOffset, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.head, f.loaded
}

// trusted reports whether any copy may be valid now.
func (f *logFollower) trusted(now time.Time) bool { return now.Before(f.state.Load().trustedUntil) }

// validates reports whether a copy may be used now. It is quick while nothing has changed
// since it was asked last.
func (f *logFollower) validates(held *memoryCopy, now time.Time) bool {
	state := f.state.Load()
	if !now.Before(state.trustedUntil) {
		return false
	}
	if held.validated.Load() == state.version {
		return true
	}
	if s := held.session.Load(); !f.valid(held.offset, s.Hash, s.User.ID) {
		return false
	}
	held.validated.Store(state.version)
	return true
}

// valid reports whether no entry after the offset is about that session or user ("" is no
// user), as far as the log is held.
func (f *logFollower) valid(made logOffset, hash, userID string) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.holds(made) && f.last[logSubject{}] <= made.seq &&
		f.last[logSubject{hash: hash}] <= made.seq && f.last[logSubject{userID: userID}] <= made.seq
}

// holds reports whether an offset is one in the part of this log that is held.
func (f *logFollower) holds(offset logOffset) bool {
	switch {
	case offset == f.head || offset == f.heldFrom:
		return true
	case offset.seq <= f.heldFrom.seq || offset.seq >= f.head.seq:
		return false
	}
	return f.entries[offset.seq-f.heldFrom.seq-1].logOffset == offset
}

// sync returns when everything committed before the call is applied. If it fails, no copy
// is valid until a later poll succeeds.
func (f *logFollower) sync(ctx context.Context) error {
	asked := time.Now()
	select {
	case f.polling <- struct{}{}:
	case <-ctx.Done():
		f.distrust()
		return fmt.Errorf("read the revocation log: %w: %w", models.ErrUnavailable, context.Cause(ctx))
	}
	defer func() { <-f.polling }()
	f.mu.RLock()
	shared := f.loaded && f.sentAt.After(asked)
	f.mu.RUnlock()
	if shared {
		return nil // the poll that this call waited for was sent late enough
	}
	if err := f.poll(ctx); err != nil {
		f.distrust()
		return fmt.Errorf("read the revocation log: %w", err)
	}
	return nil
}

func (f *logFollower) distrust() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.notBefore = time.Now()
	f.renewState(false)
	f.wake() // the caller may only have been out of time
}

// renewState is called with f.mu held.
func (f *logFollower) renewState(changed bool) {
	next := &followerState{version: f.state.Load().version}
	if changed {
		next.version++
	}
	if f.loaded && !f.sentAt.Before(f.notBefore) {
		next.trustedUntil = f.sentAt.Add(logTrust)
	}
	f.state.Store(next)
}

// poll reads on in the log. The caller holds f.polling. A follower that finds the log
// restored writes an entry that invalidates every copy: rows that copies were made from may
// be gone.
func (f *logFollower) poll(ctx context.Context) error {
	if after, loaded := f.offset(); loaded {
		sent := time.Now()
		read, err := f.log.Revocations(ctx, after.seq-1, time.Time{}) // with the entry at the head, to see that it is the same
		if err != nil {
			return err
		}
		if next := compare(read, after); next != restoredLog {
			f.apply(read, sent, next == cleanedLog)
			return nil
		}
		f.logger.Warn("the revocation log has another history: was the database restored?", "from", after.seq, "to", read.Head)
		if err := f.log.NoteChange(ctx, ""); err != nil {
			return err
		}
	}
	sent := time.Now()
	read, err := f.log.Revocations(ctx, 0, sent.Add(-logHeld))
	if err != nil {
		return err
	}
	f.apply(read, sent, true)
	return nil
}

// How what was read now compares with what was read before.
type comparison int

const (
	sameLog     comparison = iota
	cleanedLog             // the entry at the head is gone: what came before is not known
	restoredLog            // another history
)

func compare(read models.Revocations, known logOffset) comparison {
	if known.seq == 0 || (logOffset{read.Head, read.Nonce}) == known {
		return sameLog
	}
	if read.Head <= known.seq {
		return restoredLog
	}
	for _, r := range read.Entries {
		if r.Seq == known.seq && r.Nonce == known.nonce {
			return sameLog
		} else if r.Seq == known.seq {
			return restoredLog
		}
	}
	return cleanedLog
}

// gapless returns the entries that lead to the head without a gap, and the offset before
// them.
func gapless(read models.Revocations) (entries []models.Revocation, from logOffset) {
	from = logOffset{read.Head, read.Nonce}
	if n := len(read.Entries); n > 0 {
		from.seq = max(from.seq, read.Entries[n-1].Seq)
	}
	first := len(read.Entries)
	for first > 0 && read.Entries[first-1].Seq == from.seq {
		first--
		from = logOffset{from.seq - 1, unknownNonce}
	}
	if from.seq == 0 {
		from.nonce = 0 // the beginning of a log
	}
	return read.Entries[first:], from
}

// startAt drops every entry, so that only copies made from offset on are valid.
func (f *logFollower) startAt(offset logOffset) {
	f.head, f.heldFrom = offset, offset
	f.entries, f.last = nil, map[logSubject]int64{}
}

// apply takes in what a query sent at sent returned: what came after the head or, anew, the
// recent part of the log.
func (f *logFollower) apply(read models.Revocations, sent time.Time, anew bool) {
	entries, from := gapless(read)
	f.mu.Lock()
	defer f.mu.Unlock()
	changed := false
	if anew || from.seq > f.head.seq { // or entries are missing in between: only what comes from here on is known
		f.startAt(from)
		changed = true
	}
	for _, r := range entries {
		if r.Seq <= f.head.seq {
			continue
		}
		entry := heldEntry{logOffset{r.Seq, r.Nonce}, logSubject{r.SessionHash, r.UserID}, sent}
		f.entries, f.last[entry.subject] = append(f.entries, entry), r.Seq
		f.head, changed = entry.logOffset, true
	}
	for len(f.entries) > 0 && (len(f.entries) > logMaxHeld || sent.Sub(f.entries[0].since) > logHeld) {
		old := f.entries[0]
		f.entries, f.heldFrom, changed = f.entries[1:], old.logOffset, true
		if f.last[old.subject] == old.seq {
			delete(f.last, old.subject)
		}
	}
	f.loaded, f.sentAt = true, sent
	f.renewState(changed)
}
