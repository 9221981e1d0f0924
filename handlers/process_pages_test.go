package handlers_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
)

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
	t.Run("of which the last can be empty by the time that it is opened", func(t *testing.T) {
		last := next(a.get("/processes").Body.String()) + "&status=active" // as if those there were that, and are not any more
		shows(t, a.get(last), http.StatusOK, `There is nothing more here. <a href="/processes?status=active">First page</a>`)
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
