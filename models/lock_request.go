package models

import "time"

// LockRequestState says what has become of a LockRequest.
type LockRequestState string

// The states of a LockRequest. While it is RequestOpen or RequestLater it is pending; the others are
// final.
const (
	RequestOpen      LockRequestState = "open"      // not answered
	RequestLater     LockRequestState = "later"     // the holder asked for more time
	RequestGiven     LockRequestState = "given"     // the asker has the lock, or had it
	RequestNo        LockRequestState = "no"        // refused
	RequestExpired   LockRequestState = "expired"   // the asker did not fetch the lock, was away, or lost the right
	RequestWithdrawn LockRequestState = "withdrawn" // by the asker, or the asker got the lock in another way
)

// LockRequest is what a user who wants a locked process asks its holder for. A user has one pending
// request for a process at most.
type LockRequest struct {
	ID          string
	ProcessID   string
	By          UserRef // the asker
	State       LockRequestState
	Message     string    // of the asker
	Reply       string    // of the holder, with the answer
	At          time.Time // when the lock was asked for
	SeenAt      time.Time // when the asker looked last, to within some seconds
	AnswerBy    time.Time // when no answer counts as one
	AnsweredAt  time.Time // zero as long as it is not
	HolderGrant string    // the grant that had the lock when it was asked for
	// Of a request in state RequestGiven: the grant made for the asker, until when it has to be
	// fetched, and whether it was.
	Grant   string
	FetchBy time.Time
	Fetched bool
}

// Pending reports whether the request can still be answered.
func (r LockRequest) Pending() bool { return r.State == RequestOpen || r.State == RequestLater }

// LastWord is what was said last: by the asker, then by the holder.
func (r LockRequest) LastWord() string {
	if r.Reply != "" {
		return r.Reply
	}
	return r.Message
}

// LockRequestEvent is what an event tells of a LockRequest.
type LockRequestEvent struct {
	ID      string
	By      UserRef // who asked, or who answered; zero if no user did
	Message string
	State   LockRequestState
	// Between are the asker and the holder: only they and administrators may see the event.
	Between []string
}

// RequestConflictError says that a lock cannot be asked for, or a request not be answered, as it
// stands: Field and Detail are for the answer.
type RequestConflictError struct {
	Field  string
	Detail string
}

func (e *RequestConflictError) Error() string { return e.Field + ": " + e.Detail }
