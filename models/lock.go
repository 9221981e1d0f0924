package models

import (
	"encoding/json"
	"slices"
	"time"
)

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
	// ActiveAt is when the holder was granted the lock or extended it last; zero when free. Only
	// what Locker.Status returns knows of extends, and without Redis only those on this instance.
	ActiveAt time.Time
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

// The values of LockEvent.Name. Those that end a lock are also values of LockEnd.How.
const (
	LockAcquired  = "acquired"
	LockExtended  = "extended"
	LockReleased  = "released"
	LockExpired   = "expired"
	LockForced    = "forced"
	LockTakenOver = "taken-over" // another request has the lock in its place
	LockGiven     = "given"      // the same, by the holder, or because the holder did not answer

	// These are about a request for the lock, and not for everybody: see LockEvent.Request.
	LockAsked    = "asked"
	LockAnswered = "answered"

	// LockWaiting says that a request has begun to wait in the lock's queue, or has left it without
	// the lock. Holder and Fence are not said.
	LockWaiting = "waiting"
)

// Other values of LockEnd.How than those of LockEvent.Name that end a lock.
const (
	LockUserDisabled   = "user-disabled"
	LockProcessDeleted = "process-deleted"
)

// KeepLockEnds is how long it is known how a lock ended.
const KeepLockEnds = 24 * time.Hour

// LockEnd is how a grant of a lock ended, and who ended it: the holder, or another user.
type LockEnd struct {
	How    string
	By     UserRef // zero if no user did, as for LockExpired, or if that is not known
	Reason string
	At     time.Time
}

// MarshalJSON writes the form in which answers have it, without what is not known.
func (e LockEnd) MarshalJSON() ([]byte, error) {
	doc := struct {
		How    string    `json:"how"`
		By     *userDoc  `json:"by,omitempty"`
		Reason string    `json:"reason,omitempty"`
		At     time.Time `json:"at"`
	}{How: e.How, Reason: e.Reason, At: e.At.UTC()}
	if e.By != (UserRef{}) {
		doc.By = &userDoc{e.By.ID, e.By.Email}
	}
	return json.Marshal(doc)
}

// userDoc is a user as answers about locks have it.
type userDoc struct {
	UserID string `json:"userId"`
	Email  string `json:"email"`
}

// EndedLock is a grant that is over.
type EndedLock struct {
	Grant    string
	Resource string
	Holder   Holder // who had it, and since when; zero if that is not known. Its reason is not kept
	Fence    *int64 // nil without Redis, and if it is not known
	End      LockEnd
}

// Ended is the grant of a held lock that ends.
func (s LockStatus) Ended(end LockEnd) EndedLock {
	return EndedLock{Grant: s.Grant, Resource: s.Resource, Holder: s.Holder, Fence: s.Fence, End: end}
}

// LockWaiter is a request that waits for a lock.
type LockWaiter struct {
	By    UserRef // zero if the request names no user
	Since time.Time
}

// LockEvent is a change of a lock.
type LockEvent struct {
	Name     string
	Resource string
	Holder   UserRef
	Fence    *int64 // nil when granted without Redis
	At       time.Time
	Request  *LockRequestEvent // of LockAsked and LockAnswered; nil for all others
}

// VisibleTo reports whether a user may see the event with all that it says.
func (e LockEvent) VisibleTo(userID string, admin bool) bool {
	return e.Request == nil || admin || slices.Contains(e.Request.Between, userID)
}
