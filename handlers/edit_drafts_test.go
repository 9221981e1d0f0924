package handlers_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"gatehouse/models"
)

func TestDraftComesBack(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	process := s.process(t, "Order paper", "Ten boxes.")
	path := "/processes/" + process.ID
	a := s.signedIn(t, ann)
	saved, err := s.Processes.SaveDraft(t.Context(), s.user(t, ann), process.ID, models.Draft{Title: "Order ink", Status: "draft", Description: "Ten boxes.", BaseVersion: 1}, time.Time{})
	check(t, err)

	t.Run("to its writer, and others see that there is one", func(t *testing.T) {
		shows(t, a.get(path), http.StatusOK, "You left changes", `<del>Order paper</del>`, `<ins>Order ink</ins>`, saved.SavedAt.Format("15:04 UTC"))
		page := s.signedIn(t, bob).get(path)
		shows(t, page, http.StatusOK, ann+"</bdi> has changes from")
		if strings.Contains(page.Body.String(), "Order ink") || strings.Contains(s.signedIn(t, vic).get(path).Body.String(), "has changes from") {
			t.Error("others see too much of it")
		}
	})
	t.Run("into the form, after a reload, too", func(t *testing.T) {
		tab := a.begins(t, process.ID)
		tab.has(t, "title", "Order ink")
		page := a.get(tab.path)
		shows(t, page, http.StatusOK, "These are your changes from")
		goesTo(t, tab.presses("/draft/discard"), path+"/edit")
		a.opened(t, a.get(tab.path), process.ID, tab.path).has(t, "title", "Order paper")
		goesTo(t, tab.presses("/edit/cancel", "title", "Order paper"), path)
	})
	t.Run("merged with what others saved, if that is another field", func(t *testing.T) {
		_, err := s.Processes.SaveDraft(t.Context(), s.user(t, ann), process.ID, models.Draft{Title: "Order ink", Status: "draft", Description: "Ten boxes.", BaseVersion: 1}, time.Time{})
		check(t, err)
		s.writes(t, bob, process.ID, func(f *models.ProcessFields) { f.Status = "active" })
		shows(t, a.get(path), http.StatusOK, "The process was changed after you began")
		tab := a.begins(t, process.ID)
		tab.has(t, "title", "Order ink")
		tab.has(t, "status", "active")
		tab.has(t, "base", "2")
		shows(t, a.get(tab.path), http.StatusOK, "Changed while you looked.", bob+" saved at", "That is already in the text below")
		goesTo(t, tab.presses("/edit/save", "then", "close"), path)
		if got := s.now(t, process.ID); got.Title != "Order ink" || got.Status != "active" {
			t.Errorf("stored: %+v", got)
		}
		if s.draft(t, ann, process.ID) != nil {
			t.Error("the draft is still there after the save")
		}
	})
	t.Run("not, if it is what is stored", func(t *testing.T) {
		_, err := s.Processes.SaveDraft(t.Context(), s.user(t, ann), process.ID, models.Draft{Title: "Order ink", Status: "active", Description: "Ten boxes.", BaseVersion: 2}, time.Time{})
		check(t, err)
		if page := a.get(path).Body.String(); strings.Contains(page, "You left changes") {
			t.Errorf("a false alarm: %s", page)
		}
	})
	t.Run("after it was discarded on a page that did not show it", func(t *testing.T) {
		stores := func(title string) {
			_, err := s.Processes.SaveDraft(t.Context(), s.user(t, ann), process.ID, models.Draft{Title: title, Status: "active", BaseVersion: 2}, time.Time{})
			check(t, err)
		}
		stores("x")
		page := a.opened(t, a.get(path), process.ID, path)
		stores("y")
		goesTo(t, page.presses("/draft/discard"), path)
		shows(t, a.get(path), http.StatusOK, "Nothing was discarded", `<ins>y</ins>`)
		goesTo(t, a.opened(t, a.get(path), process.ID, path).presses("/draft/discard"), path)
		if s.draft(t, ann, process.ID) != nil {
			t.Error("it is still there")
		}
	})
	t.Run("not after it was discarded", func(t *testing.T) {
		_, err := s.Processes.SaveDraft(t.Context(), s.user(t, ann), process.ID, models.Draft{Title: "x", Status: "active", BaseVersion: 2}, time.Time{})
		check(t, err)
		goesTo(t, a.post(path+"/draft/discard"), path)
		goesTo(t, a.post(path+"/draft/discard"), path) // twice is once
		if s.draft(t, ann, process.ID) != nil {
			t.Error("it is still there")
		}
	})
	t.Run("after a save, too, if it was typed in another tab meanwhile", func(t *testing.T) {
		stores := func(title string) {
			_, err := s.Processes.SaveDraft(t.Context(), s.user(t, ann), process.ID, models.Draft{Title: title, Status: "active", Description: "Ten boxes.", BaseVersion: s.now(t, process.ID).Version}, time.Time{})
			check(t, err)
		}
		stores("Order red ink")
		tab := a.begins(t, process.ID) // which shows that draft
		stores("Order chalk")
		goesTo(t, tab.presses("/edit/save", "title", "Order blue ink"), path+"/edit")
		if got := s.draft(t, ann, process.ID); got == nil || got.Title != "Order chalk" {
			t.Errorf("the draft of the other tab is %+v", got)
		}
		shows(t, a.get(tab.path), http.StatusOK, "Your changes are saved. What you typed in another tab is below, and not saved yet.",
			"You saved another text", "Mine: Order chalk")
		goesTo(t, tab.presses("/draft/discard"), path+"/edit") // what the form had shown
		shows(t, a.get(tab.path), http.StatusOK, "Nothing was discarded: you typed something else since, in another tab.", "Mine: Order chalk")
		tab = a.opened(t, a.get(tab.path), process.ID, tab.path)
		goesTo(t, tab.presses("/draft/discard"), path+"/edit")
		tab = a.opened(t, a.get(tab.path), process.ID, tab.path)
		stores("Order slates")
		goesTo(t, tab.presses("/edit/cancel", "title", s.now(t, process.ID).Title), path) // the text as it is stored
		if s.draft(t, ann, process.ID) == nil {
			t.Error("to leave deletes the draft of the other tab")
		}
		goesTo(t, a.post(path+"/draft/discard"), path)
		tab = a.begins(t, process.ID)
		stores("Order sponges")
		goesTo(t, tab.presses("/edit/save", "title", "Order sponges", "then", "close"), path) // both tabs typed the same
		shows(t, a.get(path), http.StatusOK, "Your changes are saved.<")
		if s.draft(t, ann, process.ID) != nil {
			t.Error("a draft of what is saved")
		}
		stores("Order sponges") // what is stored, so that the page does not show it
		goesTo(t, a.begins(t, process.ID).presses("/edit/save", "title", "Order wipes", "then", "close"), path)
		shows(t, a.get(path), http.StatusOK, "Your changes are saved.<")
	})
}
