package session

import (
	"context"
	"time"

	"gatehouse/models"
)

// Database is where sessions live: the authority. *store.Store is one.
//
// Each method is one transaction and may be called concurrently. If it cannot answer now, its
// error is models.ErrUnavailable. Times are kept to the microsecond. A session is live while
// Session.Live says so, nothing has ended it, and Epoch is its user's. Rows that are not live
// may be removed two minutes later.
//
// The revocation log is a table of the database. Its entries are numbered from 1 without gaps,
// in the order in which their transactions commit, so a read that returns an entry has missed
// none before it. The log keeps at least the entries of the last 20 min. An application that
// changes what Session returns, such as a user's roles, writes an entry for the user in the
// same transaction, and then calls Cache.Sync.
type Database interface {
	// InsertSession stores a session, if its user exists and the user's epoch is still s.Epoch;
	// otherwise models.ErrStale. An epoch is a number in the user's row, 0 at first. Only the
	// sessions that have it live; EndSessions of a user raises it. User.ID "" is no user, and
	// nothing is checked. It ends the user's oldest live sessions beyond maxPerUser, the new one
	// included, each with an entry in the log, and returns how many.
	InsertSession(ctx context.Context, s models.Session, maxPerUser int) (ended int, err error)
	// Session returns the session, if it was live at that time, with its user's address and
	// roles as they are now; otherwise models.ErrNotFound.
	Session(ctx context.Context, hash string, at time.Time) (models.Session, error)
	// SessionsOf returns the live sessions of a user, newest first.
	SessionsOf(ctx context.Context, userID string, at time.Time) ([]models.Session, error)
	// TouchSessions moves LastSeen and IdleAt of sessions whose idle timeout had not passed at
	// Since, nor the absolute one at LastSeen, never back, and leaves out all others. It returns
	// the hashes that it wrote. It may leave out live ones that another transaction is changing,
	// unless it is given one alone.
	TouchSessions(ctx context.Context, used []models.Activity) (written []string, err error)
	// SaveSessionData stores the data of a live session that still has that version, and
	// returns the next version, which is one more. models.ErrStale if it has another,
	// models.ErrNotFound if it is not live.
	SaveSessionData(ctx context.Context, hash string, version int64, data []byte) (int64, error)
	// EndSessions ends sessions for good, with an entry in the log for each, for their user
	// or for everybody. To end all of a user, it adds 1 to the user's epoch in the same
	// transaction: a sign-in that had read the epoch before fails. The session to keep gets
	// the new epoch, so it lives on. models.ErrNotFound, and nothing is changed, if which is
	// zero, there is no such session or user, or the one to keep has been ended itself or is
	// another user's.
	EndSessions(ctx context.Context, which models.Ending) error
	// NoteChange writes an entry to the log that is about a session, or about everybody if
	// hash is empty. It ends nothing, but copies made before it are not valid any more.
	NoteChange(ctx context.Context, hash string) error
	// Revocations returns the entries above a number or, if since is not zero, those from the
	// first one not before since on, and the head of the log, all from one snapshot. Head is
	// the number of the last entry there is, and Nonce is that entry's, also if neither is
	// returned or kept any more. The oldest may be missing.
	Revocations(ctx context.Context, after int64, since time.Time) (models.Revocations, error)
}
