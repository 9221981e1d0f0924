package handlers_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"gatehouse/models"
)

// conflicted is ann's page after she typed something while bob saved something else.
func (s *site) conflicted(t *testing.T, process models.Process, mine, theirs models.ProcessFields) *tab {
	t.Helper()
	draft := models.Draft{Title: mine.Title, Status: mine.Status, Description: mine.Description, BaseVersion: process.Version}
	_, err := s.Processes.SaveDraft(t.Context(), s.user(t, ann), process.ID, draft, time.Time{})
	check(t, err)
	s.writes(t, bob, process.ID, func(f *models.ProcessFields) { *f = theirs })
	return s.signedIn(t, ann).begins(t, process.ID)
}

func TestConflict(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	fields := func(title, status, description string) models.ProcessFields {
		return models.ProcessFields{Title: title, Status: status, Description: description}
	}
	const was = "Ten boxes.\nBy Friday.\nCheap.\nWhite."

	t.Run("shows what each side has, and saves what is decided", func(t *testing.T) {
		process := s.process(t, "Order paper", was)
		path := "/processes/" + process.ID
		tab := s.conflicted(t, process, fields("Order ink", "draft", "Twelve boxes.\nBy Friday.\nCheap.\nWhite."), fields("Order pens", "active", "Ten boxes.\nBy Friday.\nCheap.\nBlue."))
		page := tab.get(tab.path)
		shows(t, page, http.StatusOK, "<strong>"+bob+"</strong> saved", "When you began: Order paper", "Mine: Order ink", "What "+bob+" saved: Order pens",
			"Only "+bob+" changed this", "<ins>Twelve boxes.</ins>", "<del>Blue.</del>")
		tab.has(t, "base", "2")
		tab.has(t, "began", "1")
		tab.has(t, "description.edited", "Twelve boxes.\r\nBy Friday.\r\nCheap.\r\nBlue.") // both changes: they are in different lines
		w := tab.presses("/edit/resolve", "title.choice", "mine")
		shows(t, w, http.StatusUnprocessableEntity, "Decide about this one, too.", "Mine: Order ink", "When you began: Order paper")
		tab.opened(t, w, process.ID, "").has(t, "title.choice", "mine")
		w = tab.presses("/edit/resolve", "title.choice", "edited", "title.edited", " ", "description.choice", "edited")
		shows(t, w, http.StatusUnprocessableEntity, "Write a title")
		if got := s.now(t, process.ID); got.Version != 2 {
			t.Fatalf("saved before it was decided: %+v", got)
		}
		goesTo(t, tab.presses("/edit/resolve", "title.choice", "edited", "title.edited", "Order ink and pens", "description.choice", "edited"), path+"/edit")
		got := s.now(t, process.ID)
		if got.Title != "Order ink and pens" || got.Status != "active" || got.Description != "Twelve boxes.\nBy Friday.\nCheap.\nBlue." || got.UpdatedBy.Email != ann {
			t.Errorf("stored: %+v", got)
		}
		if s.draft(t, ann, process.ID) != nil {
			t.Error("the draft is still there")
		}
	})
	t.Run("mine and theirs", func(t *testing.T) {
		process := s.process(t, "Order paper", was)
		tab := s.conflicted(t, process, fields("Order ink", "paused", was), fields("Order pens", "active", was))
		goesTo(t, tab.presses("/edit/resolve", "title.choice", "mine", "status.choice", "theirs"), "/processes/"+process.ID+"/edit")
		if got := s.now(t, process.ID); got.Title != "Order ink" || got.Status != "active" || got.Description != was {
			t.Errorf("stored: %+v", got)
		}
	})
	t.Run("a third save begins again from what was decided", func(t *testing.T) {
		process := s.process(t, "Order paper", was)
		path := "/processes/" + process.ID
		tab := s.conflicted(t, process, fields("Order ink", "draft", was), fields("Order pens", "draft", was))
		s.writesAnyway(t, process.ID, "Order crayons")
		w := tab.presses("/edit/resolve", "title.choice", "edited", "title.edited", "Order ink and pens")
		shows(t, w, http.StatusConflict, "That came in while you decided", "When you began: Order pens", "Mine: Order ink and pens", "Order crayons")
		again := tab.opened(t, w, process.ID, "")
		again.has(t, "base", "3")
		if got := s.draft(t, ann, process.ID); got == nil || got.Title != "Order ink and pens" || got.BaseVersion != 2 {
			t.Errorf("the draft is %+v", got)
		}
		goesTo(t, again.presses("/edit/resolve", "title.choice", "mine"), path+"/edit")
		if got := s.now(t, process.ID); got.Title != "Order ink and pens" {
			t.Errorf("stored: %+v", got)
		}
	})
	t.Run("a save is refused, and the text is kept", func(t *testing.T) {
		process := s.process(t, "Order paper", was)
		tab := s.signedIn(t, ann).begins(t, process.ID)
		s.writesAnyway(t, process.ID, "Order crayons")
		w := tab.presses("/edit/save", "title", "Order ink", "status", "active")
		shows(t, w, http.StatusConflict, "Nothing was overwritten", "Mine: Order ink", "Only you changed this", "Until then your text is kept")
		if got := s.draft(t, ann, process.ID); got == nil || got.Title != "Order ink" {
			t.Errorf("the draft is %+v", got)
		}
		goesTo(t, tab.opened(t, w, process.ID, "").presses("/edit/resolve", "title.choice", "theirs"), "/processes/"+process.ID+"/edit")
		if got := s.now(t, process.ID); got.Title != "Order crayons" || got.Status != "active" {
			t.Errorf("stored: %+v", got)
		}
	})
	t.Run("fields of one side alone are no question", func(t *testing.T) {
		process := s.process(t, "Order paper", was)
		tab := s.signedIn(t, ann).begins(t, process.ID)
		s.writesAnyway(t, process.ID, "Order crayons")
		w := tab.presses("/edit/save", "status", "active")
		goesTo(t, w, "/processes/"+process.ID+"/edit")
		shows(t, tab.get(w.Header().Get("Location")), http.StatusOK, "Your changes are saved, together with what "+bob+" saved meanwhile.")
		if got := s.now(t, process.ID); got.Title != "Order crayons" || got.Status != "active" {
			t.Errorf("stored: %+v", got)
		}
	})
	t.Run("leaving keeps what was decided", func(t *testing.T) {
		process := s.process(t, "Order paper", was)
		path := "/processes/" + process.ID
		tab := s.conflicted(t, process, fields("Order ink", "draft", was), fields("Order pens", "draft", was))
		goesTo(t, tab.presses("/edit/cancel", "title.choice", "edited", "title.edited", "Order both"), path)
		shows(t, tab.get(path), http.StatusOK, "You left changes", "Order both", "Nobody is editing this.")
	})
	t.Run("of two statuses a third one can be chosen", func(t *testing.T) {
		process := s.process(t, "Order paper", was)
		tab := s.conflicted(t, process, fields("Order paper", "active", was), fields("Order paper", "paused", was))
		shows(t, tab.get(tab.path), http.StatusOK, `<select id="status" name="status.edited">`)
		goesTo(t, tab.presses("/edit/resolve", "status.choice", "edited", "status.edited", "completed"), "/processes/"+process.ID+"/edit")
		if got := s.now(t, process.ID); got.Status != "completed" {
			t.Errorf("stored: %+v", got)
		}
	})
	t.Run("leaving keeps one's own text, whatever was chosen", func(t *testing.T) {
		process := s.process(t, "Order paper", was)
		tab := s.conflicted(t, process, fields("Order ink", "draft", was), fields("Order pens", "draft", was))
		goesTo(t, tab.presses("/edit/cancel", "title.choice", "theirs"), "/processes/"+process.ID)
		if got := s.draft(t, ann, process.ID); got == nil || got.Title != "Order ink" || got.BaseVersion != 1 {
			t.Errorf("the draft is %+v", got)
		}
	})
	t.Run("leaving undecided keeps the draft", func(t *testing.T) {
		process := s.process(t, "Order paper", was)
		path := "/processes/" + process.ID
		tab := s.conflicted(t, process, fields("Order ink", "draft", was), fields("Order pens", "draft", was))
		goesTo(t, tab.presses("/edit/cancel"), path)
		if got := s.draft(t, ann, process.ID); got == nil || got.Title != "Order ink" || got.BaseVersion != 1 {
			t.Errorf("the draft is %+v", got)
		}
	})
	t.Run("leaving with something undecided keeps what was written", func(t *testing.T) {
		process := s.process(t, "Order paper", was)
		tab := s.conflicted(t, process, fields("Order ink", "draft", "Mine."), fields("Order pens", "draft", "Theirs."))
		goesTo(t, tab.presses("/edit/cancel", "description.choice", "edited", "description.edited", "Both."), "/processes/"+process.ID)
		if got := s.draft(t, ann, process.ID); got == nil || got.Title != "Order ink" || got.Description != "Both." || got.BaseVersion != 1 {
			t.Errorf("the draft is %+v", got)
		}
	})
	t.Run("what is written is chosen with it, or asked about", func(t *testing.T) {
		process := s.process(t, "Order paper", was)
		theirs := fields("Order paper", "draft", "Theirs.")
		tab := s.conflicted(t, process, fields("Order paper", "draft", "Mine."), theirs)
		goesTo(t, tab.presses("/edit/cancel", "description.edited", "Both."), "/processes/"+process.ID)
		if got := s.draft(t, ann, process.ID); got == nil || got.Description != "Both." {
			t.Errorf("the draft is %+v", got)
		}
		process = s.process(t, "Order paper", was)
		tab = s.conflicted(t, process, fields("Order paper", "draft", "Mine."), theirs)
		w := tab.presses("/edit/resolve", "description.choice", "mine", "description.edited", "All three.")
		shows(t, w, http.StatusUnprocessableEntity, "You wrote something here, too: choose once more.", "All three.")
		again := tab.opened(t, w, process.ID, "")
		goesTo(t, again.presses("/edit/resolve"), "/processes/"+process.ID+"/edit")
		if got := s.now(t, process.ID); got.Description != "Mine." {
			t.Errorf("stored: %+v", got)
		}
	})
	t.Run("a text that does not fit is shown with the mark, also where there is nothing to decide", func(t *testing.T) {
		process := s.process(t, "Order paper", was)
		tab := s.conflicted(t, process, fields("Order ink", "draft", strings.Repeat("x", 10_001)), fields("Order pens", "draft", was))
		w := tab.presses("/edit/resolve", "title.choice", "mine")
		shows(t, w, http.StatusUnprocessableEntity, `id="description-error"`, `value="Order ink"`)
	})
	t.Run("leaving keeps the text on the page, if the process is not there any more", func(t *testing.T) {
		process := s.process(t, "Order paper", was)
		tab := s.conflicted(t, process, fields("Order ink", "draft", was), fields("Order pens", "draft", was))
		check(t, s.db.DeleteProcess(t.Context(), process.ID, s.user(t, bob).ID, models.WriteGuard{GrantedVersion: s.now(t, process.ID).Version}))
		shows(t, tab.presses("/edit/cancel"), http.StatusNotFound, "The process was deleted.", `value="Order ink"`)
	})
	t.Run("of long texts it shows the first lines, and both texts as a whole", func(t *testing.T) {
		long := func(line string) (text string) {
			for i := range 1600 {
				text += fmt.Sprintf("%s%d\n", line, i)
			}
			return text
		}
		process := s.process(t, "Order paper", long("a"))
		tab := s.conflicted(t, process, fields("Order paper", "draft", long("m")), fields("Order paper", "draft", long("t")))
		page := tab.get(tab.path)
		shows(t, page, http.StatusOK, "3000 more lines are not shown", "Your text, all of it", "The text of "+bob+", all of it", "t1599\n</div>", "m1599\n</div>")
		if size, most := page.Body.Len(), 5*len(long("a"))+3*200*100; size > most {
			t.Errorf("the page has %d bytes, want at most %d", size, most)
		}
		goesTo(t, tab.presses("/edit/resolve", "description.choice", "theirs"), "/processes/"+process.ID+"/edit")
		if got := s.now(t, process.ID); got.Description != long("t") {
			t.Errorf("stored %d characters", len(got.Description))
		}
	})
	t.Run("nonsense", func(t *testing.T) {
		process := s.process(t, "Order paper", was)
		a := s.signedIn(t, ann)
		path := "/processes/" + process.ID + "/edit/resolve"
		for _, base := range []string{"", "0", "x", "-1"} {
			shows(t, a.post(path, "base", base), http.StatusUnprocessableEntity)
		}
		shows(t, a.post(path, "base", "99"), http.StatusNotFound)
		shows(t, a.post(path, "base", "1", "title.choice", "nothing"), http.StatusUnprocessableEntity, "Decide about this one, too.")
		shows(t, a.post(path, "base", "1", "title.mine", strings.Repeat("x", 1<<20)), http.StatusRequestEntityTooLarge)
	})
}

// writesAnyway writes without the lock, as another instance may while locks are not shared.
func (s *site) writesAnyway(t *testing.T, id, title string) {
	t.Helper()
	process := s.now(t, id)
	fields := models.ProcessPatch{Title: &title}.Apply(process)
	_, err := s.db.UpdateProcess(t.Context(), id, s.user(t, bob).ID, fields, models.WriteGuard{GrantedVersion: process.Version})
	check(t, err)
}
