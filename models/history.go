package models

import (
	"encoding/json"
	"time"
)

// The values of HistoryEntry.How and WriteGuard.How.
const (
	HowCreated     = "created"
	HowEdited      = "edited"
	HowQuickUpdate = "quick-update"
	HowRestored    = "restored"
	HowDeleted     = "deleted"
	HowRefused     = "refused"
)

// HistoryEntry is what one user did to a process in one editing session: all saves in a row under
// one grant of its lock.
type HistoryEntry struct {
	ID        string
	At        time.Time
	EndedAt   time.Time // of the last save of several, else zero
	Actor     UserRef
	How       string
	Changes   []Change // against the version before; empty if that is not known
	Version   int64    // the last one, 0 without: a deletion, a refused save
	Fence     *int64   // nil without Redis, and without a lock
	LockEnded *LockEnd // nil as long as it is not known
	RequestID string   // of the last save, "" if it is not known
}

// Change is a field that has another value than before.
type Change struct {
	Field string `json:"field"`
	From  string `json:"from"`
	To    string `json:"to"`
}

// Changes are the fields that differ, in the order of the form.
func Changes(from, to ProcessFields) []Change {
	changes := []Change{}
	for _, field := range []Change{
		{"title", from.Title, to.Title}, {"status", from.Status, to.Status}, {"description", from.Description, to.Description},
	} {
		if field.From != field.To {
			changes = append(changes, field)
		}
	}
	return changes
}

// KeepRefusals is how long refusals are kept.
const KeepRefusals = 24 * time.Hour

// Refusal is why a request of a user to write or to lock was refused, as it was answered.
type Refusal struct {
	RequestID string
	User      UserRef
	At        time.Time
	Status    int
	Type      string // the name of the problem
	Resource  string // such as process:42
	// Save says that the request would have made a version of the process.
	Save bool
	// Version is the one that the process had, 0 if the answer did not say.
	Version int64
	Detail  string
	Holder  json.RawMessage // as it was answered, nil if it was not
	EndedBy json.RawMessage // the same
}
