package e2e

import (
	"testing"
	"time"

	devpage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"gatehouse/services/servicestest"
)

// hurries lets the waits of a page that last 10 s or more last the twentieth part.
func (d desk) hurries() {
	d.t.Helper()
	if _, err := chromedp.Call(d.tab, devpage.AddScriptToEvaluateOnNewDocument, devpage.AddScriptToEvaluateOnNewDocumentParams{
		Source: `(({setTimeout: set}) => {
			window.setTimeout = (run, wait, ...more) => set(run, wait >= 10_000 ? wait / 20 : wait, ...more);
		})(window)`,
	}); err != nil {
		d.t.Fatal(err)
	}
}

// requested is how often the page has asked for paths that end so.
func (d desk) requested(end string) int {
	d.t.Helper()
	return read[int](d.t, d.tab, `performance.getEntriesByType("resource").filter(({name}) => new URL(name).pathname.endsWith("`+end+`")).length`)
}

// editHands: input extends the lock. Neither an open tab nor what its page hears of others does.
func editHands(t *testing.T, a *app) {
	alice, bob := newDesk(t, a, "alice@example.com"), a.signIn(t, "bob@example.com")
	process := alice.newProcess("Knead the dough")
	end := func() time.Time {
		at, err := time.Parse(time.RFC3339Nano, alice.call(t, "GET /processes/"+process+"/lock/status", nil).is(t, 200).text(t, "expiresAt"))
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	alice.hurries()
	alice.edit(process)
	servicestest.Eventually(t, func() bool { return alice.requested("/edit/extend") == 1 }, "a page that opens does not extend its lock")
	before := end()
	later := func() bool { return end().Sub(before) > 500*time.Millisecond } // it is as exact as the time left
	for range 5 {
		looks := alice.requested("/edit/state")
		request := bob.call(t, "POST /processes/"+process+"/lock/requests", nil).is(t, 201).text(t, "id")
		bob.call(t, "DELETE /processes/"+process+"/lock/requests/"+request, nil).is(t, 204)
		servicestest.Eventually(t, func() bool { return alice.requested("/edit/state") > looks }, "the page does not hear of who asks")
	}
	read[bool](t, alice.tab, `(setTimeout(() => { window.passed = true; }, 25_000), true)`)
	alice.until(`window.passed`)
	if got := alice.requested("/edit/extend"); got != 1 || later() {
		t.Errorf("without input it was extended %d times, from %s to %s", got-1, before, end())
	}

	// Who types without a pause extends it, and writes one draft in 2 s.
	read[bool](t, alice.tab, `(() => {
		const {fetch} = window, field = document.querySelector("#description");
		window.drafts = [];
		window.fetch = (url, options = {}) => {
			if (options.method === "PUT") drafts.push(performance.now());
			return fetch(url, options);
		};
		const type = () => {
			field.value += ".";
			field.dispatchEvent(new Event("input", {bubbles: true}));
		};
		setInterval(type, 50);
		return true;
	})()`)
	alice.until(`drafts.length > 2`)
	if least := read[float64](t, alice.tab, `Math.min(...drafts.slice(1).map((at, i) => at - drafts[i]))`); least < 1990 { // clocks are not that exact
		t.Errorf("two drafts within %.0f ms", least)
	}
	got := alice.requested("/edit/extend")
	most := 3 + int(read[float64](t, alice.tab, `performance.now() - drafts[0]`)/1000) // one in 20 s, hurried
	if got < 2 || got > most || !later() {
		t.Errorf("with input it was extended %d times, want at most %d, to %s", got-1, most-1, end())
	}
}
