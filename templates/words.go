package templates

import (
	"fmt"
	"strings"
	"time"
)

// Clock is a time as people say it, for browsers without JavaScript: 14:02 today, with the day
// before that, and with the year where it is another. It is in UTC.
func Clock(now, t time.Time) string {
	now, t = now.UTC(), t.UTC()
	switch {
	case now.Year() != t.Year():
		return t.Format("2 Jan 2006, 15:04 UTC")
	case now.YearDay() != t.YearDay():
		return t.Format("2 Jan, 15:04 UTC")
	}
	return t.Format("15:04 UTC")
}

// on is the word before a time that Clock says: at 14:02, but on 2 Jan, 14:02.
func on(now, t time.Time) string {
	now, t = now.UTC(), t.UTC()
	if now.Year() == t.Year() && now.YearDay() == t.YearDay() {
		return "at"
	}
	return "on"
}

// ago is how long before now t was, in the largest unit that fits.
func ago(now, t time.Time) string {
	switch d := now.Sub(t); {
	case d < time.Minute:
		return "just now"
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", d/time.Minute)
	case d < 24*time.Hour:
		return fmt.Sprintf("%d h ago", d/time.Hour)
	default:
		return number(int(d/(24*time.Hour)), "day", "days") + " ago"
	}
}

// wordsFor is the name of a field, as the pages have it.
func wordsFor(field string) string {
	switch field {
	case "title":
		return "Title"
	case "status":
		return "Status"
	case "description":
		return "Description"
	}
	return field
}

// exact is a time as a form carries it, "" for the zero time.
func exact(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// timed is a text in the parts before and after a time that Clock wrote; in one, if it has no such
// time.
type timed struct {
	moment
	Parts []string
}

func timedText(now, at time.Time, text string) timed {
	said := timed{moment{now, at}, []string{text}}
	if !at.IsZero() {
		said.Parts = strings.SplitN(text, Clock(now, at), 2)
	}
	return said
}
