package handlers_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services"
	"gatehouse/services/servicestest"
)

// runsOut makes the lock of a page run out.
func (tab *tab) runsOut(t *testing.T, email string) {
	t.Helper()
	_, err := tab.site.Processes.Extend(t.Context(), tab.site.user(t, email), tab.id, tab.lockCookie().Value, 10*time.Millisecond)
	check(t, err)
	servicestest.Eventually(t, func() bool { return !tab.site.locked(t, "process:"+tab.id) }, "the lock never runs out")
}

func TestGoOnHere(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	process := s.process(t, "Order paper", "Ten boxes.")
	path := "/processes/" + process.ID
	former, here := s.signedIn(t, ann).begins(t, process.ID), s.signedIn(t, ann)
	shows(t, here.get(path), http.StatusOK, "<strong>You</strong> are editing since", "Go on here")
	shows(t, here.post(path+"/edit"), http.StatusLocked, "Go on here")
	tab := here.begins(t, process.ID, "takeOver", "true")
	goesTo(t, tab.presses("/edit/save", "title", "Order ink"), path+"/edit")

	w := former.presses("/edit/save", "description", "Twelve boxes.")
	shows(t, w, http.StatusConflict, "You went on in another tab, or on another device, at", "Go on here", "kept for you", `<div class="notice" id="lost"`)
	if got := s.now(t, process.ID); got.Title != "Order ink" || got.Description != "Ten boxes." {
		t.Errorf("stored: %+v", got)
	}
	back := former.follows(t, former.opened(t, w, process.ID, "").presses("/edit", "takeOver", "true"), process.ID)
	back.has(t, "title", "Order ink") // nothing of it is in question: the tabs changed other fields
	back.has(t, "description", "Twelve boxes.")
	if page := former.get(back.path).Body.String(); strings.Contains(page, "Changed while you looked") {
		t.Errorf("one's own save is shown as another's: %s", page)
	}
	goesTo(t, back.presses("/edit/save", "then", "close"), path)
	if got := s.now(t, process.ID); got.Title != "Order ink" || got.Description != "Twelve boxes." {
		t.Errorf("stored: %+v", got)
	}
}

func TestTakeOverPage(t *testing.T) {
	t.Parallel()
	s := newUnprotectedSite(t)
	process := s.process(t, "Order paper", "Ten boxes.")
	path := "/processes/" + process.ID
	theirs := s.signedIn(t, ann).begins(t, process.ID)
	b := s.signedIn(t, bob)
	shows(t, b.get(path), http.StatusOK, "They have not been active for a while", "Take it over")
	if strings.Contains(s.signedIn(t, vic).get(path).Body.String(), "Take it over") {
		t.Error("a viewer may take it over")
	}
	shows(t, b.post(path+"/edit"), http.StatusLocked, "Take it over")
	tab := b.begins(t, process.ID, "takeOver", "true")
	if state := theirs.get(path + "/edit/state?lock=" + theirs.fields.Get("lock")).Body.String(); !strings.Contains(state, `"takeOver":"protection-over"`) {
		t.Errorf("the script is not told that it may be taken back: %s", state)
	}
	w := theirs.presses("/edit/save", "title", "Order ink")
	shows(t, w, http.StatusConflict, bob+` took it over at <time class="clock" datetime="`, `</time>, after there was no sign of life`, `<div class="notice failed" id="lost"`, "Take it over with this text", `value="Order ink"`)
	theirs.isKept(t, "Order ink")
	goesTo(t, tab.presses("/edit/save", "description", "Twelve boxes.", "then", "close"), path)
	mine := theirs.follows(t, theirs.opened(t, w, process.ID, "").presses("/edit"), process.ID)
	mine.has(t, "title", "Order ink")
	mine.has(t, "description", "Twelve boxes.")
	shows(t, theirs.get(mine.path), http.StatusOK, "Changed while you looked.", bob+" saved at")
}

// Who begins on a page that others have overtaken is told what others changed, and not what they
// changed themselves meanwhile.
func TestChangedWhileLooking(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	process := s.process(t, "Order paper", "Ten boxes.")
	s.writes(t, bob, process.ID, func(f *models.ProcessFields) { f.Status, f.Description = "active", "Eleven boxes." })
	s.writes(t, "admin@example.com", process.ID, func(f *models.ProcessFields) { f.Description = "Thirteen boxes." })
	s.writes(t, ann, process.ID, func(f *models.ProcessFields) { f.Description = "Twelve boxes." })
	a := s.signedIn(t, ann)
	for seen, told := range map[string]bool{"1": true, "2": false, "3": false, "4": false} {
		tab := a.begins(t, process.ID, "seen", seen)
		page := a.get(tab.path)
		if told {
			shows(t, page, http.StatusOK, "Changed while you looked.", bob+" saved at", "<ins>active</ins>")
		}
		if text := page.Body.String(); !told && strings.Contains(text, "Changed while you looked") || strings.Contains(text, "<ins>Twelve boxes.") {
			t.Errorf("since version %s: one's own save is shown as another's: %s", seen, text)
		}
		goesTo(t, tab.presses("/edit/cancel"), "/processes/"+process.ID)
	}
}

