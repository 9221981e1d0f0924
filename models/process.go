package models

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Process is the record that users edit.
type Process struct {
	ID          string    `json:"id"`
	Title       string    `json:"title"`
	Status      string    `json:"status"`
	Description string    `json:"description"`
	Version     int64     `json:"version"`
	CreatedAt   time.Time `json:"createdAt"`
	UpdatedAt   time.Time `json:"updatedAt"`
	UpdatedBy   UserRef   `json:"updatedBy"`
}

// ProcessFields are the fields that a user may write.
type ProcessFields struct {
	Title       string
	Status      string
	Description string
}

// ProcessPatch is a change of some fields; nil fields stay as they are.
type ProcessPatch struct {
	Title       *string
	Status      *string
	Description *string
}

// Apply returns the fields of a process with the change applied.
func (p ProcessPatch) Apply(to Process) ProcessFields {
	fields := ProcessFields{Title: to.Title, Status: to.Status, Description: to.Description}
	if p.Title != nil {
		fields.Title = *p.Title
	}
	if p.Status != nil {
		fields.Status = *p.Status
	}
	if p.Description != nil {
		fields.Description = *p.Description
	}
	return fields
}

// Limits of the process fields, in characters.
const (
	MaxTitle       = 200
	MaxDescription = 10_000
)

// DefaultStatus is the status of a process created without one.
const DefaultStatus = "draft"

// Statuses are the states a process can be in.
var Statuses = [...]string{DefaultStatus, "active", "paused", "completed", "archived"}

// Validate returns a *ValidationError with all invalid fields, nil if there are none.
func (p ProcessPatch) Validate() error {
	var errs []FieldError
	if p.Title != nil {
		switch n := utf8.RuneCountInString(*p.Title); {
		case n == 0 || n > MaxTitle || strings.TrimSpace(*p.Title) == "":
			errs = append(errs, FieldError{"title", "must have 1 to 200 characters, not only spaces"})
		case strings.ContainsRune(*p.Title, 0):
			errs = append(errs, FieldError{"title", "must not contain a NUL character"})
		}
	}
	if p.Status != nil && !slices.Contains(Statuses[:], *p.Status) {
		errs = append(errs, FieldError{"status", "must be one of " + strings.Join(Statuses[:], ", ")})
	}
	if p.Description != nil {
		switch {
		case utf8.RuneCountInString(*p.Description) > MaxDescription:
			errs = append(errs, FieldError{"description", "must have at most 10000 characters"})
		case strings.ContainsRune(*p.Description, 0):
			errs = append(errs, FieldError{"description", "must not contain a NUL character"})
		}
	}
	if errs == nil {
		return nil
	}
	return &ValidationError{Errors: errs}
}

// OrderTitle is the Order of a ProcessFilter that lists by title, in any case.
const OrderTitle = "title"

// ProcessFilter selects processes, and their order. The zero value selects all, newest change
// first.
type ProcessFilter struct {
	Status string // exact; "" is any
	Query  string // contained in the title, in any case; "" is any
	Order  string // OrderTitle, or "" for the newest change first
}

// WriteGuard is the condition of a write. The write happens only if the process still has
// GrantedVersion, or was last written with the same Grant. If IfMatch is set, the process must
// also have that version.
//
// How and Fence only describe the write, for the history.
type WriteGuard struct {
	Grant          string // "" is a write without a lock
	GrantedVersion int64
	IfMatch        *int64
	How            string // "" is HowEdited
	Fence          *int64 // of the grant; nil without Redis
}

// IfMatch is the precondition of an If-Match header: the version must be one of Versions,
// unless Any is set. Nil is no precondition.
type IfMatch struct {
	Any      bool
	Versions []int64
}

// Matches reports whether version meets the precondition; always if m is nil.
func (m *IfMatch) Matches(version int64) bool {
	return m == nil || m.Any || slices.Contains(m.Versions, version)
}

// DefaultLimit is the Limit of a Page that has none.
const DefaultLimit = 50

// Page selects one page of a list: at most Limit items, DefaultLimit if that is zero or less, after
// Cursor. Cursor "" is the first page.
type Page struct {
	Limit  int
	Cursor string
}

// List is one page. NextCursor is nil at the end of the list.
type List[T any] struct {
	Items      []T     `json:"items"`
	NextCursor *string `json:"nextCursor"`
}
