package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"

	"gatehouse/services/servicestest"
)

// desk is a user's tab, and the same user at the API.
type desk struct {
	*client
	t   *testing.T
	tab context.Context //nolint:containedctx // chromedp knows a tab by its context
}

// newDesk is a tab that has the session of its user at the API: to sign in on the page, as
// pageDesk does, takes as long as the rest of many a test.
func newDesk(t *testing.T, a *app, email string, expected ...string) desk {
	t.Helper()
	d := desk{a.signIn(t, email), t, emptyTab(t, shell, expected...)}
	d.enter(t, d.tab)
	return d
}

// enter gives the tab the cookie of the client's session.
func (c *client) enter(t *testing.T, tab context.Context) {
	t.Helper()
	cookie := network.SetCookieParams{URL: c.app.URL, Name: "gatehouse", Value: c.token, HTTPOnly: new(true), SameSite: network.CookieSameSiteLax}
	if _, err := chromedp.Call(tab, network.SetCookie, cookie); err != nil {
		t.Fatal(err)
	}
}

// pageDesk is a tab in which a user has signed in, and another session of that user at the API.
func pageDesk(t *testing.T, a *app, email string, expected ...string) desk {
	t.Helper()
	d := desk{a.signIn(t, email), t, openTab(t, a, expected...)}
	signInOnPage(t, d.tab, email)
	return d
}

func (d desk) do(steps ...chromedp.Action[chromedp.Void]) {
	d.t.Helper()
	do(d.t, d.tab, steps...)
}

func (d desk) until(condition string, values ...any) {
	d.t.Helper()
	until(d.t, d.tab, fmt.Sprintf(condition, values...))
}

func (d desk) text(css string) string {
	d.t.Helper()
	return read[string](d.t, d.tab, fmt.Sprintf(`document.querySelector(%q)?.innerText ?? ""`, css))
}

// typed is what stands in the field of the description.
func (d desk) typed() string {
	d.t.Helper()
	return read[string](d.t, d.tab, `document.querySelector("#description").value`)
}

// newProcess is the id of a process with that title and no description.
func (d desk) newProcess(title string) string {
	d.t.Helper()
	return d.call(d.t, "POST /processes", map[string]any{"title": title}).is(d.t, 201).text(d.t, "id")
}

// look opens the page of a process.
func (d desk) look(process string) {
	d.t.Helper()
	d.do(chromedp.Navigate(d.app.URL + "/processes/" + process))
}

// edit opens the page of a process and takes the lock. The page's scripts are at work then.
func (d desk) edit(process string) {
	d.t.Helper()
	d.look(process)
	d.do(click("#lock form.begin button.primary, #lock form.actions button"))
	d.until(`document.querySelector("#edit")?.dataset.held === "true" && document.documentElement.matches(".live")`)
}

// draft is the description that the server has as the user's draft, "" if there is none.
func (d desk) draft(process string) string {
	got := d.call(d.t, "GET /processes/"+process+"/draft", nil)
	if got.Status == 404 {
		return ""
	}
	return got.is(d.t, 200).text(d.t, "description")
}

// kept waits until the server has the text as a draft: 0.5 s after the last key, at most one write
// in 2 s.
func (d desk) kept(process, text string) {
	d.t.Helper()
	servicestest.Within(d.t, 3*time.Second, func() bool { return d.draft(process) == text }, "the draft is not "+text)
}

// lost waits until the page says why the lock is over, and holds it to the text. Nothing typed may
// be gone, on the page or at the server.
func (d desk) lost(process, text string, why ...string) {
	d.t.Helper()
	servicestest.Within(d.t, 2*time.Second, func() bool {
		shown, err := evaluate[bool](d.tab, `document.querySelector("#lost") !== null`)
		return err == nil && shown
	}, "the page does not say that the lock is over")
	for _, want := range why { // which the page may learn a little later
		servicestest.Within(d.t, 2*time.Second, func() bool { return strings.Contains(d.text("#lost"), want) }, "the page does not say "+want)
	}
	d.do(fill("#description", "!"))
	if got := d.typed(); got != text+"!" {
		d.t.Errorf("the form has %q, want %q", got, text+"!")
	}
	d.kept(process, text+"!")
	if d.text("button[name=then]") != "" {
		d.t.Error("a button to save, which would be refused")
	}
}

// noAlarm checks that the page says nothing of a loss, a conflict or an error.
func (d desk) noAlarm() {
	d.t.Helper()
	if said := read[string](d.t, d.tab, `[...document.querySelectorAll("#lost, #changed, #away, #copy, #unsaved, #countdown, #elsewhere, #conflict, .failed")].map((one) => one.innerText).join("; ")`); said != "" {
		d.t.Errorf("a false alarm: %s", said)
	}
}
