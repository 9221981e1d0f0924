package models

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Draft is what a user has typed into a process and not saved. There is one for each user and
// process.
type Draft struct {
	Title       string    `json:"title"`
	Status      string    `json:"status"`
	Description string    `json:"description"`
	BaseVersion int64     `json:"baseVersion"` // the version that the text began from
	SavedAt     time.Time `json:"savedAt"`
}

// Fields are those that the process would have.
func (d Draft) Fields() ProcessFields {
	return ProcessFields{Title: d.Title, Status: d.Status, Description: d.Description}
}

// OrphanedDraft says that there is a draft of a process that was deleted.
type OrphanedDraft struct {
	ProcessID string
	Title     string // of the draft
	SavedAt   time.Time
}

// DraftRef says that a user has a draft, and not what is in it.
type DraftRef struct {
	UserID  string    `json:"userId"`
	Email   string    `json:"email"`
	SavedAt time.Time `json:"savedAt"`
}

// Limits of a draft, in characters: ten times those of a process. A text that is still too long
// must not be lost while its writer makes it shorter.
const (
	MaxDraftTitle       = 10 * MaxTitle
	MaxDraftDescription = 10 * MaxDescription
)

// Validate returns a *ValidationError with all invalid fields, nil if there are none. A draft may
// be unfinished: its title may be empty, and its texts longer than a process takes.
func (d Draft) Validate() error {
	var errs []FieldError
	text := func(field, value string, most int) {
		switch {
		case utf8.RuneCountInString(value) > most:
			errs = append(errs, FieldError{field, fmt.Sprintf("must have at most %d characters", most)})
		case strings.ContainsRune(value, 0):
			errs = append(errs, FieldError{field, "must not contain a NUL character"})
		}
	}
	text("title", d.Title, MaxDraftTitle)
	if !slices.Contains(Statuses[:], d.Status) {
		errs = append(errs, FieldError{"status", "must be one of " + strings.Join(Statuses[:], ", ")})
	}
	text("description", d.Description, MaxDraftDescription)
	if d.BaseVersion < 1 {
		errs = append(errs, FieldError{"baseVersion", "must be a positive integer"})
	}
	if errs == nil {
		return nil
	}
	return &ValidationError{Errors: errs}
}

// DraftConflictError is a draft that was not replaced or deleted, as it is now: it was saved later
// than the caller knew. It matches ErrPreconditionFailed.
type DraftConflictError struct {
	Current Draft
}

func (e *DraftConflictError) Error() string {
	return ErrPreconditionFailed.Error() + ": the draft was saved at " + e.Current.SavedAt.Format(time.RFC3339Nano)
}

// Unwrap makes errors.Is(err, ErrPreconditionFailed) true.
func (e *DraftConflictError) Unwrap() error { return ErrPreconditionFailed }
