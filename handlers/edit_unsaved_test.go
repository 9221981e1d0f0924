package handlers_test

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"gatehouse/models"
	"gatehouse/services"
)

// isKept wants what ann typed into the form to be kept as her draft.
func (tab *tab) isKept(t *testing.T, title string) {
	t.Helper()
	if got := tab.site.draft(t, ann, tab.id); got == nil || got.Title != title || strconv.FormatInt(got.BaseVersion, 10) != tab.fields.Get("base") {
		t.Errorf("the draft is %+v, want %q from version %s", got, title, tab.fields.Get("base"))
	}
}

func TestLostLock(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	process := s.process(t, "Order paper", "Ten boxes.")
	path := "/processes/" + process.ID
	a, b := s.signedIn(t, ann), s.signedIn(t, bob)
	force := func(t *testing.T) {
		t.Helper()
		_, err := s.Locks.ForceRelease(t.Context(), "process:"+process.ID, nil)
		check(t, err)
	}
	t.Run("the text is in the form, and kept", func(t *testing.T) {
		tab := a.begins(t, process.ID)
		force(t)
		theirs := b.begins(t, process.ID)
		w := tab.presses("/edit/save", "title", "Order ink")
		shows(t, w, http.StatusConflict, "Nothing was saved.", bob+" is editing this now.", `value="Order ink"`, "kept for you", "/refusals?request=")
		tab.isKept(t, "Order ink")
		goesTo(t, theirs.presses("/edit/cancel"), path)
	})
	t.Run("the user takes the lock again with the text", func(t *testing.T) {
		tab := a.begins(t, process.ID)
		force(t)
		lost := a.opened(t, tab.presses("/edit/save", "title", "Order pens"), process.ID, "")
		lost.has(t, "title", "Order pens")
		again := a.follows(t, lost.presses("/edit", "title", "Order red pens"), process.ID)
		again.has(t, "title", "Order red pens")
		goesTo(t, again.presses("/edit/save", "then", "close"), path)
		if got := s.now(t, process.ID); got.Title != "Order red pens" {
			t.Errorf("stored: %+v", got)
		}
	})
	t.Run("a reload says so", func(t *testing.T) {
		tab := a.begins(t, process.ID)
		force(t)
		goesTo(t, a.get(tab.path, "HX-Request", "true"), path) // a script's look takes nothing of it
		if page := a.get("/").Body.String(); tab.lockCookie() == nil || strings.Contains(page, "Your lock has ended.") {
			t.Errorf("cookie %v; the start page: %s", tab.lockCookie(), page)
		}
		for range 2 { // in a second tab of the lock, too
			goesTo(t, a.get(tab.path), path)
			shows(t, a.get(path), http.StatusOK, "Your lock has ended.", "Nobody is editing this.")
		}
	})
	t.Run("a process that is not there any more", func(t *testing.T) {
		tab := a.begins(t, process.ID)
		_, err := s.Processes.Delete(t.Context(), s.user(t, ann), process.ID, tab.lockCookie().Value, nil)
		check(t, err)
		var w *httptest.ResponseRecorder
		for _, pressed := range []string{"/edit", "/edit/cancel", "/edit/answer", "/edit/save"} {
			w = tab.presses(pressed, "title", "Order crayons", "answer", "no "+strings.Repeat("A", 26))
			shows(t, w, http.StatusNotFound, "The process was deleted.", `value="Order crayons"`)
		}
		w = a.opened(t, w, process.ID, "").post("/processes/new", "title", "Order crayons", "status", "draft", "description", "")
		shows(t, a.get(w.Header().Get("Location")), http.StatusOK, "Order crayons")
	})
}

