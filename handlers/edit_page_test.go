package handlers_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"gatehouse/models"
	"gatehouse/services"
)

const (
	ann = "ann@example.com"
	bob = "bob@example.com"
	vic = "vic@example.com"
)

// process is a new process, written by ann.
func (s *site) process(t *testing.T, title, description string) models.Process {
	t.Helper()
	process, err := s.Processes.Create(t.Context(), s.user(t, ann), models.ProcessFields{Title: title, Status: "draft", Description: description})
	check(t, err)
	return process
}

// now is a process as it is stored.
func (s *site) now(t *testing.T, id string) models.Process {
	t.Helper()
	process, err := s.Processes.Process(t.Context(), id)
	check(t, err)
	return process
}

// writes changes a process as a user without a page does.
func (s *site) writes(t *testing.T, email, id string, change func(*models.ProcessFields)) models.Process {
	t.Helper()
	who := s.user(t, email)
	lock, err := s.Processes.Lock(t.Context(), who, id, services.ProcessLockOptions{})
	check(t, err)
	fields := models.ProcessPatch{}.Apply(lock.Process)
	change(&fields)
	process, _, err := s.Processes.Replace(t.Context(), who, id, lock.Token, nil, fields)
	check(t, err)
	_, err = s.Processes.Unlock(t.Context(), who, id, lock.Token)
	check(t, err)
	return process
}

// draft is what a user has typed and not saved; nil if there is nothing.
func (s *site) draft(t *testing.T, email, id string) *models.Draft {
	t.Helper()
	draft, err := s.Processes.Draft(t.Context(), s.user(t, email), id)
	if err != nil {
		return nil
	}
	return &draft
}

// tab is an open page with a form.
type tab struct {
	*browser
	id     string
	path   string // of the page
	fields url.Values
}

// begins presses Edit and follows to the form.
func (b *browser) begins(t *testing.T, id string, fields ...string) *tab {
	t.Helper()
	return b.follows(t, b.post("/processes/"+id+"/edit", fields...), id)
}

// follows goes to the form that an answer sends to.
func (b *browser) follows(t *testing.T, w *httptest.ResponseRecorder, id string) *tab {
	t.Helper()
	path := w.Header().Get("Location")
	if w.Code != http.StatusSeeOther || !strings.HasPrefix(path, "/processes/"+id+"/edit?lock=") {
		t.Fatalf("%d to %q, want the form: %s", w.Code, path, w.Body)
	}
	page := b.get(path)
	shows(t, page, http.StatusOK)
	return b.opened(t, page, id, path)
}

// opened reads the form of a page.
func (b *browser) opened(t *testing.T, page *httptest.ResponseRecorder, id, path string) *tab {
	t.Helper()
	return &tab{b, id, path, formValues(t, page.Body.String())}
}

// presses sends the form to a path below the process, with other values of some fields.
func (tab *tab) presses(path string, fields ...string) *httptest.ResponseRecorder {
	all := []string{}
	for name := range tab.fields {
		all = append(all, name, tab.fields.Get(name))
	}
	return tab.post("/processes/"+tab.id+path, append(all, fields...)...)
}

// lockCookie is that of the page's lock; nil if the browser has none.
func (tab *tab) lockCookie() *http.Cookie { return tab.locks["gatehouse-lock-"+tab.fields.Get("lock")] }

func (tab *tab) has(t *testing.T, field, want string) {
	t.Helper()
	if got := tab.fields.Get(field); got != want {
		t.Errorf("%s is %q, want %q", field, got, want)
	}
}

