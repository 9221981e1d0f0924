package models

import "time"

// Holder is who has a lock, since when and why.
type Holder struct {
	UserID string    `json:"userId"`
	Email  string    `json:"email"`
	Since  time.Time `json:"since"`
	Reason string    `json:"reason"`
}

// LockStatus is how the lock of a resource stands.
type LockStatus struct {
	Resource  string
	Held      bool
	Holder    Holder        // zero when free
	Grant     string        // names the grant; not a secret, not shown
	Fence     *int64        // nil when free or granted without Redis
	TTL       time.Duration // time left, 0 when free
	ExpiresAt time.Time     // zero when free
	Waiting   int           // waiters queued
	Degraded  bool          // answered without Redis
}

// LockClaim names a grant and proves it. Only the holder has the Token.
type LockClaim struct {
	Resource string
	Grant    string
	Token    string
}

// LockGrant is what a signed lock token carries: the grant, whom it was given to
// and what came with it.
type LockGrant struct {
	LockClaim
	UserID string
	// Fence is that of the grant when the token was made, nil if it was made
	// without Redis. It stays so if the server forgets the grant and the holder
	// claims it again: somebody else may have written meanwhile.
	Fence   *int64
	Version int64     // of what the holder read after the grant
	End     time.Time // at the latest
}

// The names of lock events.
const (
	LockAcquired = "acquired"
	LockExtended = "extended"
	LockReleased = "released"
	LockExpired  = "expired"
	LockForced   = "forced"
)

// LockEvent is something that happened to a lock.
type LockEvent struct {
	Name     string
	Resource string
	Holder   UserRef
	Fence    *int64 // nil when granted without Redis
	At       time.Time
}