// What others had typed into a process that was deleted is kept for them, until it is a new process
// or discarded.
func TestDraftOfADeletedProcess(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a, b := s.signedIn(t, ann), s.signedIn(t, bob)
	left := func(title string) (id string) {
		process := s.process(t, "Order paper", "Ten boxes.")
		_, err := s.Processes.SaveDraft(t.Context(), s.user(t, ann), process.ID, models.Draft{Title: title, Status: "draft", Description: "Ten boxes.", BaseVersion: 1}, time.Time{})
		check(t, err)
		lock, err := s.Processes.Lock(t.Context(), s.user(t, bob), process.ID, services.ProcessLockOptions{})
		check(t, err)
		_, err = s.Processes.Delete(t.Context(), s.user(t, bob), process.ID, lock.Token, nil)
		check(t, err)
		return process.ID
	}
	// offered is whether the list of processes offers a text to its writer, and to nobody else.
	offered := func(t *testing.T, id, title string) bool {
		t.Helper()
		words := "a process that was deleted since: <a href=\"/processes/" + id + "\">" + title + "</a>"
		if strings.Contains(b.get("/processes").Body.String(), words) {
			t.Errorf("another user is offered %q", title)
		}
		return strings.Contains(a.get("/processes").Body.String(), words)
	}
	t.Run("becomes a new one", func(t *testing.T) {
		id := left("Order ink")
		if !offered(t, id, "Order ink") {
			t.Error("it is not offered")
		}
		for _, pressed := range []string{"/edit", "/ask"} { // on a page of before
			shows(t, a.post("/processes/"+id+pressed), http.StatusNotFound, "The process was deleted.", `value="Order ink"`)
		}
		w := a.get("/processes/" + id)
		shows(t, w, http.StatusNotFound, "The process was deleted.", `value="Order ink"`, "kept for you until", "Make a new process from this text", "Discard it")
		shows(t, b.get("/processes/"+id), http.StatusNotFound, "There is nothing at this address")
		w = a.opened(t, w, "new", "").presses("", "title", "")
		shows(t, w, http.StatusUnprocessableEntity, "Nothing was created")
		if !offered(t, id, "Order ink") {
			t.Error("it is gone with a process that was not created")
		}
		w = a.opened(t, w, "new", "").presses("", "title", "Order red ink")
		shows(t, a.get(w.Header().Get("Location")), http.StatusOK, "Order red ink")
		if offered(t, id, "Order ink") {
			t.Error("it is offered again")
		}
		shows(t, a.get("/processes/"+id), http.StatusNotFound, "There is nothing at this address")
	})
	t.Run("is discarded", func(t *testing.T) {
		id := left("Order pens")
		page := a.opened(t, a.get("/processes/"+id), id, "")
		shows(t, b.post("/processes/"+id+"/draft/discard"), http.StatusNotFound)
		older := page.fields.Get("draft")
		page.fields.Set("draft", "")
		goesTo(t, page.presses("/draft/discard"), "/processes")
		shows(t, a.get("/processes"), http.StatusOK, "Nothing was discarded")
		if !offered(t, id, "Order pens") {
			t.Error("it was discarded by another user, or by a page that did not show it")
		}
		page.fields.Set("draft", older)
		goesTo(t, page.presses("/draft/discard"), "/processes")
		if offered(t, id, "Order pens") {
			t.Error("it is offered again")
		}
	})
	t.Run("stays, if another text becomes a new process", func(t *testing.T) {
		id := left("Order crayons")
		creates := func(title string) {
			w := a.post("/processes/new", "title", title, "status", "draft", "description", "Ten boxes.", "from", id)
			shows(t, a.get(w.Header().Get("Location")), http.StatusOK, title)
		}
		creates("Order chalk")
		if !offered(t, id, "Order crayons") {
			t.Error("it is gone")
		}
		creates("Order crayons")
		if offered(t, id, "Order crayons") {
			t.Error("what was created is offered again")
		}
	})
}

