package e2e

import (
	"testing"

	devpage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"gatehouse/services/servicestest"
)

// hurries makes the clock of a page's scripts go ten times as fast, with all that waits for it,
// apart from waits of less than 5 s. It notes when the page has asked for what.
func (d desk) hurries() {
	d.t.Helper()
	if _, err := chromedp.Call(d.tab, devpage.AddScriptToEvaluateOnNewDocument, devpage.AddScriptToEvaluateOnNewDocumentParams{
		Source: `(() => {
			const {setTimeout, setInterval, fetch} = window, {now} = Date, began = now(), pace = 10;
			const since = performance.now.bind(performance);
			const sooner = (set) => (run, wait, ...more) => set(run, wait >= 5000 ? wait / pace : wait, ...more);
			Date.now = () => began + (now() - began) * pace;
			let seen = 0; // the last time that a script has read
			performance.now = () => (seen = since()) * pace;
			window.setTimeout = sooner(setTimeout);
			window.setInterval = sooner(setInterval);
			window.asked = {extends: [], looks: []};
			window.fetch = (url, options = {}) => {
				const path = new URL(url, location).pathname, at = seen;
				if (path.endsWith("/edit/extend")) asked.extends.push(at);
				if (path.endsWith("/edit/state")) asked.looks.push(at);
				return fetch(url, options);
			};
		})()`,
	}); err != nil {
		d.t.Fatal(err)
	}
}

// editHands: input extends the lock. Neither an open tab nor what its page hears of others does.
func editHands(t *testing.T, a *app) {
	alice, bob := newDesk(t, a, "alice@example.com"), a.signIn(t, "bob@example.com")
	process := alice.newProcess("Knead the dough")
	active := func() string {
		return alice.call(t, "GET /processes/"+process+"/lock/status", nil).is(t, 200).text(t, "lastActiveAt")
	}
	alice.hurries()
	alice.edit(process)
	alice.until(`asked.extends.length === 1 && performance.getEntriesByType("resource").some(({name, responseEnd}) => name.endsWith("/edit/extend") && responseEnd > 0)`) // when it opens
	before := active()
	for range 3 {
		request := bob.call(t, "POST /processes/"+process+"/lock/requests", nil).is(t, 201).text(t, "id")
		alice.until(`document.querySelector("#lock-line .asked") !== null`)
		bob.call(t, "DELETE /processes/"+process+"/lock/requests/"+request, nil).is(t, 204)
		alice.until(`document.querySelector("#lock-line .asked") === null`)
	}
	looks := read[int](t, alice.tab, `asked.looks.length`)
	alice.until(`asked.looks.length > %d + 2`, looks) // each after 15 s, by its clock
	if got := read[int](t, alice.tab, `asked.extends.length`); got != 1 || active() != before {
		t.Errorf("without input it was extended %d times; active at %s, then %s", got-1, before, active())
	}

	// Who types without a pause extends it every 20 s.
	read[bool](t, alice.tab, `(() => {
		const field = document.querySelector("#description");
		window.typing = setInterval(() => {
			field.value += ".";
			field.dispatchEvent(new Event("input", {bubbles: true}));
		}, 50);
		return true;
	})()`)
	alice.until(`asked.extends.length > 3`)
	// The first comes at once: the last one was long ago. A timer is late, but never early.
	if least := read[float64](t, alice.tab, `Math.min(...asked.extends.slice(2).map((at, i) => at - asked.extends[i + 1]))`); least < 1900 {
		t.Errorf("extended again within %.0f ms of its 20 s", least*10)
	}
	servicestest.Eventually(t, func() bool { return active() != before }, "who types is not active")
}

// editTyped: who types without a pause writes one draft in 2 s, who stops one after 0.5 s.
func editTyped(t *testing.T, a *app) {
	alice := newDesk(t, a, "alice@example.com")
	process := alice.newProcess("Let the dough rest")
	alice.edit(process)
	read[bool](t, alice.tab, `(() => {
		const {fetch, setTimeout} = window, field = document.querySelector("#description");
		window.setTimeout = (run, wait, ...more) => { // as a timer may be late, what it is set to counts
			window.planned ??= wait;
			return setTimeout(run, wait, ...more);
		};
		window.fetch = (url, options = {}) => {
			window.wrote ||= options.method === "PUT";
			return fetch(url, options);
		};
		field.value = "Covered";
		return field.dispatchEvent(new Event("input", {bubbles: true}));
	})()`)
	alice.until(`window.wrote`)
	if planned := read[float64](t, alice.tab, `window.planned`); planned != 500 {
		t.Errorf("a draft is written %.0f ms after the last key", planned)
	}
	alice.kept(process, "Covered") // or the next page would write it, too
	alice.do(chromedp.Reload())
	alice.until(`document.querySelector("#edit")?.dataset.held === "true" && document.documentElement.matches(".live")`)
	read[bool](t, alice.tab, `(() => {
		const {fetch} = window, field = document.querySelector("#description"), now = performance.now.bind(performance);
		let seen = 0; // the last time that a script has read
		performance.now = () => seen = now();
		window.drafts = [];
		window.fetch = (url, options = {}) => {
			if (options.method === "PUT") drafts.push(seen);
			return fetch(url, options);
		};
		setInterval(() => {
			field.value += ".";
			field.dispatchEvent(new Event("input", {bubbles: true}));
		}, 50);
		return true;
	})()`)
	alice.until(`drafts.length > 2`)
	if least := read[float64](t, alice.tab, `Math.min(...drafts.slice(1).map((at, i) => at - drafts[i]))`); least < 1990 { // clocks are not that exact
		t.Errorf("two drafts within %.0f ms", least)
	}
}
