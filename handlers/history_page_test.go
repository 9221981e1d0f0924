package handlers_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"gatehouse/models"
	"gatehouse/services"
)

func TestHistoryPage(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	process := s.process(t, "Order paper", "Ten boxes.\nBy Friday.")
	path := "/processes/" + process.ID
	a, b := s.signedIn(t, ann), s.signedIn(t, bob)
	tab := a.begins(t, process.ID)
	goesTo(t, tab.presses("/edit/save", "status", "active"), path+"/edit")
	goesTo(t, tab.presses("/edit/save", "status", "active", "description", "Twelve boxes.\nBy Friday.", "base", "2", "then", "close"), path)
	s.writes(t, bob, process.ID, func(f *models.ProcessFields) { f.Title = "Order ink" })

	t.Run("one entry for an editing session, with what changed", func(t *testing.T) {
		page := b.get(path + "/history")
		shows(t, page, http.StatusOK, "<strong>"+bob+"</strong> edited it", "<del>Order paper</del>", "<ins>Order ink</ins>",
			"<strong>"+ann+"</strong> edited it", "<del>draft</del>", "<ins>active</ins>", "<del>Ten boxes.</del>", "<ins>Twelve boxes.</ins>", "created it", "the current version")
		if n := strings.Count(page.Body.String(), `<li class="panel">`); n != 3 {
			t.Errorf("%d entries, want 3", n)
		}
		if strings.Contains(page.Body.String(), "fence") || strings.Contains(s.signedIn(t, vic).get(path+"/history").Body.String(), "Restore") {
			t.Error("a user is shown too much")
		}
		shows(t, s.signedIn(t, "admin@example.com").get(path+"/history"), http.StatusOK, "version 4", "fence")
	})
	t.Run("restores a version as a new one", func(t *testing.T) {
		goesTo(t, b.post(path+"/restore", "version", "1"), path)
		shows(t, b.get(path), http.StatusOK, "The former version is restored.", "Order paper", "Nobody is editing this.")
		if got := s.now(t, process.ID); got.Version != 5 || got.Status != "draft" || got.Description != "Ten boxes.\nBy Friday." || got.UpdatedBy.Email != bob {
			t.Errorf("stored: %+v", got)
		}
		shows(t, b.get(path+"/history"), http.StatusOK, "restored a former version")
	})
	t.Run("restores nothing over a version that was not seen", func(t *testing.T) {
		pens := s.process(t, "Order pens", "")
		history := "/processes/" + pens.ID + "/history"
		s.writes(t, ann, pens.ID, func(f *models.ProcessFields) { f.Title = "Order more pens" })
		form := b.opened(t, b.get(history), pens.ID, "")
		s.writes(t, ann, pens.ID, func(f *models.ProcessFields) { f.Title = "Order no pens" })
		goesTo(t, form.presses("/restore"), history)
		shows(t, b.get(history), http.StatusOK, "Nothing was restored: "+ann+" saved another version since you looked.")
		if got := s.now(t, pens.ID); got.Version != 3 {
			t.Errorf("stored: %+v", got)
		}
	})
	t.Run("pressed twice restores once", func(t *testing.T) {
		pens := s.process(t, "Order pens", "")
		path := "/processes/" + pens.ID
		s.writes(t, ann, pens.ID, func(f *models.ProcessFields) { f.Title = "Order more pens" })
		form := b.opened(t, b.get(path+"/history"), pens.ID, "")
		for range 2 {
			goesTo(t, form.presses("/restore"), path)
		}
		shows(t, b.get(path), http.StatusOK, "The former version is restored.")
		if got := s.now(t, pens.ID); got.Version != 3 || got.Title != "Order pens" {
			t.Errorf("stored: %+v", got)
		}
		s.writes(t, bob, pens.ID, func(f *models.ProcessFields) { f.Title = "Order no pens" })
		goesTo(t, form.presses("/restore"), path+"/history")
		s.Recorder.Flush(t.Context())
		page := b.get(path + "/history")
		shows(t, page, http.StatusOK, "Nothing was restored: you saved another version since you looked, in another tab or on another device.")
		if n := strings.Count(page.Body.String(), "could not save"); n != 1 {
			t.Errorf("%d refusals in the history", n)
		}
		// The second press can come while the first one has the lock.
		s.writes(t, bob, pens.ID, func(f *models.ProcessFields) { f.Title = "Order pens" })
		b.begins(t, pens.ID)
		goesTo(t, form.presses("/restore"), path)
	})
	t.Run("restores nothing under the lock of another, or of no version", func(t *testing.T) {
		for _, version := range []string{"0", "99", "x", ""} {
			shows(t, b.post(path+"/restore", "version", version), http.StatusUnprocessableEntity)
		}
		a.begins(t, process.ID)
		shows(t, b.post(path+"/restore", "version", "1"), http.StatusLocked, `<p class="notice failed" role="alert"`, "Nothing was restored: "+ann+" is editing this now.", "<strong>"+ann+"</strong> is editing since")
		shows(t, a.post(path+"/restore", "version", "1"), http.StatusLocked, "Nothing was restored: you are editing this in another tab, or on another device.", "Go on here")
		shows(t, s.signedIn(t, vic).post(path+"/restore", "version", "1"), http.StatusForbidden)
		if got := s.now(t, process.ID); got.Version != 5 {
			t.Errorf("stored: %+v", got)
		}
	})
	t.Run("of a change of many lines the first ones", func(t *testing.T) {
		long := s.process(t, "Price list", strings.Repeat("a\n", 5000))
		for _, line := range []string{"b\n", "c\n"} {
			s.writes(t, bob, long.ID, func(f *models.ProcessFields) { f.Description = strings.Repeat(line, 5000-99) + "the end" })
		}
		page := b.get("/processes/" + long.ID + "/history")
		shows(t, page, http.StatusOK, "<del>a</del>", "<del>b</del>", "4800 more lines are not shown", "9603 more lines are not shown")
		if n := page.Body.Len(); n > 100_000 {
			t.Errorf("%d bytes", n)
		}
	})
	t.Run("on pages", func(t *testing.T) {
		other := s.process(t, "Order pens", "")
		for i := range 26 {
			s.writes(t, bob, other.ID, func(f *models.ProcessFields) { f.Title = "Order " + strconv.Itoa(i) })
		}
		page := b.get("/processes/" + other.ID + "/history").Body.String()
		_, next, ok := strings.Cut(page, `<a href="/processes/`+other.ID+`/history?`)
		next, _, _ = strings.Cut(next, `"`)
		if !ok || strings.Count(page, `<li class="panel">`) != 25 {
			t.Fatalf("%d entries: %s", strings.Count(page, `<li class="panel">`), page)
		}
		shows(t, b.get("/processes/"+other.ID+"/history?"+next), http.StatusOK, "created it", "Newest")
		shows(t, b.get("/processes/"+other.ID+"/history?cursor=x"), http.StatusUnprocessableEntity)
		shows(t, b.get("/processes/999/history"), http.StatusNotFound)
	})
	t.Run("also of a process that was deleted", func(t *testing.T) {
		tab := a.begins(t, process.ID, "takeOver", "true")
		_, err := s.Processes.Delete(t.Context(), s.user(t, ann), process.ID, tab.lockCookie().Value, nil)
		check(t, err)
		shows(t, b.get(path+"/history"), http.StatusOK, "The process was deleted.", "deleted it", "created it")
		shows(t, b.get(path), http.StatusNotFound)
	})
}