// A text is not lost with a request that is refused for another reason: it is in the answer.
func TestTextSurvivesARefusal(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	process := s.process(t, "Order paper", "")
	a := s.signedIn(t, ann)
	tab := a.begins(t, process.ID)
	session := a.cookie
	check(t, s.Sessions.Delete(t.Context(), session.Value))
	w := tab.presses("/edit/save", "title", "Order <ink>")
	shows(t, w, http.StatusUnauthorized, "Your session has ended.", `value="Order &lt;ink&gt;"`, `target="_blank"`)
	w = a.post("/processes/new", "title", "Brand new", "status", "draft", "description", "x")
	shows(t, w, http.StatusUnauthorized, "Your session has ended.", `value="Brand new"`)
	again := a.opened(t, tab.presses("/edit/save", "title", "Order ink"), process.ID, "")
	a.cookie = &http.Cookie{Name: session.Name, Value: s.token(t, ann)} // signed in again, in another tab
	goesTo(t, again.presses("/edit/save"), "/processes/"+process.ID+"/edit")
	if got := s.now(t, process.ID); got.Title != "Order ink" {
		t.Errorf("stored: %+v", got)
	}
	for _, path := range []string{"/edit", "/edit/cancel", "/edit/answer", "/ask"} {
		tab := a.begins(t, process.ID, "takeOver", "true")
		check(t, s.Sessions.Delete(t.Context(), a.cookie.Value))
		shows(t, tab.presses(path, "title", "Order more ink"), http.StatusUnauthorized, "Your session has ended.", `value="Order more ink"`)
		a.cookie = &http.Cookie{Name: session.Name, Value: s.token(t, ann)}
	}
	t.Run("also with the right to edit", func(t *testing.T) {
		tab, id, admin := a.begins(t, process.ID, "takeOver", "true"), s.user(t, ann).ID, s.user(t, "admin@example.com")
		has := func(role string) {
			_, err := s.Accounts.ChangeUser(t.Context(), admin, id, services.UserChange{Roles: []string{role}}, services.Client{})
			check(t, err)
			a.cookie = &http.Cookie{Name: session.Name, Value: s.token(t, ann)} // signed in again, in another tab
		}
		has(models.RoleViewer)
		for _, path := range []string{"/edit/save", "/edit/cancel", "/edit", "/ask"} {
			w := tab.presses(path, "title", "Order less ink")
			shows(t, w, http.StatusForbidden, "You may not edit any more. An administrator can give you the right back.", "Copy your text", `readonly value="Order less ink"`)
			if _, main, _ := strings.Cut(w.Body.String(), "<main"); strings.Contains(main, "<button") || strings.Contains(main, "save it again") {
				t.Errorf("%s: what is offered would be refused again: %s", path, main)
			}
		}
		shows(t, a.post("/processes/new", "title", "Brand new", "status", "draft", "description", "x"), http.StatusForbidden, "Copy your text", `readonly value="Brand new"`)
		has(models.RoleEditor)
		goesTo(t, tab.presses("/edit/save", "title", "Order less ink"), "/processes/"+process.ID+"/edit")
		tab.presses("/edit/cancel")
	})
	t.Run("but one that began from a version that there is not yet is no text of a form", func(t *testing.T) {
		before := s.now(t, process.ID)
		for _, lock := range []string{"held", "given back"} { // which is taken anew
			tab := a.begins(t, process.ID, "takeOver", "true")
			if lock != "held" {
				_, err := s.Processes.Unlock(t.Context(), s.user(t, ann), process.ID, tab.lockCookie().Value)
				check(t, err)
			}
			w := tab.presses("/edit/save", "title", "Order from the future", "base", strconv.FormatInt(before.Version+1, 10))
			shows(t, w, http.StatusUnprocessableEntity, "base must be a version of the process")
			if got := s.now(t, process.ID); got != before {
				t.Errorf("%s: stored %+v", lock, got)
			}
		}
	})
	r := httptest.NewRequest(http.MethodPost, "/processes/"+process.ID+"/edit/save", strings.NewReader("title=spoofed&base=1"))
	w = a.send(r, "Content-Type", "application/x-www-form-urlencoded", "Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example")
	shows(t, w, http.StatusForbidden)
	if strings.Contains(w.Body.String(), "spoofed") {
		t.Error("another site writes on the page")
	}
	check(t, s.db.Close())
	shows(t, tab.presses("/edit/save", "title", "Order red ink"), http.StatusServiceUnavailable, "The database cannot be reached.", `value="Order red ink"`)
}

