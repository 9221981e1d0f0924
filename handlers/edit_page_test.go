package handlers_test

import (
	"maps"
	"net/http"
	"strings"
	"testing"

	"gatehouse/models"
)

func TestEditing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.signedIn(t, ann)
	process := s.process(t, "Order paper", "\nTen boxes.\nBy Friday.")
	path := "/processes/" + process.ID
	shows(t, a.get(path), http.StatusOK, "Order paper", "By Friday.", "Nobody is editing this.", ">Edit</button>")

	tab := a.begins(t, process.ID, "reason", "new supplier")
	tab.has(t, "title", "Order paper")
	tab.has(t, "status", "draft")
	tab.has(t, "description", "\r\nTen boxes.\r\nBy Friday.")
	const focused = `aria-describedby="title-hint" autofocus>`
	shows(t, a.get(tab.path), http.StatusOK, focused)
	if len(a.locks) != 1 {
		t.Fatalf("cookies of locks: %v", a.locks)
	}
	for name, cookie := range a.locks {
		if !cookie.HttpOnly || cookie.SameSite != http.SameSiteStrictMode || cookie.Path != path || cookie.Value == "" {
			t.Errorf("the cookie is %v", cookie)
		}
		if page := a.get(tab.path).Body.String(); strings.Contains(page, cookie.Value) || strings.Contains(tab.path, cookie.Value) || !strings.HasSuffix(name, tab.fields.Get("lock")) {
			t.Error("the token is in the page or its address")
		}
	}
	shows(t, s.signedIn(t, bob).get(path), http.StatusOK, "<strong>"+ann+"</strong> is editing since", "“<bdi>new supplier</bdi>”")
	shows(t, a.get("/processes"), http.StatusOK, "<strong>You</strong> are editing since")

	t.Run("saves, and goes on", func(t *testing.T) {
		w := tab.presses("/edit/save", "then", "stay", "title", "Order ink", "description", "Twelve boxes.\r\nBy Friday.")
		goesTo(t, w, path+"/edit")
		page := a.get(w.Header().Get("Location"))
		shows(t, page, http.StatusOK, "Your changes are saved.", `value="Order ink"`)
		if strings.Contains(page.Body.String(), focused) {
			t.Error("the focus is not on what was done")
		}
		if got := s.now(t, process.ID); got.Title != "Order ink" || got.Description != "Twelve boxes.\nBy Friday." || got.Version != 2 || got.UpdatedBy.Email != ann {
			t.Errorf("stored: %+v", got)
		}
		tab = a.opened(t, page, process.ID, tab.path)
		tab.has(t, "base", "2")
	})
	t.Run("says what is wrong, and keeps the text", func(t *testing.T) {
		for field, wrong := range map[string]string{"title": " ", "status": "lost", "description": strings.Repeat("ä", models.MaxDescription+1)} {
			w := tab.presses("/edit/save", field, wrong)
			shows(t, w, http.StatusUnprocessableEntity, "<title>Error: ", `id="`+field+`-error"`, "Nothing was saved", `value="`+tab.fields.Get("lock")+`"`)
			if field == "description" && !strings.Contains(w.Body.String(), wrong) {
				t.Error("the text is not in the form")
			}
		}
		shows(t, tab.presses("/edit/save", "title", strings.Repeat("x", models.MaxTitle+1)), http.StatusUnprocessableEntity, "Write a title, of up to 200 characters.")
		longest := strings.Repeat("🙂", models.MaxDescription)
		goesTo(t, tab.presses("/edit/save", "description", longest), path+"/edit")
		if s.now(t, process.ID).Description != longest {
			t.Error("the longest description is not stored")
		}
		shows(t, tab.presses("/edit/save", "description", strings.Repeat("x", 1<<20)), http.StatusRequestEntityTooLarge)
	})
	t.Run("closes", func(t *testing.T) {
		tab = a.opened(t, a.get(tab.path), process.ID, tab.path)
		goesTo(t, tab.presses("/edit/save", "then", "close", "status", "active"), path)
		shows(t, a.get(path), http.StatusOK, "Your changes are saved.", "Nobody is editing this.", ">active</span>")
		w := a.get(tab.path)
		goesTo(t, w, path)
		shows(t, a.get(path), http.StatusOK, "You stopped editing at", "Nobody is editing this.")
	})
	t.Run("cancels, and keeps what was typed", func(t *testing.T) {
		tab := a.begins(t, process.ID)
		goesTo(t, tab.presses("/edit/cancel"), path)
		page := a.get(path)
		shows(t, page, http.StatusOK, "You have stopped editing.", "Nobody is editing this.")
		if s.draft(t, ann, process.ID) != nil || strings.Contains(page.Body.String(), "You left changes") {
			t.Error("a draft of nothing is kept")
		}
		tab = a.begins(t, process.ID)
		goesTo(t, tab.presses("/edit/cancel", "title", "Order pens"), path)
		shows(t, a.get(path), http.StatusOK, "What you typed is kept", "You left changes", "Order pens", `name="reason"`, "Go on with them", "Discard them", "Nobody is editing this.")
		tab = a.begins(t, process.ID)
		tab.has(t, "title", "Order pens")
		goesTo(t, tab.presses("/edit/cancel", "title", s.now(t, process.ID).Title), path)
		if s.draft(t, ann, process.ID) != nil {
			t.Error("the draft is still there, although its writer has taken all of it back")
		}
	})
}

