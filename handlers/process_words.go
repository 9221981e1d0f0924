package handlers

import (
	"errors"
	"fmt"
	"time"

	"gatehouse/models"
	"gatehouse/services/merge"
	"gatehouse/templates"
)

const (
	// contextLines are how many lines a comparison shows around a change.
	contextLines = 2
	// changeLines are the most lines that a page shows of a change. A description can have
	// 10,000, a draft of it 100,000, and a page of the history 25 changes.
	changeLines = 200
)

// shownChanges are the changes from one version to another.
func shownChanges(from, to models.ProcessFields) []templates.FieldChange {
	var shown []templates.FieldChange
	for _, field := range merge.Changes(from, to) {
		change := templates.FieldChange{Field: field.Name, From: field.Base, To: field.Theirs}
		if field.Name == merge.Description {
			change.Lines = changedLines(field.Base, field.Theirs)
		}
		shown = append(shown, change)
	}
	return shown
}

// changedLines is a comparison of two texts line by line: changeLines of it, and how many more
// there are.
func changedLines(from, to string) []templates.DiffLine { return firstLines(shownLines(from, to)) }

func shownLines(from, to string) []templates.DiffLine {
	kinds := map[merge.Kind]string{merge.Kept: "kept", merge.Removed: "removed", merge.Added: "added", merge.Skipped: "skipped"}
	var shown []templates.DiffLine
	for _, line := range merge.Lines(from, to, contextLines) {
		shown = append(shown, templates.DiffLine{Kind: kinds[line.Kind], Text: line.Text, Count: line.Count})
	}
	return shown
}

func firstLines(lines []templates.DiffLine) []templates.DiffLine {
	if len(lines) <= changeLines {
		return lines
	}
	more := templates.DiffLine{Kind: "more"}
	for _, line := range lines[changeLines:] {
		more.Count += max(1, line.Count)
	}
	return append(lines[:changeLines:changeLines], more)
}

// technical is what an administrator may want to know of a lock.
func technical(now time.Time, status models.LockStatus) string {
	if !status.Held {
		return ""
	}
	text := fmt.Sprintf("%s, grant %s", status.Resource, status.Grant)
	if status.Fence != nil {
		text += fmt.Sprintf(", fence %d", *status.Fence)
	}
	return text + fmt.Sprintf(", %d s left", seconds(status.ExpiresAt.Sub(now)))
}

// lostLock is a lock that its user does not have any more: its state now, and how the user's grant
// ended; nil if that is not known.
type lostLock struct {
	status models.LockStatus
	end    *models.LockEnd
}

// lostOf is what an error says of a lost lock; ok is false if it says nothing.
func lostOf(err error) (lost lostLock, ok bool) {
	var notHeld *models.NotHeldError
	var taken *models.NotAcquiredError
	switch {
	case errors.As(err, &notHeld):
		return lostLock{notHeld.Status, notHeld.EndedBy}, true
	case errors.As(err, &taken):
		return lostLock{status: taken.Status}, true
	}
	return lost, false
}

// endInWords says how a lock ended to the user who had it. calm: nobody else took it.
func endInWords(now time.Time, lost lostLock, me models.UserRef) (text string, calm bool) {
	holder := models.UserRef{ID: lost.status.Holder.UserID, Email: lost.status.Holder.Email}
	if lost.end != nil {
		text, calm = wayInWords(now, *lost.end, me)
		if lost.status.Held && holder.ID != me.ID && holder.ID != lost.end.By.ID {
			return text + " " + nameOf(holder) + " is editing this now.", false
		}
		return text, calm
	}
	switch {
	case !lost.status.Held:
		return "Your lock has ended.", true
	case holder.ID == me.ID:
		return "You are editing this in another tab, or on another device.", true
	}
	return nameOf(holder) + " is editing this now.", false
}

// heldInWords says who has the lock that a user was refused.
func heldInWords(err error, user models.UserRef) string {
	held, _ := lostOf(err)
	switch holder := held.status.Holder; {
	case !held.status.Held:
		return "another user is next. Try again in a moment."
	case holder.UserID == user.ID:
		return "you are editing this in another tab, or on another device."
	default:
		return nameOf(models.UserRef{ID: holder.UserID, Email: holder.Email}) + " is editing this now."
	}
}

// wayInWords says how, by whom, why and when a lock of the user ended.
func wayInWords(now time.Time, end models.LockEnd, me models.UserRef) (text string, calm bool) {
	who, when, own := "An administrator", templates.Clock(now, end.At), end.By.ID == me.ID
	if end.By.ID != "" {
		who = nameOf(end.By)
	}
	switch end.How {
	case models.LockExpired:
		return "Your lock ran out at " + when + ".", true
	case models.LockReleased:
		return "You stopped editing at " + when + ", perhaps in another tab.", true
	case models.LockTakenOver:
		if own {
			return "You went on in another tab, or on another device, at " + when + ".", true
		}
		text = who + " took it over at " + when + ", after there was no sign of life from you for a while"
	case models.LockGiven:
		switch {
		case own:
			text = "You gave it away at " + when
		case end.By.ID != "":
			text = who + ", who had asked for it, got it at " + when
		default:
			text = "It was passed on at " + when + " to a user who had asked for it"
		}
	case models.LockForced:
		text = who + " ended your lock at " + when
	case models.LockUserDisabled:
		return "Your account was disabled at " + when + ".", false
	case models.LockProcessDeleted:
		text = "The process was deleted at " + when
		if end.By.ID != "" {
			text += " by " + nameOf(end.By)
		}
	default:
		text = "Your lock ended at " + when
	}
	if end.Reason != "" {
		text += ": “" + end.Reason + "”"
	}
	return text + ".", false
}
