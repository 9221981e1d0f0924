package models

import "time"

// Session is a signed-in user on one device. It is read from the database, the
// authority, or from a copy in Redis or memory. Sessions are immutable once
// returned: do not change Roles or Data.
type Session struct {
	Hash      string // hex SHA-256 of the token; never leaves the server
	ID        string // public name, neither token nor hash
	User      UserRef
	LastSeen  time.Time
	IdleAt    time.Time // ends unused at this time
	ExpiresAt time.Time // ends at this time however much it is used
	CreatedAt time.Time
	Roles     []string
	Epoch     int64 // the user's epoch when the session began
	Data      []byte
	Version   int64 // grows with each write of Data
	UserAgent string
	IP        string
}

// Live reports whether neither the idle nor the absolute timeout has passed.
func (s Session) Live(now time.Time) bool {
	return now.Before(s.IdleAt) && now.Before(s.ExpiresAt)
}

// Activity is what an instance has seen of a session and writes to its row.
type Activity struct {
	Hash     string
	LastSeen time.Time
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

// Revocation is one entry of the revocation log: from it on, copies made at an
// earlier position of what it names no longer count. Exactly one of SessionHash,
// UserID and Everybody is set.
type Revocation struct {
	Seq         int64
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