func TestEditingNeedsTheRole(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	process := s.process(t, "Order paper", "")
	path := "/processes/" + process.ID
	viewer := s.signedIn(t, vic)
	page := viewer.get(path)
	shows(t, page, http.StatusOK, "Order paper")
	for _, offer := range []string{">Edit<", "New process", "/edit", "/ask"} {
		if strings.Contains(page.Body.String(), offer) || strings.Contains(viewer.get("/processes").Body.String(), offer) {
			t.Errorf("a viewer is offered %q", offer)
		}
	}
	shows(t, viewer.post(path+"/edit"), http.StatusForbidden)
	shows(t, viewer.post("/processes/new", "title", "x"), http.StatusForbidden)
	if s.locked(t, "process:"+process.ID) {
		t.Error("a viewer has locked it")
	}
	shows(t, s.browser(t).get(path), http.StatusUnauthorized, "current-password")
	for _, wrong := range []string{"/processes/999", "/processes/999/edit", "/processes/no%20id", "/processes/a.b/edit"} {
		if w := s.signedIn(t, ann).get(wrong); w.Code != http.StatusNotFound && w.Code != http.StatusSeeOther {
			t.Errorf("%s: %d", wrong, w.Code)
		}
	}
	shows(t, s.signedIn(t, ann).post("/processes/999/edit"), http.StatusNotFound)
}

// Nobody but the user who took a lock can use its cookie, in whichever browser it is.
func TestLockCookieIsForItsUser(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	process := s.process(t, "Order paper", "")
	a := s.signedIn(t, ann)
	tab := a.begins(t, process.ID)
	b := s.signedIn(t, bob)
	b.locks = maps.Clone(a.locks)
	goesTo(t, b.get(tab.path), "/processes/"+process.ID)
	b.locks = maps.Clone(a.locks)
	theirs := *tab
	theirs.browser = b
	shows(t, theirs.presses("/edit/save", "title", "Bob was here", "user", s.user(t, bob).ID), http.StatusConflict, "Nothing was saved", ann+" is editing this now.")
	b.locks = nil
	shows(t, theirs.presses("/edit/save", "title", "Bob was here", "user", s.user(t, bob).ID), http.StatusConflict, "Nothing was saved", ann+" is editing this now.")
	if got := s.now(t, process.ID); got.Title != "Order paper" {
		t.Errorf("bob wrote with the lock of ann: %+v", got)
	}
	if other := s.process(t, "Other", ""); true {
		w := tab.post("/processes/"+other.ID+"/edit/save", "lock", tab.fields.Get("lock"), "base", "1", "title", "x", "status", "draft")
		shows(t, w, http.StatusConflict, "Nothing was saved")
	}
}

