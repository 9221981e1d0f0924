package handlers_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

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
