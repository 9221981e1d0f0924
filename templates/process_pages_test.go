package templates

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"
)

// processPages renders the pages for processes in their states.
func processPages(keep func(name string) func([]byte, error), pages *Pages, frame, quiet Frame) {
	now := frame.Now
	editing := &Editing{
		Now: now, Who: hostile, Since: now.Add(-time.Hour), LastActive: now.Add(-3 * time.Minute), Reason: hostile, Waiting: 2, Place: 1,
	}
	mine := &Editing{Now: now, Who: hostile, Mine: true, Since: now}
	fields, states := ProcessFields{Title: hostile, Status: hostile, Description: hostile}, []string{"draft", hostile}
	wrong := FieldErrors{"title": hostile, "status": hostile, "description": hostile}
	lines := []DiffLine{{Kind: "kept", Text: hostile}, {Kind: "skipped", Count: 4}, {Kind: "removed", Text: hostile}, {Kind: "added", Text: hostile}, {Kind: "more", Count: 9}}
	changes := []FieldChange{{Field: "title", From: hostile, To: hostile}, {Field: "status", From: "draft"}, {Field: "description", Lines: lines}}
	banner := &Banner{Title: hostile, Text: hostile}

	keep("processes")(pages.ProcessList(ProcessList{
		Frame: frame, Query: hostile, Status: hostile, Order: "title", Statuses: states, MayEdit: true, Banner: banner, Missing: true,
		First: "/processes", Next: "/processes?cursor=" + hostile,
		Rows: []ProcessRow{{ID: "1", Title: hostile, Status: hostile, Changed: now, ChangedBy: hostile, Editing: editing}, {ID: "2", Title: "T", Status: "draft", Changed: now, Editing: mine}},
	}))
	keep("no processes")(pages.ProcessList(ProcessList{Frame: quiet, Statuses: states, MayEdit: true}))
	keep("no more processes")(pages.ProcessList(ProcessList{Frame: quiet, Query: "x", Statuses: states, First: "/processes?q=x"}))
	keep("no processes found")(pages.ProcessList(ProcessList{Frame: quiet, Query: "x", Statuses: states}))
	keep("new process")(pages.NewProcess(ProcessForm{Frame: quiet, Statuses: states}))
	keep("new process, wrong")(pages.NewProcess(ProcessForm{Frame: quiet, Fields: fields, Statuses: states, Errors: wrong}))
	keep("new process, signed out")(pages.NewProcess(ProcessForm{Frame: quiet, Fields: fields, Statuses: states, Failed: hostile, SignIn: true}))

	process := Process{
		Frame: quiet, ID: "1", Fields: fields, Changed: now, ChangedBy: hostile, Version: 3, MayEdit: true, Banner: banner,
		Draft: &Draft{SavedAt: now, Changes: changes, Older: true}, Drafts: []OtherDraft{{Who: hostile, SavedAt: now}},
	}
	for name, panel := range map[string]LockPanel{
		"process":           {Editing: editing, MayAsk: true, Technical: hostile, Force: "/locks/force?resource=" + hostile},
		"process, free":     {Note: hostile, Error: hostile},
		"process, mine":     {Editing: mine},
		"process, refused":  {Editing: editing, Refused: true, MayAsk: true, CanTake: true, Note: hostile, Error: hostile},
		"process, unknown":  {Unknown: true},
		"process, asked":    {Editing: editing, Request: &Asked{ID: hostile, At: now, AnswerBy: now, State: "open"}},
		"process, later":    {Editing: editing, Request: &Asked{ID: hostile, At: now, AnswerBy: now, State: "later", Message: hostile}},
		"process, answered": {Editing: editing, Request: &Asked{ID: hostile, At: now, State: "no", Message: hostile}},
	} {
		process.Lock = panel
		keep(name)(pages.Process(process))
	}
	keep("process, to read")(pages.Process(Process{Frame: frame, ID: "1", Fields: ProcessFields{Title: "T", Status: "draft"}, Changed: now}))

	edit := Edit{
		Frame: quiet, ID: "1", UserID: "7", Heading: hostile, Fields: fields, Statuses: states, Base: 3,
		Lock: EditLock{ID: "abcdefghijkl", Since: now, ExpiresAt: now.Add(time.Minute), Waiting: 1, Technical: hostile},
	}
	keep("edit, plain")(pages.Edit(Edit{Frame: frame, ID: "1", Heading: "T", Fields: fields, Statuses: states, Lock: EditLock{Since: now}}))
	wrongly := edit
	wrongly.Errors = wrong
	keep("edit, wrong")(pages.Edit(wrongly))
	full := edit
	full.Draft, full.Banner = now, banner
	full.Changed = &ChangedMeanwhile{By: hostile, At: now, Changes: changes, Merged: true}
	full.Requests = []LockRequest{{ID: "1", By: hostile, Message: hostile, At: now, AnswerBy: now}, {ID: "2", By: "bob", At: now, AnswerBy: now}}
	keep("edit")(pages.Edit(full))
	failed := edit
	failed.Failed, failed.SignIn = hostile, true
	keep("edit, signed out")(pages.Edit(failed))
	keep("edit, barred")(pages.Unsaved(Unsaved{Frame: quiet, Process: "1", Fields: fields}))
	keep("new process, barred")(pages.Unsaved(Unsaved{Frame: quiet}))
	for name, lost := range map[string]*Lost{
		"edit, lost":    {Text: hostile + " at " + Clock(now, now) + hostile, At: now, Kept: true, Panel: LockPanel{Editing: editing, MayAsk: true}},
		"edit, ended":   {Text: hostile, Calm: true},
		"edit, own":     {Text: hostile, Panel: LockPanel{Editing: mine}},
		"edit, to take": {Text: hostile, Panel: LockPanel{Editing: editing, CanTake: true}},
		"edit, no more": {Text: hostile, Deleted: true},
	} {
		edit.Lost = lost
		keep(name)(pages.Edit(edit))
	}

	conflict := Conflict{
		Frame: quiet, ID: "1", Heading: hostile, LockID: "abcdefghijkl", Statuses: states, Began: 1, Base: 3, By: hostile, At: now, Again: true, Kept: true,
		Fields: []ConflictField{
			{Name: "title", Base: hostile, Mine: hostile, Theirs: hostile, Changed: "both", Edited: hostile},
			{Name: "status", Base: hostile, Mine: "active", Theirs: hostile, Changed: "theirs", Choice: "theirs"},
			{Name: "description", Mine: hostile, Theirs: hostile, Changed: "both", Choice: "edited", Edited: hostile, Lines: lines, LinesMine: lines, LinesTheirs: lines},
		},
	}
	keep("conflict")(pages.Conflict(conflict))
	conflict.Own, conflict.BaseUnknown, conflict.Errors, conflict.Banner = true, true, wrong, banner
	conflict.Fields[1] = ConflictField{Name: "status", Mine: "active", Theirs: "paused", Changed: "both"}
	conflict.Fields[2] = ConflictField{Name: "description", Base: "a", Mine: "b", Changed: "mine", Choice: "mine", Lines: lines}
	keep("conflict, own")(pages.Conflict(conflict))

	keep("history")(pages.History(History{
		Frame: frame, ID: "1", Heading: hostile, Next: "/processes/1/history?cursor=" + hostile, First: "/processes/1/history",
		Entries: []HistoryEntry{
			{Who: hostile, What: "edited it", At: now, EndedAt: now.Add(time.Hour), Changes: changes, Changed: true, Version: 3, LockEnded: hostile, Technical: hostile, Current: true},
			{Who: hostile, What: "saved", At: now, Changed: true, Version: 2, Restorable: true},
		},
	}))
	keep("no more history")(pages.History(History{Frame: quiet, ID: "1", Heading: hostile, First: "/processes/1/history"}))
	keep("history, deleted")(pages.History(History{Frame: quiet, ID: "1", Heading: hostile, Deleted: true}))
	keep("refusal")(pages.Refusal(Refusal{Frame: quiet, RequestID: hostile, Error: hostile}))
	keep("refusal, found")(pages.Refusal(Refusal{
		Frame: quiet, RequestID: hostile, Found: &Refused{Heading: hostile, At: now, Who: hostile, Process: "1", Title: hostile, Why: hostile, Next: hostile},
	}))
}