// formValues are what a browser sends of the form with hidden fields, or the last one, without a
// press of a button.
func formValues(t *testing.T, page string) url.Values {
	t.Helper()
	root, err := html.Parse(strings.NewReader(page))
	check(t, err)
	values := url.Values{}
	attribute := func(n *html.Node, name string) (value string, ok bool) {
		for _, a := range n.Attr {
			if a.Key == name {
				return a.Val, true
			}
		}
		return "", false
	}
	text := func(n *html.Node) string {
		if n.FirstChild == nil {
			return ""
		}
		return n.FirstChild.Data
	}
	for n := range root.Descendants() {
		if n.Type != html.ElementNode {
			continue
		}
		name, _ := attribute(n, "name")
		value, _ := attribute(n, "value")
		kind, _ := attribute(n, "type")
		_, checked := attribute(n, "checked")
		switch {
		case n.Data == "input" && (kind != "radio" || checked) && !values.Has(name):
			values.Set(name, value)
		case n.Data == "textarea":
			values.Set(name, strings.ReplaceAll(text(n), "\n", "\r\n")) // as browsers do
		case n.Data == "option":
			if _, selected := attribute(n, "selected"); selected {
				list, _ := attribute(n.Parent, "name")
				values.Set(list, text(n))
			}
		}
	}
	return values
}

