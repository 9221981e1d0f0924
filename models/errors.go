package models

import (
	"errors"
	"fmt"
	"strconv"
	"time"
)

// The sentinel errors that packages share. Test for them with errors.Is: the package that
// returns one wraps it with the operation and the key.
var (
	// ErrUnavailable: Redis or the database does not answer. Try again later.
	ErrUnavailable = errors.New("unavailable")
	// ErrNotWritable is the ErrUnavailable of a database that can be read but not written.
	ErrNotWritable = fmt.Errorf("not writable: %w", ErrUnavailable)
	// ErrNotFound: there is no such process, user, session or lock.
	ErrNotFound = errors.New("not found")
	// ErrNotAcquired: another grant holds the lock. See NotAcquiredError.
	ErrNotAcquired = errors.New("lock not acquired")
	// ErrNotHeld: the lock token is not, or no longer, the holder's.
	ErrNotHeld = errors.New("lock not held")
	// ErrOtherFence: the fence of a lock to force is no longer the current one. It comes with
	// an ErrNotHeld.
	ErrOtherFence = errors.New("forced by a fence that is no longer current")
	// ErrLockTokenRequired: the request needs the lock token and has none.
	ErrLockTokenRequired = errors.New("lock token required")
	// ErrVersionConflict: the database refused a write because another one came in between.
	// See ConflictError.
	ErrVersionConflict = errors.New("version conflict")
	// ErrPreconditionFailed: If-Match names another version than the current one. See
	// ConflictError.
	ErrPreconditionFailed = errors.New("precondition failed")
	// ErrInvalidCredentials: unknown user, wrong password or disabled user.
	ErrInvalidCredentials = errors.New("invalid credentials")
	// ErrEmailTaken: another user already has this e-mail address.
	ErrEmailTaken = errors.New("e-mail already in use")
	// ErrLastAdmin: the change would leave no user who can manage users.
	ErrLastAdmin = errors.New("last administrator")
	// ErrStale: the row changed after it was read; read it again.
	ErrStale = errors.New("stale")
	// ErrBadCursor: the page cursor does not come from this list.
	ErrBadCursor = errors.New("bad cursor")
)

// TooManyLocksError says that the user has as many locks as a user may have: Limit.
type TooManyLocksError struct {
	Limit int
}

func (e *TooManyLocksError) Error() string {
	return "the user has " + strconv.Itoa(e.Limit) + " locks already"
}

// NotAcquiredError says who holds the lock. If Status.Held is false, waiters or a returning holder
// come first. It matches ErrNotAcquired.
type NotAcquiredError struct {
	Status LockStatus
	// TakeOverAt is when the lock can be taken over unless its holder is active; zero if that was
	// not asked for, or is not known.
	TakeOverAt time.Time
}

func (e *NotAcquiredError) Error() string {
	if !e.Status.Held {
		return "lock " + e.Status.Resource + " not acquired: about to be another's"
	}
	return "lock " + e.Status.Resource + " not acquired: held by " + e.Status.Holder.UserID
}

// Unwrap makes errors.Is(err, ErrNotAcquired) true.
func (e *NotAcquiredError) Unwrap() error { return ErrNotAcquired }

// NotHeldError is the state of a lock whose token does not hold it. It matches ErrNotHeld.
type NotHeldError struct {
	Status  LockStatus
	EndedBy *LockEnd // how the token's grant ended; nil if that is not known
}

func (e *NotHeldError) Error() string { return "lock " + e.Status.Resource + " not held" }

// Unwrap makes errors.Is(err, ErrNotHeld) true.
func (e *NotHeldError) Unwrap() error { return ErrNotHeld }

// ConflictError is a write that was refused, with the current state of the process. Reason is
// ErrVersionConflict or ErrPreconditionFailed.
type ConflictError struct {
	Reason  error
	Current Process
}

func (e *ConflictError) Error() string { return e.Reason.Error() + ": process " + e.Current.ID }

// Unwrap makes errors.Is match the reason.
func (e *ConflictError) Unwrap() error { return e.Reason }

// FieldError is one error of one input field.
type FieldError struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

// ValidationError lists all errors of an input.
type ValidationError struct {
	Errors []FieldError
}

func (e *ValidationError) Error() string {
	text := "invalid input"
	for _, f := range e.Errors {
		text += "; " + f.Field + " " + f.Message
	}
	return text
}

// Invalid returns a ValidationError about one field.
func Invalid(field, message string) *ValidationError {
	return &ValidationError{Errors: []FieldError{{Field: field, Message: message}}}
}
