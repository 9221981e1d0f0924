package models

import "time"

// Session is a user, or an anonymous visitor, on one device. It is read from the database, the
// authority, or from a copy in Redis or memory. Other callers share it: do not change Roles or
// Data. Times are kept to the microsecond.
type Session struct {
	Hash      string    // hex SHA-256 of the token; never leaves the server
	ID        string    // public name, neither token nor hash
	User      UserRef   // zero for an anonymous session
	LastSeen  time.Time // at most a minute behind
	IdleAt    time.Time // ends at this time unless it is used before
	ExpiresAt time.Time // ends at this time however much it is used
	CreatedAt time.Time
	Roles     []string // the user's, when it was read
	Epoch     int64    // the user's epoch when the session began; another one ends it
	Data      []byte   // nil if empty
	Version   int64    // grows with each write of Data
	UserAgent string
	IP        string
}

// Live reports whether neither the idle nor the absolute timeout has passed.
func (s Session) Live(now time.Time) bool {
	return now.Before(s.IdleAt) && now.Before(s.ExpiresAt)
}

// Activity is what the use of a session changes in its row.
type Activity struct {
	Hash     string
	Since    time.Time // the first use that is not in the row; the session was live from then on
	LastSeen time.Time // the last use: Since, if there was only one
	IdleAt   time.Time
}

// Ending names sessions that end before their time: one by its Hash, one by its UserID and
// ID, all of UserID, or, with Everybody, all there are. Of the last two, the session whose
// hash is Keep goes on. The zero value names none and is refused.
type Ending struct {
	Hash      string
	UserID    string
	ID        string
	Everybody bool
	Keep      string
}

// Revocation is one entry of the revocation log: copies of what it names that were made before
// it are not valid any more. Exactly one of SessionHash, UserID and Everybody is set.
type Revocation struct {
	Seq         int64 // from 1, without gaps, in commit order
	Nonce       int64 // random: a database restored to an earlier point gives the same Seq another one
	At          time.Time
	SessionHash string
	UserID      string
	Everybody   bool
}

// Revocations is what a read of the log returned: the entries after the number asked for, in
// commit order, and the log's head.
type Revocations struct {
	Entries []Revocation
	Head    int64
	Nonce   int64 // of the entry at Head, also if that has been cleaned up
}