func TestLockedByAnother(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	process := s.process(t, "Order paper", "")
	path := "/processes/" + process.ID
	tab := s.signedIn(t, ann).begins(t, process.ID, "reason", "new supplier")
	b := s.signedIn(t, bob)
	shows(t, b.post(path+"/edit"), http.StatusLocked, "<strong>"+ann+"</strong> is editing since", "“<bdi>new supplier</bdi>”", "refused")
	if len(b.locks) != 0 {
		t.Errorf("bob has %v", b.locks)
	}
	admin := s.signedIn(t, "admin@example.com")
	shows(t, admin.get(path), http.StatusOK, `class="technical`, "fence", "/locks/force?resource=process%3A"+process.ID)
	for _, technical := range []string{"fence", "grant", "Force", "technical"} {
		if strings.Contains(b.get(path).Body.String(), technical) {
			t.Errorf("bob is told the %s", technical)
		}
		if strings.Contains(tab.get(tab.path).Body.String(), technical) {
			t.Errorf("ann is told the %s of her own lock", technical)
		}
	}
	free := s.process(t, "Order ink", "").ID
	shows(t, admin.get(admin.begins(t, free).path), http.StatusOK, `class="technical`, "process:"+free+", grant ")
	shows(t, b.post("/processes/"+free+"/edit", "reason", strings.Repeat("x", 201)), http.StatusUnprocessableEntity, "Say it in up to 200 characters.")
}

// What a user saved in a second tab of the same lock is neither a conflict nor lost.
func TestTwoTabsOfOneLock(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	process := s.process(t, "Order paper", "Ten boxes.")
	a := s.signedIn(t, ann)
	one := a.begins(t, process.ID)
	two := a.opened(t, a.get(one.path), process.ID, one.path)
	goesTo(t, one.presses("/edit/save", "title", "Order ink"), "/processes/"+process.ID+"/edit")
	goesTo(t, two.presses("/edit/save", "description", "Twelve boxes."), "/processes/"+process.ID+"/edit")
	if got := s.now(t, process.ID); got.Title != "Order ink" || got.Description != "Twelve boxes." {
		t.Errorf("stored: %+v", got)
	}
	goesTo(t, two.presses("/edit/save", "title", "Order pens"), "/processes/"+process.ID+"/edit")
	if got := s.now(t, process.ID); got.Title != "Order pens" {
		t.Errorf("stored: %+v", got)
	}

	two = a.opened(t, a.get(two.path), process.ID, two.path)
	goesTo(t, one.presses("/edit/save", "then", "close", "title", "Order tape"), "/processes/"+process.ID)
	state := a.get(two.path[:strings.Index(two.path, "?")] + "/state?lock=" + two.fields.Get("lock")).Body.String()
	if !strings.Contains(state, "You stopped editing at") || !strings.Contains(state, `"calm":true`) {
		t.Errorf("the second tab is told %s after the first has closed", state)
	}
	goesTo(t, two.presses("/edit/save", "description", "Twenty boxes."), "/processes/"+process.ID+"/edit")
	if got := s.now(t, process.ID); got.Title != "Order tape" || got.Description != "Twenty boxes." {
		t.Errorf("stored: %+v", got)
	}
}

// A browser keeps the cookies of the last locks of a process, and forgets the first.
func TestLastLockCookiesAreKept(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	process := s.process(t, "Order paper", "")
	a := s.signedIn(t, ann)
	first := a.begins(t, process.ID)
	for range 3 {
		goesTo(t, a.begins(t, process.ID, "takeOver", "true").presses("/edit/cancel"), "/processes/"+process.ID)
	}
	one := a.begins(t, process.ID)
	two := a.begins(t, process.ID, "takeOver", "true")
	if one.lockCookie() == nil || two.lockCookie() == nil || first.lockCookie() != nil || len(a.locks) != 4 {
		t.Errorf("kept are %v", a.locks)
	}
}
