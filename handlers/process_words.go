package handlers

import (
	"errors"
	"fmt"
	"time"

	"gatehouse/models"
	"gatehouse/services/merge"
	"gatehouse/templates"
)

// contextLines are how many lines a comparison shows around a change.
const contextLines = 2

// shownChanges are the changes from one version to another.
func shownChanges(from, to models.ProcessFields) []templates.FieldChange {
	var shown []templates.FieldChange
	for _, field := range merge.Changes(from, to) {
		change := templates.FieldChange{Field: field.Name, From: field.Base, To: field.Theirs}
		if field.Name == merge.Description {
			change.Lines = shownLines(field.Base, field.Theirs)
		}
		shown = append(shown, change)
	}
	return shown
}

// shownLines is a comparison of two texts line by line.
func shownLines(from, to string) []templates.DiffLine {
	kinds := map[merge.Kind]string{merge.Kept: "kept", merge.Removed: "removed", merge.Added: "added", merge.Skipped: "skipped"}
	var shown []templates.DiffLine
	for _, line := range merge.Lines(from, to, contextLines) {
		shown = append(shown, templates.DiffLine{Kind: kinds[line.Kind], Text: line.Text, Count: line.Count})
	}
	return shown
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

// lostStatus is the state of a lock as an error has it; ok is false if it does not say.
func lostStatus(err error) (status models.LockStatus, ok bool) {
	var lost *models.NotHeldError
	var taken *models.NotAcquiredError
	switch {
	case errors.As(err, &lost):
		return lost.Status, true
	case errors.As(err, &taken):
		return taken.Status, true
	}
	return status, false
}

// endInWords says how a lock ended to the user who had it. calm: nobody else took it.
func endInWords(status models.LockStatus, me models.UserRef) (text string, calm bool) {
	switch {
	case !status.Held:
		return "Your lock has ended.", true
	case status.Holder.UserID == me.ID:
		return "You are editing this in another tab, or on another device.", true
	}
	return nameOf(models.UserRef{ID: status.Holder.UserID, Email: status.Holder.Email}) + " is editing this now.", false
}