// Nor does it become that of another user, who has signed in since in the same browser.
func TestTextOfAnotherUser(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	process := s.process(t, "Order paper", "")
	a := s.signedIn(t, ann)
	tab := a.begins(t, process.ID)
	own, session := s.user(t, ann).ID, a.cookie
	for _, who := range []string{bob, vic} { // who may edit, and who may not
		a.cookie = &http.Cookie{Name: session.Name, Value: s.token(t, who)}
		for _, path := range []string{"/edit", "/edit/save", "/edit/cancel", "/edit/answer", "/ask"} {
			w := tab.presses(path, "title", "Order ink", "answer", "no AAAAAAAAAAAAAAAAAAAAAA")
			shows(t, w, http.StatusForbidden, "Another user has signed in since you began.", `value="Order ink"`, `data-user="`+own+`"`)
			a.opened(t, w, process.ID, "").has(t, "user", own)
		}
		if s.draft(t, who, process.ID) != nil || s.now(t, process.ID) != process {
			t.Errorf("what ann typed is that of %s", who)
		}
	}
	a.cookie = &http.Cookie{Name: session.Name, Value: s.token(t, bob)}
	shows(t, a.post("/processes/new", "user", own, "title", "Order ink", "status", "draft", "description", ""), http.StatusForbidden, "Another user has signed in", `value="Order ink"`)
	_, err := s.Processes.SaveDraft(t.Context(), s.user(t, bob), process.ID, models.Draft{Title: "Order chalk", Status: "draft", BaseVersion: 1}, time.Time{})
	check(t, err)
	shows(t, tab.presses("/draft/discard"), http.StatusForbidden)
	if s.draft(t, bob, process.ID) == nil {
		t.Error("ann's page discards the draft of bob")
	}
	again := a.opened(t, tab.presses("/edit/save", "title", "Order ink"), process.ID, "")
	a.cookie = session
	goesTo(t, again.presses("/edit/save", "then", "close"), "/processes/"+process.ID)
	if got := s.now(t, process.ID); got.Title != "Order ink" || got.UpdatedBy.ID != own {
		t.Errorf("stored: %+v", got)
	}

	decides := s.conflicted(t, s.now(t, process.ID), models.ProcessFields{Title: "Order pens", Status: "draft"}, models.ProcessFields{Title: "Order wax", Status: "draft"})
	check(t, s.Processes.DeleteDraft(t.Context(), s.user(t, bob), process.ID, time.Time{}))
	decides.cookie = &http.Cookie{Name: session.Name, Value: s.token(t, bob)}
	for _, path := range []string{"/edit/resolve", "/edit/cancel"} {
		w := decides.presses(path, "title.choice", "edited", "title.edited", "Order red pens")
		shows(t, w, http.StatusForbidden, "Another user has signed in", `value="Order red pens"`)
	}
	if s.draft(t, bob, process.ID) != nil || s.now(t, process.ID).Title != "Order wax" {
		t.Error("what ann decided is that of bob")
	}
}

// Nor is what an editor wrote in a conflict. It is decided about again.
func TestDecisionSurvivesARefusal(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	process := s.process(t, "Order paper", "Ten boxes.")
	mine, theirs := models.ProcessFields{Title: "Order ink", Status: "draft", Description: "Ten boxes."}, models.ProcessFields{Title: "Order pens", Status: "active", Description: "Ten boxes."}
	tab := s.conflicted(t, process, mine, theirs)
	check(t, s.Sessions.Delete(t.Context(), tab.cookie.Value))
	w := tab.presses("/edit/resolve", "title.choice", "edited", "title.edited", "Order ink and pencils")
	shows(t, w, http.StatusUnauthorized, "Your session has ended.", `value="Order ink and pencils"`)
	if strings.Contains(w.Body.String(), theirs.Title) {
		t.Error("who is not signed in sees what another user wrote")
	}
	again := tab.opened(t, w, process.ID, "")
	again.has(t, "base", "1")
	tab.cookie = &http.Cookie{Name: tab.cookie.Name, Value: s.token(t, ann)}
	shows(t, again.presses("/edit/save"), http.StatusConflict, "Mine: Order ink and pencils", "What "+bob+" saved: Order pens", "Only "+bob+" changed this")
}

// TestTextWithoutASession: who has signed out in another tab, or comes back the next day, has no
// session's cookie any more. The text of the form is not lost.
func TestTextWithoutASession(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	process := s.process(t, "Order paper", "")
	a := s.signedIn(t, ann)
	tab := a.begins(t, process.ID)
	form := a.opened(t, a.get("/processes/new"), "", "")
	a.post("/logout")
	a.cookie = nil
	for _, path := range []string{"/edit/save", "/edit/cancel"} {
		shows(t, tab.presses(path, "title", "Order ink"), http.StatusUnauthorized, "Your session has ended.", `value="Order ink"`)
	}
	fields := []string{"user", form.fields.Get("user"), "title", "Brand new", "status", "draft", "description", ""}
	shows(t, a.post("/processes/new", fields...), http.StatusUnauthorized, "Your session has ended.", `value="Brand new"`)

	t.Run("and is not saved as another user's", func(t *testing.T) {
		b := s.signedIn(t, bob)
		w := b.post("/processes/new", fields...)
		shows(t, w, http.StatusForbidden, "Another user has signed in", `value="Brand new"`)
		again := b.opened(t, w, "", "")
		shows(t, b.post("/processes/new", "user", again.fields.Get("user"), "title", "Brand new", "status", "draft", "description", ""), http.StatusForbidden)
	})
}

