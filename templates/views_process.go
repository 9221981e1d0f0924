package templates

import (
	"fmt"
	"time"
)

// ProcessList is a page of the list of processes.
type ProcessList struct {
	Frame
	Rows                 []ProcessRow
	Query, Status, Order string // as they were asked for; Order "" is newest change first
	Statuses             []string
	MayEdit              bool
	// First and Next are the links to other pages of the list, "" if there are none.
	First, Next string
	Banner      *Banner
	Missing     bool // who is editing cannot be found out now
	Orphaned    []OrphanedDraft
}

// OrphanedDraft is what the reader left of a process that was deleted since.
type OrphanedDraft struct {
	ID, Title string
	SavedAt   time.Time
}

// ProcessRow is one process of the list.
type ProcessRow struct {
	ID, Title, Status string
	Changed           time.Time
	ChangedBy         string
	Editing           *Editing // nil if nobody is
}

// Editing says in words who is editing.
type Editing struct {
	Now        time.Time
	Who        string
	Mine       bool
	Since      time.Time
	LastActive time.Time // zero if it is unknown
	Reason     string    // "" if none was given
	Waiting    int       // users who wait for it, or asked for it
	Place      int       // of the reader among them: 1 is next, 0 is not among them
}

// Queue says how many wait, and the reader's place among them; "" if nobody does.
func (e Editing) Queue() string {
	switch {
	case e.Waiting <= 0:
		return ""
	case e.Place == 1 && e.Waiting == 1:
		return "you are next"
	case e.Place == 1:
		return fmt.Sprintf("%d are waiting, you are next", e.Waiting)
	case e.Place > 1:
		return fmt.Sprintf("%d are waiting, %d ahead of you", e.Waiting, e.Place-1)
	}
	return number(e.Waiting, "is", "are") + " waiting"
}

// ProcessForm is the form for a new process, and what is wrong with it.
type ProcessForm struct {
	Frame
	UserID   string // of who writes the text
	Fields   ProcessFields
	Statuses []string
	Errors   FieldErrors
	// Failed says why it could not be created this time, although nothing is wrong with it; SignIn
	// that the reader has to sign in first, in another tab.
	Failed string
	SignIn bool
	// From is the id of a process that was deleted, of which this was the text; "" for none. DraftKnown
	// is that of Edit.
	From       string
	DraftKnown time.Time
}

// FocusField is that of Edit.
func (f ProcessForm) FocusField() bool { return len(f.Errors) == 0 && f.Failed == "" }

// ProcessFields are what a user writes.
type ProcessFields struct{ Title, Status, Description string }

// FieldErrors says by field what is wrong with it.
type FieldErrors map[string]string

// Process is the page on which a process is read.
type Process struct {
	Frame
	ID        string
	Fields    ProcessFields
	Changed   time.Time
	ChangedBy string
	// ChangedByID is the id of that user, for scripts.
	ChangedByID string
	Version     int64
	MayEdit     bool
	Lock        LockPanel
	Draft       *Draft // the reader's own; nil if there is none
	// Drafts of other users, for those who may edit: that there are some, not what is in them.
	Drafts []OtherDraft
	Banner *Banner
}

// LockPanel says who is editing, and what the reader can do about it.
type LockPanel struct {
	Editing *Editing // nil if nobody is, or it is unknown
	// Refused: the reader has just tried to edit, and could not.
	Refused bool
	Unknown bool   // who is editing cannot be found out now
	MayAsk  bool   // the reader can ask the holder for it
	CanTake bool   // the holder gave no sign of life for so long that any editor may go on
	Request *Asked // the reader's own request for the lock; nil if there is none
	// Note is what the reader typed when the request was refused, and Error what is wrong with it.
	Note, Error string
	// Technical is the line for administrators: grant, fence, time left. "" for other readers.
	Technical string
	Force     string // where an administrator can force the lock; "" for other readers
}

// Asked is a request of the reader for a lock that another user has.
type Asked struct {
	ID       string
	At       time.Time
	AnswerBy time.Time
	State    string // open, given, later, no, expired or withdrawn
	Message  string // what the holder answered
}

// Draft is what a user typed and did not save.
type Draft struct {
	SavedAt time.Time
	Changes []FieldChange // compared with the process as it is now
	// Older: the process was changed after the draft was begun.
	Older bool
}

// OtherDraft says that another user has unsaved changes.
type OtherDraft struct {
	Who     string
	SavedAt time.Time
}

// FieldChange is a change of one field. Lines compare descriptions; of other fields From and To
// are all.
type FieldChange struct {
	Field    string // its name
	From, To string
	Lines    []DiffLine
}

// DiffLine is a line of a comparison.
type DiffLine struct {
	Kind  string // kept, removed, added, skipped, or more: the rest is not shown
	Text  string
	Count int // of the lines that are skipped, or not shown
}