func TestTakeOverIsRefused(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	process := s.process(t, "Order paper", "")
	path := "/processes/" + process.ID
	theirs := s.signedIn(t, ann).begins(t, process.ID)
	b := s.signedIn(t, bob)
	w := b.post(path+"/edit", "takeOver", "true")
	shows(t, w, http.StatusLocked, "<strong>"+ann+"</strong> is editing since")
	if strings.Contains(w.Body.String(), "Take it over") {
		t.Error("it is offered")
	}
	goesTo(t, theirs.presses("/edit/save", "title", "Order ink"), path+"/edit")
}

// Whoever lost a lock is told how, by whom and why, in the words of the page and for its script.
func TestToldWhy(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	admin := s.user(t, "admin@example.com")
	process := s.process(t, "Order paper", "Ten boxes.")
	path := "/processes/" + process.ID
	a := s.signedIn(t, ann)
	t.Run("forced", func(t *testing.T) {
		tab := a.begins(t, process.ID)
		_, err := s.Accounts.ForceLock(t.Context(), admin, "process:"+process.ID, "needed <at once>", nil, services.Client{})
		check(t, err)
		state := a.get(path + "/edit/state?lock=" + tab.fields.Get("lock")).Body.String()
		for _, want := range []string{`"held":false`, `"how":"forced"`, `"email":"admin@example.com"`, `"calm":false`, "ended your lock at"} {
			if !strings.Contains(state, want) {
				t.Errorf("the script is not told %s: %s", want, state)
			}
		}
		shows(t, tab.presses("/edit/save", "title", "Order ink"), http.StatusConflict,
			"admin@example.com ended your lock at", "“needed &lt;at once&gt;”", "Edit again with this text")
		tab.isKept(t, "Order ink")
		goesTo(t, a.get(tab.path), path)
		shows(t, a.get(path), http.StatusOK, `<p class="notice failed"`, `admin@example.com ended your lock at <time class="clock" datetime="`, `</time>: “needed`)
	})
	t.Run("run out, and nobody took it: it is no reason to refuse", func(t *testing.T) {
		tab := a.begins(t, process.ID)
		tab.runsOut(t, ann)
		w := tab.presses("/edit/save", "title", "Order pens")
		again := tab.follows(t, w, process.ID)
		if got := s.now(t, process.ID); got.Title != "Order pens" {
			t.Errorf("stored: %+v", got)
		}
		goesTo(t, again.presses("/edit/save", "title", "Order red pens"), path+"/edit")
		goesTo(t, again.presses("/edit/cancel", "title", "Order red pens"), path)
	})
	t.Run("run out, and another has it", func(t *testing.T) {
		tab := a.begins(t, process.ID)
		tab.runsOut(t, ann)
		theirs := s.signedIn(t, bob).begins(t, process.ID)
		shows(t, tab.presses("/edit/save", "title", "Order crayons"), http.StatusConflict, "Your lock ran out at", bob+" is editing this now.")
		tab.isKept(t, "Order crayons")
		goesTo(t, theirs.presses("/edit/save", "status", "active", "then", "close"), path)
		w := tab.presses("/edit/save", "title", "Order crayons") // bob has finished, with another field
		goesTo(t, w, path+"/edit")
		if got := s.now(t, process.ID); got.Title != "Order crayons" || got.Status != "active" {
			t.Errorf("stored: %+v", got)
		}
	})
}

// A lock without Redis is as good for the pages: the database decides.
func TestEditingWithoutRedis(t *testing.T) {
	t.Parallel()
	s := newSiteWithoutRedis(t)
	process := s.process(t, "Order paper", "")
	path := "/processes/" + process.ID
	a := s.signedIn(t, ann)
	tab := a.begins(t, process.ID)
	shows(t, a.get(tab.path), http.StatusOK, "Someone else may be editing this at the same time.")
	shows(t, s.signedIn(t, bob).post(path+"/edit"), http.StatusLocked, "<strong>"+ann+"</strong> is editing since", "Someone may be editing this although it is not shown here.")
	goesTo(t, tab.presses("/edit/save", "title", "Order ink"), path+"/edit")
	s.writesAnyway(t, process.ID, "Order crayons") // as on another server
	w := tab.presses("/edit/save", "title", "Order pens", "base", "2")
	shows(t, w, http.StatusConflict, "Order crayons", "Mine: Order pens")
	resolved := tab.opened(t, w, process.ID, "").presses("/edit/resolve", "title.choice", "mine")
	goesTo(t, resolved, path+"/edit")
	if got := s.now(t, process.ID); got.Title != "Order pens" {
		t.Errorf("stored: %+v", got)
	}
}
