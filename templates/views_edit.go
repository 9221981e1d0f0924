package templates

import "time"

// Edit is the page on which a process is edited.
type Edit struct {
	Frame
	ID       string
	UserID   string // of who writes the text
	Heading  string // the title as it is stored
	Fields   ProcessFields
	Statuses []string
	Errors   FieldErrors
	// Base is the version that the text began from.
	Base int64
	Lock EditLock
	// Lost says why the text cannot be saved now; nil while the lock is held.
	Lost *Lost
	// Failed says why the text could not be saved this time, although nothing is wrong with it or
	// the lock. "" if it was not tried.
	Failed string
	// SignIn: the reader has to sign in first, in another tab, and then save again.
	SignIn bool
	// Draft is when the shown text was kept as a draft; zero if it is what is stored.
	Draft time.Time
	// DraftKnown is when the draft was stored that goes with a save of this text; zero for none.
	DraftKnown time.Time
	// Other is when the reader typed another text, in another tab, of which a draft is kept, and none of
	// this one; zero if not.
	Other time.Time
	// Changed is what others saved since the reader looked or began.
	Changed  *ChangedMeanwhile
	Requests []LockRequest
	Banner   *Banner
	// RequestID is that of the refused save, to look it up later; "" if none was refused.
	RequestID string
}

// FocusField reports whether the focus goes to the first field: there is nothing to be read first.
func (e Edit) FocusField() bool {
	return len(e.Notices) == 0 && len(e.Errors) == 0 && e.Failed == "" && e.Lost == nil
}

// Unsaved is the page with a text whose writer may not edit any more, to copy it.
type Unsaved struct {
	Frame
	Process string // its id, "" for a new one
	Fields  ProcessFields
}

// EditLock is the lock under which the page edits.
type EditLock struct {
	ID        string // names it in addresses; not a secret
	Since     time.Time
	ExpiresAt time.Time // zero if it is unknown
	Waiting   int
	Technical string // the line for administrators, "" for others
}

// Lost says how a lock ended, and how the reader can go on.
type Lost struct {
	Text  string    // one or two sentences
	At    time.Time // the time that Text says, as Clock writes it; zero if it says none
	Panel LockPanel
	Kept  bool // the text is kept as a draft
	// Calm: nobody else took anything away, as when the reader goes on in another tab.
	Calm bool
	// Deleted: the process is not there any more.
	Deleted bool
}

// ChangedMeanwhile is what other users saved.
type ChangedMeanwhile struct {
	By      string
	At      time.Time
	Changes []FieldChange
	Merged  bool // the changes are in the shown text already
}

// LockRequest is a request of another user for the lock.
type LockRequest struct {
	ID, By, Message string
	At, AnswerBy    time.Time
	Later           bool // the holder has asked for more time
}

// Conflict is the page on which an editor decides between two texts.
type Conflict struct {
	Frame
	ID       string
	Heading  string
	LockID   string
	Statuses []string
	Began    int64 // the version from which the reader began
	Base     int64 // the version that the decision is based on: the stored one
	By       string
	At       time.Time
	Own      bool // the other text is the reader's, too, from another tab or device
	Again    bool // a further save came in while the reader decided
	// BaseUnknown: what the reader began from is not known.
	BaseUnknown bool
	Fields      []ConflictField
	Kept        bool      // the reader's text is kept as a draft
	DraftKnown  time.Time // as that of Edit
	Other       time.Time // as that of Edit
	Errors      FieldErrors
	Banner      *Banner
	RequestID   string // of the refused save, to look it up later; "" if none was refused
}

// ConflictField is one field of three versions.
type ConflictField struct {
	Name               string
	Base, Mine, Theirs string
	// Changed is mine, theirs or both; a field that is the same on both sides is "".
	Changed string
	Choice  string // mine, theirs or edited
	Edited  string // the text of choice edited
	// Lines compare the two texts; LinesMine and LinesTheirs each with the one before.
	Lines, LinesMine, LinesTheirs []DiffLine
	// Cut: Lines are not all, so that the page shows the whole texts, too.
	Cut bool
}

// Open reports whether the reader has to decide.
func (f ConflictField) Open() bool { return f.Changed == "both" }