func TestRefusalPage(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	process := s.process(t, "Order paper", "")
	a, b := s.signedIn(t, ann), s.signedIn(t, bob)
	lookUp := func(page string) string {
		_, id, _ := strings.Cut(page, `<a href="/refusals?request=`)
		id, _, _ = strings.Cut(id, `"`)
		return "/refusals?request=" + id
	}
	tab := a.begins(t, process.ID)
	s.writesAnyway(t, process.ID, "Order crayons")
	conflict := lookUp(tab.presses("/edit/save", "title", "Order ink").Body.String())
	locked := b.post("/processes/"+process.ID+"/edit", "reason", "mine").Header().Get("X-Request-Id")
	_, err := s.Locks.ForceRelease(t.Context(), "process:"+process.ID, nil)
	check(t, err)
	theirs := b.begins(t, process.ID)
	lost := lookUp(tab.presses("/edit/save", "title", "Order ink").Body.String())
	_, err = s.Accounts.ForceLock(t.Context(), s.user(t, "admin@example.com"), "process:"+process.ID, "needed <at once>", nil, services.Client{})
	check(t, err)
	a.begins(t, process.ID)
	forced := lookUp(theirs.presses("/edit/save", "title", "Order wax").Body.String())

	shows(t, a.get("/refusals"), http.StatusOK, "Why was my save refused?", `name="request"`)
	shows(t, a.get(conflict), http.StatusOK, bob+" saved another version in between", "Order crayons", "/processes/"+process.ID, "you decide about both texts")
	shows(t, a.get(lost), http.StatusOK, "You did not have the lock any more. "+bob+" was editing.")
	shows(t, b.get("/refusals?request="+locked), http.StatusOK, ann+" was editing it.")
	shows(t, b.get(forced), http.StatusOK, `You did not have the lock any more. admin@example.com ended your lock at <time class="clock" datetime="`, "</time>: “needed &lt;at once&gt;”. "+ann+" was editing.", "What now")
	own := a.post("/processes/" + process.ID + "/edit").Header().Get("X-Request-Id")
	shows(t, a.get("/refusals?request="+own), http.StatusOK, "You were editing it in another tab, or on another device.")
	admin := s.signedIn(t, "admin@example.com")
	for of, want := range map[string]string{
		conflict:                   bob + " saved another version in between, so that this save would have overwritten it.",
		forced:                     "They did not have the lock any more. The lock was ended by admin@example.com: “needed &lt;at once&gt;”. That was at <time",
		"/refusals?request=" + own: ann + " was editing it.",
	} {
		page := admin.get(of)
		shows(t, page, http.StatusOK, "Whose request", want)
		if _, found, _ := strings.Cut(page.Body.String(), `id="found"`); strings.Contains(strings.ToLower(found), " you") || strings.Contains(found, ">You") {
			t.Errorf("the administrator is taken for the user: %s", found)
		}
	}
	shows(t, b.get(conflict), http.StatusNotFound, "Nothing that was refused in the last 24 hours has this id.")
	shows(t, s.signedIn(t, "admin@example.com").get(conflict), http.StatusOK, "Whose request", ann)
	for _, wrong := range []string{"x", "a%20b", "%3Cb%3E", strings.Repeat("x", 65)} {
		shows(t, a.get("/refusals?request="+wrong), http.StatusNotFound, "Nothing that was refused")
	}
	shows(t, s.signedIn(t, ann).get("/processes/"+process.ID+"/history"), http.StatusOK, "could not save")
	shows(t, s.browser(t).get(conflict), http.StatusUnauthorized)
}
