package templates

import "time"

// History is the page with what was done to a process.
type History struct {
	Frame
	ID      string
	Heading string // the title that it has, or had
	Deleted bool
	Version int64 // the current one, 0 if it was deleted
	Entries []HistoryEntry
	// First and Next are the links to other pages of the list, "" if there are none.
	First, Next string
}

// HistoryEntry is one editing session.
type HistoryEntry struct {
	Who     string
	What    string // "edited it", in words
	At      time.Time
	EndedAt time.Time // of the last save of several, else zero
	Changes []FieldChange
	// Changed: the entry could have changes. Without any, the page says so.
	Changed    bool
	Version    int64
	LockEnded  string // how its lock ended, in words; "" if that is not known, or of no interest
	Technical  string // the line for administrators, "" for others
	Restorable bool   // the reader may make this version the current one
	Current    bool   // this version is the current one
}

// Refusal is the page on which a user finds out why a save was refused.
type Refusal struct {
	Frame
	RequestID string // as it was asked for
	Error     string // "" if there is none
	Found     *Refused
}

// Refused is why a request was refused.
type Refused struct {
	Heading string
	At      time.Time
	Who     string // "" if it is the reader's own
	Process string // its id, "" if it was about another thing
	Title   string // of the process, "" if it is unknown
	Why     string
	EndedAt time.Time // the time that Why says, as that of Lost
	Next    string    // what to do, "" if there is nothing
}