// A browser drops the line end that follows <textarea>: one more is there, so that a text that
// begins with an empty line keeps it.
func TestTextareaKeepsEmptyFirstLine(t *testing.T) {
	page, err := newPages(t).Edit(Edit{Frame: Frame{Title: "T"}, ID: "1", Fields: ProcessFields{Description: "\n\nthird line\n"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range elements(t, page) {
		if n.Data == "textarea" {
			if n.FirstChild == nil || n.FirstChild.Data != "\n\nthird line\n" {
				t.Errorf("a browser reads %+v", n.FirstChild)
			}
			return
		}
	}
	t.Error("no textarea")
}

// Enter in a field presses the first button of a form: that must be Save.
func TestFirstButtonSaves(t *testing.T) {
	for name, page := range everyPage(t) {
		if !strings.HasPrefix(name, "edit") || strings.Contains(name, "lost") || !bytes.Contains(page, []byte(`name="then"`)) {
			continue
		}
		form := page[bytes.Index(page, []byte(`<form id="edit"`)):]
		first := form[bytes.Index(form, []byte("<button")):]
		if !bytes.HasPrefix(first, []byte(`<button class="primary" name="then" value="stay">Save</button>`)) {
			t.Errorf("%s: the first button is %.80s", name, first)
		}
	}
}

func TestOfficeWords(t *testing.T) {
	now := time.Date(2026, 11, 15, 14, 5, 0, 0, time.UTC)
	for at, want := range map[time.Time]string{
		now.Add(-3 * time.Minute):          "14:02 UTC",
		now.AddDate(0, 0, -3):              "12 Nov, 14:05 UTC",
		now.AddDate(-1, 0, 0):              "15 Nov 2025, 14:05 UTC",
		now.In(time.FixedZone("", 7*3600)): "14:05 UTC",
	} {
		if got := Clock(now, at); got != want {
			t.Errorf("clock of %s: %q, want %q", at, got, want)
		}
	}
	for before, want := range map[time.Duration]string{
		-time.Second: "just now", 59 * time.Second: "just now", 3 * time.Minute: "3 min ago", 119 * time.Minute: "1 h ago",
		24 * time.Hour: "1 day ago", 50 * time.Hour: "2 days ago",
	} {
		if got := ago(now, now.Add(-before)); got != want {
			t.Errorf("%s before: %q, want %q", before, got, want)
		}
	}
	for editing, want := range map[Editing]string{
		{}: "", {Waiting: 1}: "1 is waiting", {Waiting: 2}: "2 are waiting", {Waiting: 1, Place: 1}: "you are next",
		{Waiting: 2, Place: 1}: "2 are waiting, you are next", {Waiting: 3, Place: 3}: "3 are waiting, 2 ahead of you",
	} {
		if got := editing.Queue(); got != want {
			t.Errorf("%+v: %q, want %q", editing, got, want)
		}
	}
	page, err := newPages(t).Process(Process{
		Frame: Frame{Title: "T", Now: now}, ID: "1", Changed: now,
		Lock: LockPanel{Editing: &Editing{Now: now, Who: "Alice", Since: now.Add(-3 * time.Minute), LastActive: now.Add(-3 * time.Minute), Reason: "new supplier", Waiting: 2, Place: 1}},
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = "Alice is editing since 14:02 UTC, last change 3 min ago, “new supplier”; 2 are waiting, you are next."
	for _, n := range elements(t, page) {
		if id, _ := attribute(n, "id"); id == "editing" {
			if got := text(n); got != want {
				t.Errorf("%q, want %q", got, want)
			}
			return
		}
	}
	t.Errorf("nobody is editing: %s", page)
}

// TestTimesOfAHistoryEntry: an editing session that is over in a minute has one time.
func TestTimesOfAHistoryEntry(t *testing.T) {
	now := time.Date(2026, 11, 15, 14, 5, 0, 0, time.UTC)
	for seconds, want := range map[int]string{10: "Alice edited it at 14:02 UTC", 70: "Alice edited it from 14:02 UTC until 14:03 UTC"} {
		began := now.Add(-3 * time.Minute)
		page, err := newPages(t).History(History{Frame: Frame{Title: "T", Now: now}, ID: "1", Entries: []HistoryEntry{
			{Who: "Alice", What: "edited it", At: began, EndedAt: began.Add(time.Duration(seconds) * time.Second)},
		}})
		if err != nil {
			t.Fatal(err)
		}
		headings := slices.DeleteFunc(elements(t, page), func(n *html.Node) bool { return n.Data != "h2" })
		if len(headings) != 1 || text(headings[0]) != want {
			t.Errorf("after %d s the heading is not %q: %s", seconds, want, page)
		}
	}
}

// TestWordsForTheAsker: what the page says of a request for the lock stays true when its time has
// passed.
func TestWordsForTheAsker(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 15, 14, 5, 0, 0, time.UTC)
	for _, row := range []struct {
		state    string
		answerBy time.Time
		want     string
		free     bool
		ask      bool
	}{
		{"open", now.Add(time.Minute), "If there is no answer by 14:06 UTC and nobody is typing, it is yours, unless another user asked before you.", false, false},
		{"open", now, "There was no answer: it passes to the first who asked, once its holder has not typed for a while.", false, false},
		{"later", now.Add(time.Minute), "The answer: a few more minutes, until 14:06 UTC.", false, false},
		{"later", now, "until 14:05 UTC. That time is over: it passes to the first who asked, once its holder has not typed for a while.", false, false},
		{"expired", now, "You asked for it at 14:05 UTC, and were away for too long: your request is over.", false, true},
		{"expired", now, "and were away for too long: your request is over.", true, false},
		{"given", now, "Alice is editing since 14:05 UTC.", false, true}, // the asker had it
	} {
		editing := &Editing{Now: now, Who: "Alice", Since: now}
		if row.free {
			editing = nil
		}
		page, err := newPages(t).Process(Process{
			Frame: Frame{Title: "T", Now: now}, ID: "1", Changed: now, MayEdit: true,
			Lock: LockPanel{Editing: editing, MayAsk: !row.free, Request: &Asked{ID: "1", At: now, AnswerBy: row.answerBy, State: row.state}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(elements(t, page), func(n *html.Node) bool { return n.Data == "p" && strings.HasSuffix(text(n), row.want) }) {
			t.Errorf("%s, %s: the page has not %q: %s", row.state, row.answerBy, row.want, page)
		}
		if asks := strings.Contains(string(page), ">Ask</button>"); asks != row.ask {
			t.Errorf("%s: the reader can ask: %t", row.state, asks)
		}
	}
}
