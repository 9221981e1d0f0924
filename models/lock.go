package models

import "time"

// Holder is the user who holds a lock, with the time and reason of the grant.
type Holder struct {
	UserID string    `json:"userId"`
	Email  string    `json:"email"`
	Since  time.Time `json:"since"`
	Reason string    `json:"reason"`
}

// LockStatus is the state of a resource's lock.
type LockStatus struct {
	Resource  string
	Held      bool
	Holder    Holder        // zero when free
	Grant     string        // identifies the grant; not a secret, but not shown
	Fence     *int64        // nil when free or granted without Redis
	TTL       time.Duration // time left, 0 when free
	ExpiresAt time.Time     // zero when free
	Waiting   int           // number of waiters in the queue
	Degraded  bool          // from this instance's own table, without Redis
}

// LockClaim identifies a grant and proves it: only the holder has the Token.
type LockClaim struct {
	Resource string
	Grant    string
	Token    string
}

// LockGrant is the content of a signed lock token: the grant, its user, and what the user read.
type LockGrant struct {
	LockClaim
	UserID string
	// Fence is the fence of the grant when the token was made, nil without Redis. It stays the
	// same if Redis loses the grant and the holder acquires it again: another user may have
	// written in between.
	Fence   *int64
	Version int64     // version that the holder read after the grant
	End     time.Time // latest end of the grant
}

// The values of LockEvent.Name.
const (
	LockAcquired = "acquired"
	LockExtended = "extended"
	LockReleased = "released"
	LockExpired  = "expired"
	LockForced   = "forced"
)

// LockEvent is a change of a lock.
type LockEvent struct {
	Name     string
	Resource string
	Holder   UserRef
	Fence    *int64 // nil when granted without Redis
	At       time.Time
}

// LockEnd is how a grant of a lock ended, and who ended it: the holder, or another user.
type LockEnd struct {
	How    string
	By     UserRef // zero if nobody did, as for LockExpired, or if it is not known
	Reason string
	At     time.Time
}