// goesTo checks where an answer sends the browser, which may have parameters.
func goesTo(t *testing.T, w *httptest.ResponseRecorder, path string) string {
	t.Helper()
	got := w.Header().Get("Location")
	if before, _, _ := strings.Cut(got, "?"); w.Code != http.StatusSeeOther || before != path {
		t.Fatalf("%d to %q, want 303 to %s: %s", w.Code, got, path, w.Body)
	}
	return got
}

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
	shows(t, s.signedIn(t, bob).get(path), http.StatusOK, "<strong>"+ann+"</strong> is editing since", "“new supplier”")
	shows(t, a.get("/processes"), http.StatusOK, "<strong>You</strong> are editing since")

	t.Run("saves, and goes on", func(t *testing.T) {
		w := tab.presses("/edit/save", "then", "stay", "title", "Order ink", "description", "Twelve boxes.\r\nBy Friday.")
		goesTo(t, w, path+"/edit")
		page := a.get(w.Header().Get("Location"))
		shows(t, page, http.StatusOK, "Your changes are saved.", `value="Order ink"`)
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
		if len(a.locks) != 0 {
			t.Errorf("the browser keeps %v", a.locks)
		}
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
		shows(t, a.get(path), http.StatusOK, "What you typed is kept", "You left changes", "Order pens", "Go on with them", "Discard them", "Nobody is editing this.")
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
	shows(t, theirs.presses("/edit/save", "title", "Bob was here"), http.StatusConflict, "Nothing was saved", ann+" is editing this now.")
	b.locks = nil
	shows(t, theirs.presses("/edit/save", "title", "Bob was here"), http.StatusConflict, "Nothing was saved", ann+" is editing this now.")
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
	s.signedIn(t, ann).begins(t, process.ID, "reason", "new supplier")
	b := s.signedIn(t, bob)
	shows(t, b.post(path+"/edit"), http.StatusLocked, "<strong>"+ann+"</strong> is editing since", "“new supplier”", "refused")
	if len(b.locks) != 0 {
		t.Errorf("bob has %v", b.locks)
	}
	page := s.signedIn(t, "admin@example.com").get(path)
	shows(t, page, http.StatusOK, "fence", "/locks/force?resource=process%3A"+process.ID)
	for _, technical := range []string{"fence", "grant", "Force"} {
		if strings.Contains(b.get(path).Body.String(), technical) {
			t.Errorf("bob is told the %s", technical)
		}
	}
	free := "/processes/" + s.process(t, "Order ink", "").ID
	shows(t, b.post(free+"/edit", "reason", strings.Repeat("x", 201)), http.StatusUnprocessableEntity, "Say it in up to 200 characters.")
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
}

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
		shows(t, page, http.StatusOK, ann+" has changes from")
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
		shows(t, a.get(tab.path), http.StatusOK, "Changed while you looked.", bob+" saved at", "That is in the text below already")
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
	t.Run("not after it was discarded", func(t *testing.T) {
		_, err := s.Processes.SaveDraft(t.Context(), s.user(t, ann), process.ID, models.Draft{Title: "x", Status: "active", BaseVersion: 2}, time.Time{})
		check(t, err)
		goesTo(t, a.post(path+"/draft/discard"), path)
		goesTo(t, a.post(path+"/draft/discard"), path) // twice is once
		if s.draft(t, ann, process.ID) != nil {
			t.Error("it is still there")
		}
	})
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
		if got := s.draft(t, ann, process.ID); got == nil || got.Title != "Order ink" || got.BaseVersion != 1 {
			t.Errorf("the draft is %+v", got)
		}
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
		goesTo(t, a.get(tab.path), path)
		shows(t, a.get(path), http.StatusOK, "Your lock has ended.", "Nobody is editing this.")
		if tab.lockCookie() != nil {
			t.Error("the browser keeps the cookie")
		}
		goesTo(t, a.get(tab.path), path) // without the cookie
	})
	t.Run("a process that is not there any more", func(t *testing.T) {
		tab := a.begins(t, process.ID)
		_, err := s.Processes.Delete(t.Context(), s.user(t, ann), process.ID, tab.lockCookie().Value, nil)
		check(t, err)
		w := tab.presses("/edit/save", "title", "Order crayons")
		shows(t, w, http.StatusNotFound, "The process was deleted.", `value="Order crayons"`)
		w = a.opened(t, w, process.ID, "").post("/processes/new", "title", "Order crayons", "status", "draft", "description", "")
		shows(t, a.get(w.Header().Get("Location")), http.StatusOK, "Order crayons")
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
	r := httptest.NewRequest(http.MethodPost, "/processes/"+process.ID+"/edit/save", strings.NewReader("title=spoofed&base=1"))
	w = a.send(r, "Content-Type", "application/x-www-form-urlencoded", "Sec-Fetch-Site", "cross-site", "Origin", "https://evil.example")
	shows(t, w, http.StatusForbidden)
	if strings.Contains(w.Body.String(), "spoofed") {
		t.Error("another site writes on the page")
	}
	check(t, s.db.Close())
	shows(t, tab.presses("/edit/save", "title", "Order red ink"), http.StatusServiceUnavailable, "The database cannot be reached.", `value="Order red ink"`)
}

// What the script of the page calls.
func TestEditScript(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	process := s.process(t, "Order paper", "")
	a := s.signedIn(t, ann)
	tab := a.begins(t, process.ID)
	lock := tab.fields.Get("lock")
	path := "/processes/" + process.ID + "/edit"
	type state struct {
		Held                    bool
		Now, Expires, ExpiresIn int64
		Version                 int64
		ChangedBy               struct{ Email string }
		Text, Type              string
		Calm                    bool
		Holder                  *models.Holder
		Waiting                 int
		Degraded                bool
	}
	answer := func(t *testing.T, w *httptest.ResponseRecorder, status int) (got state) {
		t.Helper()
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != status || w.Header().Get("Cache-Control") != "no-store" {
			t.Fatalf("%d %v, want %d: %s", w.Code, w.Header(), status, w.Body)
		}
		return got
	}
	if got := answer(t, a.get(path+"/state?lock="+lock), 200); !got.Held || got.ExpiresIn < 800 || got.Version != 1 || got.ChangedBy.Email != ann || got.Text != "" {
		t.Errorf("a held lock: %+v", got)
	}
	if got := answer(t, a.post(path+"/extend", "lock", lock), 200); got.ExpiresIn < 290 || got.ExpiresIn > 300 || got.Expires <= got.Now {
		t.Errorf("extended: %+v", got)
	}
	if w := a.post(path+"/release", "lock", lock, "soon", "true"); w.Code != http.StatusNoContent {
		t.Errorf("left: %d %s", w.Code, w.Body)
	}
	if got := answer(t, a.get(path+"/state?lock="+lock), 200); !got.Held || got.ExpiresIn > 5 {
		t.Errorf("left, and may come back: %+v", got)
	}
	shows(t, a.get(tab.path), http.StatusOK) // it is back
	if got := answer(t, a.post(path+"/extend", "lock", lock), 200); got.ExpiresIn < 290 {
		t.Errorf("back: %+v", got)
	}
	for range 2 {
		if w := a.post(path+"/release", "lock", lock); w.Code != http.StatusNoContent {
			t.Errorf("released: %d %s", w.Code, w.Body)
		}
	}
	if got := answer(t, a.post(path+"/extend", "lock", lock), 409); got.Type != "/problems/lock-not-held" || got.Text == "" {
		t.Errorf("extended what is over: %+v", got)
	}
	s.signedIn(t, bob).begins(t, process.ID)
	if got := answer(t, a.get(path+"/state?lock="+lock), 200); got.Held || got.Holder == nil || got.Holder.Email != bob || got.Calm || !strings.Contains(got.Text, bob) {
		t.Errorf("another has it: %+v", got)
	}
	if got := answer(t, a.post(path+"/extend", "lock", "no such lock"), 428); got.Type != "/problems/lock-token-required" {
		t.Errorf("without a cookie: %+v", got)
	}
	if got := answer(t, s.browser(t).get(path+"/state?lock="+lock), 401); got.Type != "/problems/unauthenticated" {
		t.Errorf("signed out: %+v", got)
	}
	if w := a.get("/processes/999/edit/state?lock=" + lock); w.Code != 404 {
		t.Errorf("of no process: %d", w.Code)
	}
}

func TestProcessList(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.signedIn(t, ann)
	shows(t, a.get("/processes"), http.StatusOK, "There are no processes yet.")
	for i := range 30 {
		s.process(t, "Order "+strconv.Itoa(i), "")
	}
	s.process(t, "archive", "")
	titles := func(page string) (found []string) {
		for _, row := range strings.Split(page, `<a class="title" href="`)[1:] {
			_, title, _ := strings.Cut(row, ">")
			title, _, _ = strings.Cut(title, "<")
			found = append(found, title)
		}
		return found
	}
	next := func(page string) string {
		_, after, ok := strings.Cut(page, `<a href="/processes?cursor=`)
		if !ok {
			_, after, _ = strings.Cut(page, `rel="next"`)
		}
		link, _, _ := strings.Cut(after, `"`)
		return strings.ReplaceAll("/processes?cursor="+link, "&amp;", "&")
	}
	t.Run("newest change first, on pages", func(t *testing.T) {
		page := a.get("/processes").Body.String()
		if got := titles(page); len(got) != 25 || got[0] != "archive" || got[1] != "Order 29" {
			t.Errorf("%q", got)
		}
		second := a.get(next(page))
		shows(t, second, http.StatusOK, "First page")
		if got := titles(second.Body.String()); len(got) != 6 || got[5] != "Order 0" {
			t.Errorf("%q", got)
		}
	})
	t.Run("by title, in any case", func(t *testing.T) {
		page := a.get("/processes?order=title").Body.String()
		if got := titles(page); len(got) != 25 || got[0] != "archive" || got[1] != "Order 0" || got[2] != "Order 1" || got[3] != "Order 10" {
			t.Errorf("%q", got)
		}
		if got := titles(a.get(next(page)).Body.String()); len(got) != 6 || got[5] != "Order 9" {
			t.Errorf("%q", got)
		}
	})
	t.Run("searched", func(t *testing.T) {
		if got := titles(a.get("/processes?q=ORDER+2").Body.String()); len(got) != 11 {
			t.Errorf("%q", got)
		}
		shows(t, a.get("/processes?q=nothing"), http.StatusOK, "Nothing found.", `value="nothing"`)
		shows(t, a.get("/processes?q="+strings.Repeat("x", 201)), http.StatusUnprocessableEntity)
		shows(t, a.get("/processes?status=active&order=title"), http.StatusOK, "Nothing found.")
		for _, wrong := range []string{"status=lost", "order=size", "cursor=x", "order=title&cursor=x", "page=2"} {
			shows(t, a.get("/processes?"+wrong), http.StatusUnprocessableEntity)
		}
	})
}

func TestNewProcess(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.signedIn(t, ann)
	shows(t, a.get("/processes/new"), http.StatusOK, "<h1>New process</h1>")
	w := a.post("/processes/new", "title", "", "status", "draft", "description", "Ten boxes.")
	shows(t, w, http.StatusUnprocessableEntity, "Write a title", "Ten boxes.", `aria-invalid="true"`)
	w = a.post("/processes/new", "title", "Order paper", "status", "active", "description", "Ten boxes.\r\nBy Friday.")
	path := w.Header().Get("Location")
	goesTo(t, w, path)
	shows(t, a.get(path), http.StatusOK, "The process is created.", "Order paper", "Ten boxes.\nBy Friday.")
}
