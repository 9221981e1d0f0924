package handlers_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"gatehouse/models"
)

// asks is the page on which a user waits for the answer.
func (b *browser) asks(t *testing.T, id, message string) (path string) {
	t.Helper()
	w := b.post("/processes/"+id+"/ask", "message", message)
	return goesTo(t, w, "/processes/"+id)
}

// requestIn is the request that a page of the holder shows.
func requestIn(t *testing.T, page *httptest.ResponseRecorder) string {
	t.Helper()
	found := regexp.MustCompile(`<li data-request="([A-Za-z0-9_-]+)"`).FindStringSubmatch(page.Body.String())
	if found == nil {
		t.Fatalf("no request in the page: %s", page.Body)
	}
	return found[1]
}

func TestAskForALock(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	process := s.process(t, "Order paper", "Ten boxes.")
	path := "/processes/" + process.ID
	tab := s.signedIn(t, ann).begins(t, process.ID)
	b := s.signedIn(t, bob)
	shows(t, b.get(path), http.StatusOK, "Ask for it", ">Ask</button>")
	shows(t, b.post(path+"/ask", "message", strings.Repeat("x", 201)), http.StatusUnprocessableEntity, "Say it in up to 200 characters.")
	waiting := b.asks(t, process.ID, "ten <minutes>?")
	page := b.get(waiting)
	shows(t, page, http.StatusOK, "; you are next", "You asked for it at", `<noscript><meta http-equiv="refresh" content="10; url=`+path+`?request=`)
	if strings.Contains(page.Body.String(), ">Ask</button>") {
		t.Error("bob can ask twice")
	}
	if again := b.asks(t, process.ID, "please"); again != waiting {
		t.Errorf("another request: %s after %s", again, waiting)
	}
	admin := s.signedIn(t, "admin@example.com")
	admin.asks(t, process.ID, "")
	shows(t, b.get(path), http.StatusOK, "; 2 are waiting, you are next")
	for path, want := range map[string]string{
		"/": "2 are waiting", "/processes": "2 are waiting", "/locks/force?resource=process:" + process.ID: "2 requests wait",
		"/api/v1/locks": `"waiting":2`, "/api/v1/locks/process:" + process.ID: `"waiting":2`, "/api/v1" + path + "/lock/status": `"waiting":2,`,
	} {
		if w := admin.get(path); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d, without %s: %s", path, w.Code, want, w.Body)
		}
	}
	held := tab.get(tab.path)
	shows(t, held, http.StatusOK, "<strong>"+bob+"</strong> asks to edit", "“<bdi>ten &lt;minutes&gt;?</bdi>”", "2 other users are waiting")
	request := requestIn(t, held)
	if state := tab.get(path + "/edit/state?lock=" + tab.fields.Get("lock")).Body.String(); !strings.Contains(state, `"id":"`+request+`"`) || !strings.Contains(state, `"waiting":2`) {
		t.Errorf("the script is not told: %s", state)
	}

	t.Run("five more minutes", func(t *testing.T) {
		goesTo(t, tab.presses("/edit/answer", "answer", "later "+request, "title", "Order ink"), path+"/edit")
		tab.get(tab.path, "HX-Request", "true") // a script's look, which takes no message
		form := tab.get(tab.path)
		shows(t, form, http.StatusOK, bob+" is told: 5 more minutes.", `value="Order ink"`) // what was typed is there
		shows(t, b.get(waiting), http.StatusOK, "The answer: a few more minutes, until")
		tab = tab.opened(t, form, process.ID, tab.path)
	})
	t.Run("given: the asker's page goes on to the form, and the holder's text is kept", func(t *testing.T) {
		goesTo(t, tab.presses("/edit/answer", "answer", "give "+request, "title", "Order red ink"), path)
		shows(t, tab.get(path), http.StatusOK, bob+" can edit it now. What you had typed is kept for you.", "You left changes", "Order red ink")
		for range 2 {
			goesTo(t, b.get(waiting, "HX-Request", "true"), path+"/edit") // a script's looks, which take no message
		}
		form := goesTo(t, b.get(waiting), path+"/edit")
		b.get(form, "HX-Request", "true")
		page := b.get(form)
		shows(t, page, http.StatusOK, "It is yours now: you can edit.")
		if n := strings.Count(page.Body.String(), "It is yours now"); n != 1 {
			t.Errorf("it is said %d times", n)
		}
		mine := b.opened(t, page, process.ID, form)
		status, err := s.Locks.Status(t.Context(), "process:"+process.ID)
		check(t, err)
		if status.TTL < 10*time.Minute {
			t.Errorf("without JavaScript bob has %v to type", status.TTL)
		}
		goesTo(t, mine.presses("/edit/save", "description", "Twelve boxes."), path+"/edit")
		shows(t, tab.presses("/edit/save", "title", "Order blue ink"), http.StatusConflict, "You gave it away at", "Ask for it", "You typed something else", `value="Order blue ink"`)
		if got := s.draft(t, ann, process.ID); got == nil || got.Title != "Order red ink" { // the page of before does not replace it
			t.Errorf("the draft is %+v", got)
		}
		mine.presses("/edit/save", "description", "Twelve boxes.", "then", "close")
	})
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	process := s.process(t, "Order paper", "Ten boxes.")
	path := "/processes/" + process.ID
	tab := s.signedIn(t, ann).begins(t, process.ID)
	b := s.signedIn(t, bob)
	t.Run("no", func(t *testing.T) {
		waiting := b.asks(t, process.ID, "")
		goesTo(t, tab.presses("/edit/answer", "answer", "no "+requestIn(t, tab.get(tab.path))), path+"/edit")
		shows(t, b.get(waiting), http.StatusOK, "The answer: no.", ">Ask</button>")
		if s.draft(t, ann, process.ID) != nil {
			t.Error("a draft of nothing is kept")
		}
	})
	t.Run("taken back", func(t *testing.T) {
		waiting := b.asks(t, process.ID, "")
		request := requestIn(t, tab.get(tab.path))
		goesTo(t, b.post(path+"/ask/withdraw", "request", request), path)
		shows(t, b.get(path), http.StatusOK, "You no longer ask for it.", ">Ask</button>")
		goesTo(t, tab.presses("/edit/answer", "answer", "give "+request), path+"/edit")
		shows(t, tab.get(tab.path), http.StatusOK, "That request was answered or taken back already.")
		shows(t, b.get(waiting), http.StatusOK, ">Ask</button>")
	})
	t.Run("to a script it is said at once, and on no later page", func(t *testing.T) {
		waiting := b.asks(t, process.ID, "")
		request := requestIn(t, tab.get(tab.path))
		says := func(answer, want string) {
			form := url.Values{"lock": {tab.fields.Get("lock")}, "answer": {answer + " " + request}}
			r := httptest.NewRequest(http.MethodPost, path+"/edit/answer", strings.NewReader(form.Encode()))
			w := tab.send(r, "Content-Type", "application/x-www-form-urlencoded", "Sec-Fetch-Site", "same-origin", "HX-Request", "true")
			if got := strings.TrimSpace(w.Body.String()); w.Code != http.StatusOK || got != want {
				t.Errorf("%s: %d %s", answer, w.Code, got)
			}
		}
		says("later", `{"text":"`+bob+` is told: 5 more minutes.","failed":false}`)
		form := tab.get(tab.path)
		shows(t, form, http.StatusOK, "You asked for more time. They get it ")
		says("no", `{"text":"`+bob+` is told: no.","failed":false}`)
		says("later", `{"text":"That request was answered or taken back already.","failed":true}`)
		for _, page := range []*httptest.ResponseRecorder{form, tab.get(tab.path), b.get(waiting)} {
			if strings.Contains(page.Body.String(), "is told") || strings.Contains(page.Body.String(), "taken back already") {
				t.Errorf("it is said again: %s", page.Body)
			}
		}
	})
	t.Run("nonsense", func(t *testing.T) {
		for _, answer := range []string{"", "give", "perhaps 1", "give a/b"} {
			shows(t, tab.presses("/edit/answer", "answer", answer), http.StatusUnprocessableEntity)
		}
		goesTo(t, tab.presses("/edit/answer", "answer", "give nothing"), path+"/edit")
		shows(t, b.post(path+"/ask/withdraw", "request", "nothing"), http.StatusNotFound)
		shows(t, b.post(path+"/ask/withdraw", "request", "a/b"), http.StatusNotFound)
		shows(t, b.get(path+"?request=nothing"), http.StatusOK, "Order paper")
		shows(t, s.signedIn(t, vic).post(path+"/ask"), http.StatusForbidden)
		shows(t, b.post("/processes/999/ask"), http.StatusNotFound)
	})
	t.Run("what is free is not asked for", func(t *testing.T) {
		goesTo(t, tab.presses("/edit/cancel"), path)
		goesTo(t, b.post(path+"/ask"), path)
		shows(t, b.get(path), http.StatusOK, "Nobody is editing this.")
	})
	t.Run("whoever lost the lock asks with the text, which is kept", func(t *testing.T) {
		tab := s.signedIn(t, ann).begins(t, process.ID)
		_, err := s.Locks.ForceRelease(t.Context(), "process:"+process.ID, nil)
		check(t, err)
		b.begins(t, process.ID)
		lost := tab.opened(t, tab.presses("/edit/save", "title", "Order ink"), process.ID, "")
		goesTo(t, lost.presses("/ask", "title", "Order red ink"), path)
		if got := s.draft(t, ann, process.ID); got == nil || got.Title != "Order red ink" {
			t.Errorf("the draft is %+v", got)
		}
		shows(t, lost.presses("/ask", "description", strings.Repeat("x", models.MaxDraftDescription+1)), http.StatusConflict, "Nothing was saved", "xxx")
	})
}