// TestUntouchedForm: what others saved since a form was opened is no change of its user's.
func TestUntouchedForm(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	t.Run("is not kept", func(t *testing.T) {
		process := s.process(t, "Order paper", "")
		a := s.signedIn(t, ann)
		tab := a.begins(t, process.ID)
		s.writesAnyway(t, process.ID, "Order pens")
		w := tab.presses("/edit/cancel")
		goesTo(t, w, "/processes/"+process.ID)
		page := a.get("/processes/" + process.ID).Body.String()
		if s.draft(t, ann, process.ID) != nil || strings.Contains(page, "What you typed is kept") {
			t.Errorf("kept: %s", page)
		}
	})
	t.Run("takes no draft away", func(t *testing.T) {
		process := s.process(t, "Order paper", "")
		a := s.signedIn(t, ann)
		old := a.begins(t, process.ID)
		tab := a.begins(t, process.ID, "takeOver", "true")
		goesTo(t, tab.presses("/edit/save", "title", "Order ink"), "/processes/"+process.ID+"/edit")
		goesTo(t, tab.presses("/edit/cancel", "title", "Order more ink", "base", "2"), "/processes/"+process.ID)
		for _, pressed := range []string{"/edit/save", "/edit/cancel"} {
			old.presses(pressed)
			if got := s.draft(t, ann, process.ID); got == nil || got.Title != "Order more ink" {
				t.Errorf("after %s the draft is %+v", pressed, got)
			}
		}
	})
	t.Run("saved twice is saved once", func(t *testing.T) {
		process := s.process(t, "Order paper", "")
		a := s.signedIn(t, ann)
		tab := a.begins(t, process.ID)
		locks := maps.Clone(a.locks)
		for range 2 {
			a.locks = maps.Clone(locks)
			w := tab.presses("/edit/save", "title", "Order ink", "then", "close")
			goesTo(t, w, "/processes/"+process.ID)
			if page := a.get("/processes/" + process.ID).Body.String(); !strings.Contains(page, "Your changes are saved.") {
				t.Errorf("it says: %s", page)
			}
		}
		if got := s.now(t, process.ID); got.Version != 2 {
			t.Errorf("stored: %+v", got)
		}
	})
}

// A page that another tab of its user has overtaken does not replace what was typed there, in
// whichever way it is left: it says so, and replaces it at the next press.
func TestOlderTabReplacesNoDraft(t *testing.T) {
	t.Parallel()
	for press, fields := range map[string][]string{
		"/edit": {"takeOver", "true"}, "/edit/cancel": nil, "/edit/save": nil, "/ask": nil,
	} {
		t.Run(strings.Trim(press, "/"), func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			process := s.process(t, "Order paper", "Ten boxes.")
			a := s.signedIn(t, ann)
			older := a.begins(t, process.ID)
			newer := a.begins(t, process.ID, "takeOver", "true")
			goesTo(t, newer.presses("/edit/cancel", "title", "Order ink"), "/processes/"+process.ID)
			if press != "/edit" && press != "/edit/cancel" { // another user has it by now
				s.signedIn(t, bob).begins(t, process.ID)
			}
			page := older.presses(press, append(fields, "title", "Order pens")...)
			shows(t, page, page.Code, "You typed something else", `value="Order pens"`)
			if got := s.draft(t, ann, process.ID); got == nil || got.Title != "Order ink" {
				t.Fatalf("the draft is %+v", got)
			}
			older = a.opened(t, page, process.ID, older.path)
			older.presses("/edit/cancel", "title", "Order pens")
			if got := s.draft(t, ann, process.ID); got == nil || got.Title != "Order pens" {
				t.Errorf("the draft is %+v after it was said", got)
			}
		})
	}
}
