package e2e

import (
	"testing"

	devpage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"gatehouse/services/servicestest"
)

// editStopped: a form that was sent, and whose answer did not come, leaves a copy with all that was
// typed; so does what is typed after it was sent.
func editStopped(t *testing.T, a *app) {
	alice := newDesk(t, a, "alice@example.com")
	process := alice.newProcess("Ring the bell")
	alice.edit(process)
	copied := `JSON.parse(Object.entries(localStorage).find(([key]) => key.startsWith("gatehouse.draft.") && key.includes(".` + process + `."))?.[1] ?? "{}").description`
	// sendsInVain types and presses Save at once, before a draft is written.
	sendsInVain := func(more string) {
		t.Helper()
		read[bool](t, alice.tab, `((more) => {
			let sent = 0; // the script stops the first event, and sends the form itself
			window.addEventListener("submit", (event) => { if (++sent === 2) event.preventDefault(); });
			const field = document.querySelector("#description");
			field.value += more;
			field.dispatchEvent(new Event("input", {bubbles: true}));
			document.querySelector("button[value=stay]").click();
			return true;
		})("`+more+`")`)
		alice.until(`sessionStorage["gatehouse.sent"] !== undefined`)
	}
	sendsInVain("Twice")
	if got := read[string](t, alice.tab, copied); got != "Twice" {
		t.Errorf("the copy has %q", got)
	}
	form := read[string](t, alice.tab, `location.href`)
	alice.do(chromedp.Navigate(a.URL + "/"))
	read[bool](t, alice.tab, `(location.assign("/processes/`+process+`"), true)`) // which is no answer to the form
	alice.until(`document.querySelector(".reader") !== null && document.readyState === "complete"`)
	alice.do(chromedp.Navigate(form))
	alice.until(`document.querySelector("#copy button") !== null`)
	alice.do(click("#copy button"))
	if got := alice.typed(); got != "Twice" {
		t.Errorf("the copy brings %q", got)
	}

	sendsInVain(" a")
	alice.do(fill("#description", " day"))
	if got := read[string](t, alice.tab, copied+` + (sessionStorage["gatehouse.sent"] ?? "")`); got != "Twice a day" {
		t.Errorf("after the form was sent, the copy has %q", got)
	}
	// If it does not go, the page goes on.
	read[bool](t, alice.tab, `(performance.now = ((now) => () => now() + 6000)(performance.now.bind(performance)), true)`)
	alice.do(fill("#description", "!"))
	alice.kept(process, "Twice a day!")
	alice.until(`Object.keys(localStorage).every((key) => !key.includes(".%s."))`, process)

	// A copy is offered whatever was typed elsewhere since, and says how sure it is; one of what the
	// server has goes.
	for _, kept := range []struct {
		description, onItsWay, words string
	}{{"Thrice", "false", "did not reach the server"}, {"Thrice", "true", "may not have reached the server"}, {"Twice a day!", "true", ""}} {
		read[bool](t, alice.tab, `(({user, process, base}) => {
			const copy = {title: "Ring the bell", status: "draft", description: "`+kept.description+`", base, at: 1000, onItsWay: `+kept.onItsWay+`};
			localStorage.setItem("gatehouse.draft." + user + "." + process + ".1", JSON.stringify(copy));
			return true;
		})(edit.dataset)`)
		alice.do(chromedp.Navigate(form))
		alice.until(`document.querySelector("#edit")?.dataset.held === "true" && document.documentElement.matches(".live") && (document.querySelector("#copy")?.innerText ?? "").includes(%q) && Object.keys(localStorage).some((key) => key.endsWith(".1")) === %t`, kept.words, kept.words != "")
	}
}

// editUndecided: a copy that its user has not decided about stays, whatever is typed, saved or
// decided on the pages that come.
func editUndecided(t *testing.T, a *app) {
	alice, bob := newDesk(t, a, "alice@example.com", "status of 422"), a.signIn(t, "bob@example.com")
	process := alice.newProcess("Bake the bread")
	alice.edit(process)
	// As if that had been typed while the server was away, in a tab that was closed.
	read[bool](t, alice.tab, `(({user, process, base}) => {
		const copy = {title: "Bake the bread", status: "draft", description: "Rye", base, at: 1000};
		localStorage.setItem("gatehouse.draft." + user + "." + process + ".1", JSON.stringify(copy));
		return true;
	})(edit.dataset)`)
	offered := `document.querySelector("#copy button") !== null && document.documentElement.matches(".live")`
	alice.do(chromedp.Reload())
	alice.until("%s", offered)
	alice.do(fill("#description", "Wheat"))
	alice.kept(process, "Wheat")
	alice.until("%s", offered)
	alice.do(click("button[value=stay]"))
	alice.until(`document.querySelector(".notice")?.textContent.includes("Your changes are saved") && %s`, offered)

	// Nor does it take the place of a text that was not saved, but beside it.
	read[bool](t, alice.tab, `(document.querySelector("#description").value = "Oats ".repeat(2001), true)`)
	alice.do(click("button[value=stay]"))
	alice.until(`document.querySelector("#description-error") !== null && %s`, offered)
	alice.accessible("what is refused, beside a copy")
	alice.do(click("#copy button"))
	alice.until(`document.querySelector("#copy")?.innerText.includes("that was here before") && document.querySelector("#description").value === "Rye"`)
	alice.do(click("#copy button"))
	alice.until(`document.querySelector("#description").value.startsWith("Oats Oats")`)
	read[bool](t, alice.tab, `(document.querySelector("#description").value = "Wheat", true)`)
	alice.do(click("button[value=stay]"))
	alice.until(`document.querySelector(".notice")?.textContent.includes("Your changes are saved") && %s`, offered)

	alice.do(fill("#description", "Salt, "))
	alice.kept(process, "Salt, Wheat")
	alice.do(click("#cancel"))
	alice.until(`document.querySelector(".reader") !== null`)
	token := "X-Lock-Token: " + bob.call(t, "POST /processes/"+process+"/lock", nil).is(t, 201).text(t, "lockToken")
	bob.call(t, "PUT /processes/"+process, map[string]any{"title": "Bake the bread", "status": "draft", "description": "Wheat, nuts"}, token).is(t, 200)
	bob.call(t, "DELETE /processes/"+process+"/lock", nil, token).is(t, 204)
	alice.look(process)
	alice.do(click("#draft form.begin button"))
	alice.until(`document.querySelector("#conflict") !== null && document.documentElement.matches(".live")`)
	alice.do(fill("#description", "Honey, "))
	written := alice.typed()
	alice.kept(process, written)
	alice.do(click("#conflict button.primary"))
	alice.until(`document.querySelector("#edit") !== null && %s`, offered)
	alice.do(click("#copy button"))
	if got := alice.typed(); got != "Rye" {
		t.Errorf("the copy brings %q", got)
	}
	alice.kept(process, "Rye")
	alice.until(`document.querySelector("#copy") === null`)
}

// editDiscarded: what is discarded does not come back, although the page that was left had a copy of
// it.
func editDiscarded(t *testing.T, a *app) {
	alice := newDesk(t, a, "alice@example.com")
	process := alice.newProcess("Stack the wood")
	alice.edit(process)
	alice.do(fill("#description", "By the door"), click(`nav a[href="/processes"]`))
	alice.until(`location.pathname === "/processes"`)
	servicestest.Eventually(t, func() bool { return alice.draft(process) == "By the door" }, "the last write of the page is lost")
	servicestest.Eventually(t, func() bool {
		return alice.call(t, "GET /processes/"+process+"/lock/status", nil).is(t, 200).at(t, "isLocked") == false
	}, "the lock of a page that is gone stays")
	alice.look(process)
	alice.do(click("#draft form[action$=discard] button"))
	alice.until(`document.querySelector("#draft") === null && document.documentElement.matches(".live")`)
	alice.edit(process)
	alice.noAlarm()
	if got := alice.typed(); got != "" {
		t.Errorf("the form has %q", got)
	}

	// The same tab goes on with what it had, but not if its user typed something elsewhere meanwhile.
	alice.do(fill("#description", "In the barn"))
	alice.kept(process, "In the barn")
	read[bool](t, alice.tab, `(({user, process, base}) => {
		const key = "gatehouse.draft." + user + "." + process + ".1";
		localStorage.setItem(key, JSON.stringify({title: "Stack the wood", status: "draft", description: "Outside", base, at: Date.now()}));
		sessionStorage.setItem("gatehouse.went." + user + "." + process, JSON.stringify([key, base]));
		return true;
	})(edit.dataset)`)
	alice.do(chromedp.Reload())
	alice.until(`document.querySelector("#copy button") !== null && document.querySelector("#description").value === "In the barn"`)
}

// editBeside: what is pressed on a page takes nothing of what its user typed elsewhere meanwhile, as
// long as they have not decided between the two.
func editBeside(t *testing.T, a *app) {
	alice := newDesk(t, a, "alice@example.com", "status of 412", "status of 422")
	elsewhere := func(process, text string) {
		t.Helper()
		alice.call(t, "PUT /processes/"+process+"/draft", map[string]any{"title": "Plant the oak", "status": "draft", "description": text, "baseVersion": 1}).is(t, 200)
	}
	process := alice.newProcess("Plant the oak")
	alice.edit(process)
	elsewhere(process, "By the pond")
	alice.do(fill("#description", "By the gate"))
	alice.until(`document.querySelector("#elsewhere")?.innerText.includes("the other one stays your draft")`)
	alice.accessible("typed elsewhere")
	alice.do(click("button[value=stay]"))
	alice.until(`document.querySelector(".notice")?.textContent.includes("What you typed in another tab is below, and not saved yet.")`)
	if got := alice.draft(process); got != "By the pond" {
		t.Errorf("a save leaves the draft %q", got)
	}

	process = alice.newProcess("Plant the oak")
	elsewhere(process, "By the well")
	alice.look(process)
	alice.do(click("#draft form.begin button"))
	alice.until(`document.querySelector("#draft-note") !== null && document.documentElement.matches(".live")`)
	elsewhere(process, "By the road")
	alice.do(fill("#description", ", or not"))
	alice.until(`document.querySelector("#elsewhere") !== null`)
	alice.do(click("#draft-note button"))
	alice.until(`document.querySelector("#description")?.value === "By the road"`)
	if got := alice.draft(process); got != "By the road" {
		t.Errorf("what is discarded takes along the other text: %q", got)
	}
}

// editSlowly: what is typed while a write is under way is in the browser until it is written, also if
// the write that began before is answered well, and whatever the clock says meanwhile.
func editSlowly(t *testing.T, a *app) {
	alice := newDesk(t, a, "alice@example.com")
	process := alice.newProcess("Pick the plums")
	alice.edit(process)
	copied := `JSON.parse(Object.entries(localStorage).find(([key]) => key.includes(".` + process + `."))?.[1] ?? "{}").description`
	read[bool](t, alice.tab, `(window.reallyFetch = fetch, window.writes = [], window.fetch = (url, {signal, ...options} = {}) => options.method === "PUT"
		? new Promise((answer) => { writes.push(() => answer(reallyFetch(url, options))); }) : reallyFetch(url, options), true)`)
	alice.do(fill("#description", "Ripe"))
	alice.until(`window.writes.length === 1`)
	alice.do(fill("#description", " ones"))
	alice.until(`%s === "Ripe ones"`, copied)
	read[bool](t, alice.tab, `(Date.now = ((now) => () => now() - 3600_000)(Date.now), writes[0](), true)`)
	alice.until(`window.writes.length === 2`)
	if got := read[string](t, alice.tab, copied); got != "Ripe ones" {
		t.Errorf("the copy has %q", got)
	}
	// A save that waits for the write, and cannot go any more, leaves a page that goes on.
	alice.do(click("button[value=stay]"))
	read[bool](t, alice.tab, `(document.querySelector("#title").value = "", window.fetch = reallyFetch, writes[1](), true)`)
	alice.until(`document.querySelector("#title:invalid") === document.activeElement`)
	alice.do(fill("#title", "Pick them"), fill("#description", " only"))
	alice.kept(process, "Ripe ones only")
	// What was typed and taken back is no question later.
	read[bool](t, alice.tab, `(window.writes = [], window.fetch = (url, {signal, ...options} = {}) => options.method === "PUT"
		? new Promise((answer) => { writes.push(() => answer(reallyFetch(url, options))); }) : reallyFetch(url, options), true)`)
	alice.do(fill("#description", "."))
	alice.until(`window.writes.length === 1`)
	alice.do(fill("#description", "x"), press(kb.Backspace))
	read[bool](t, alice.tab, `(window.fetch = reallyFetch, writes[0](), true)`)
	alice.kept(process, "Ripe ones only.")
	alice.until(`Object.keys(localStorage).every((key) => !key.includes(".%s."))`, process)
}

// editNoRoom: a browser that has no room for a copy does not promise one, and replaces no text.
func editNoRoom(t *testing.T, a *app) {
	alice := newDesk(t, a, "alice@example.com", "status of 412", "status of 503")
	process := alice.newProcess("Fill the barn")
	alice.edit(process)
	read[bool](t, alice.tab, `(Storage.prototype.setItem = () => { throw new DOMException("full", "QuotaExceededError"); },
		window.reallyFetch = fetch, window.fetch = async (url, options) => options?.method === "PUT" ? new Response("", {status: 503}) : reallyFetch(url, options), true)`)
	alice.do(fill("#description", "With hay"))
	alice.until(`document.querySelector("#away")?.innerText.includes("what you type is on this page only")`)
	if !read[bool](t, alice.tab, `!window.dispatchEvent(new Event("beforeunload", {cancelable: true}))`) {
		t.Error("the page goes with its text")
	}
	alice.call(t, "PUT /processes/"+process+"/draft", map[string]any{"title": "Fill the barn", "status": "draft", "description": "With straw", "baseVersion": 1}).is(t, 200)
	read[bool](t, alice.tab, `(window.fetch = reallyFetch, true)`)
	alice.until(`document.querySelector("#elsewhere")?.innerText.includes("on this page only")`)
	alice.do(click("#elsewhere button:last-child"))
	alice.until(`document.querySelector("#unsaved")?.innerText.includes("no room for both texts")`)
	alice.accessible("no room in the browser")
	if got := alice.typed(); got != "With hay" {
		t.Errorf("the page has %q", got)
	}
	alice.do(click("#elsewhere button"))
	alice.kept(process, "With hay")
	alice.until(`document.querySelector("#unsaved") === null`)
}

// editSignedOut: who signs out at once after the last key has the draft all the same. What is in the
// browser alone is asked about, as it goes.
func editSignedOut(t *testing.T, a *app) {
	alice, again := newDesk(t, a, "alice@example.com"), a.signIn(t, "alice@example.com")
	process := alice.newProcess("Shut the gate")
	alice.edit(process)
	read[bool](t, alice.tab, `(window.reallyFetch = fetch, window.writes = [], window.fetch = (url, {signal, ...options} = {}) => options.method === "PUT"
		? new Promise((answer) => { writes.push(() => answer(reallyFetch(url, options))); }) : reallyFetch(url, options), true)`)
	alice.do(fill("#description", "At"))
	alice.until(`window.writes.length === 1`)
	const signOut = "form[action='/logout'] button"
	alice.do(fill("#description", " night"), click(signOut), click(signOut))
	read[bool](t, alice.tab, `(window.confirm = () => false, window.fetch = reallyFetch, writes[0](), true)`)
	alice.until(`document.querySelector("#email") !== null`)
	if got := again.call(t, "GET /processes/"+process+"/draft", nil).is(t, 200).text(t, "description"); got != "At night" {
		t.Errorf("the draft is %q", got)
	}

	signInOnPage(t, alice.tab, "alice@example.com")
	alice.do(chromedp.Navigate(a.URL + "/processes/new"))
	alice.until(`document.readyState === "complete"`)
	read[bool](t, alice.tab, `(window.confirm = (text) => { window.asked = text; return false; }, true)`)
	alice.do(fill("#title", "x"), press(kb.Backspace), click(signOut)) // nothing is lost with that
	alice.until(`document.querySelector("#email") !== null`)
	signInOnPage(t, alice.tab, "alice@example.com")
	alice.do(chromedp.Navigate(a.URL + "/processes/new"))
	alice.until(`document.readyState === "complete"`)
	read[bool](t, alice.tab, `(window.confirm = (text) => { window.asked = text; return false; }, true)`)
	alice.do(fill("#title", "Open it"), click(signOut))
	alice.until(`window.asked?.includes("saved nowhere else")`)
	if got := read[string](t, alice.tab, `document.querySelector("#title").value`); got != "Open it" {
		t.Errorf("the page has %q", got)
	}
}

// editWrittenOver: a text that is written over while its user decides between two is offered after a
// crash, and is no question any more once they have decided.
func editWrittenOver(t *testing.T, a *app) {
	alice, bob := newDesk(t, a, "alice@example.com"), a.signIn(t, "bob@example.com")
	begin := func(process string) {
		t.Helper()
		alice.look(process)
		alice.do(click("#draft form.begin button"))
		alice.until(`document.querySelector("#conflict") !== null && document.documentElement.matches(".live")`)
	}
	writesOver := func() (process string) {
		t.Helper()
		process = alice.newProcess("Tell the story")
		alice.call(t, "PUT /processes/"+process+"/draft", map[string]any{"title": "Tell the story", "status": "draft", "description": "A long one", "baseVersion": 1}).is(t, 200)
		token := "X-Lock-Token: " + bob.call(t, "POST /processes/"+process+"/lock", nil).is(t, 201).text(t, "lockToken")
		bob.call(t, "PUT /processes/"+process, map[string]any{"title": "Tell the story", "status": "draft", "description": "Another"}, token).is(t, 200)
		bob.call(t, "DELETE /processes/"+process+"/lock", nil, token).is(t, 204)
		begin(process)
		read[bool](t, alice.tab, `(document.querySelector("#description").value = "", true)`)
		alice.do(fill("#description", "Short"))
		alice.kept(process, "Short")
		return process
	}
	saves := func() {
		t.Helper()
		alice.do(click("#conflict button.primary"))
		alice.until(`document.querySelector("#edit") !== null && document.documentElement.matches(".live")`)
	}
	process := writesOver()
	saves()
	if got := read[string](t, alice.tab, `Object.keys(localStorage).filter((key) => key.includes(".`+process+`.")).join()`); got != "" {
		t.Errorf("decided, and kept: %s", got)
	}
	alice.noAlarm()

	process = writesOver()
	alice.do(click("#description-mine"), click("#cancel"))
	alice.until(`document.querySelector("#draft form.begin button") !== null`)
	if got := alice.draft(process); got != "A long one" {
		t.Errorf("leaving keeps %q", got)
	}
	begin(process)
	alice.do(click("#description-theirs"))
	saves()
	alice.until(`document.querySelector("#copy")?.innerText.includes("that was here before")`)
	alice.do(click("#copy button"))
	if got := alice.typed(); got != "Short" {
		t.Errorf("what was written over is %q", got)
	}

	process = writesOver()
	alice.do(chromedp.Navigate(a.URL + "/"))
	begin(process)
	alice.do(click("#description-mine"))
	saves()
	alice.until(`document.querySelector("#copy")?.innerText.includes("that was here before")`)
	alice.do(click("#copy button"))
	if got := alice.typed(); got != "A long one" {
		t.Errorf("the copy brings %q", got)
	}
}

// editReturned: a page that is back before its last write was answered finds that it has arrived.
func editReturned(t *testing.T, a *app) {
	alice := newDesk(t, a, "alice@example.com", "status of 412")
	process := alice.newProcess("Wind the clock")
	alice.edit(process)
	read[bool](t, alice.tab, `(({user, process, base}) => {
		const text = {title: "Wind the clock", status: "draft", base}, key = "gatehouse.draft." + user + "." + process + ".1";
		localStorage.setItem(key, JSON.stringify({...text, description: "Twice", at: Date.now(), known: "", onItsWay: true}));
		sessionStorage.setItem("gatehouse.went." + user + "." + process, JSON.stringify([key, base, [{...text, description: "Twi"}]]));
		return true;
	})(edit.dataset)`)
	// The write before the last one is stored after the page was made.
	if _, err := chromedp.Call(alice.tab, devpage.AddScriptToEvaluateOnNewDocument, devpage.AddScriptToEvaluateOnNewDocumentParams{
		Source: `(() => {
			const {fetch} = window;
			let writes = 0;
			window.fetch = async (url, options) => {
				if (options?.method !== "PUT" || ++writes > 1) return fetch(url, options);
				const headers = {...options.headers, "If-Unmodified-Since": new Date().toISOString()};
				await fetch(url, {...options, headers, body: JSON.stringify({...JSON.parse(options.body), description: "Twi"})});
				return fetch(url, options);
			};
		})()`,
	}); err != nil {
		t.Fatal(err)
	}
	alice.do(chromedp.Reload())
	alice.until(`document.querySelector("#description")?.value === "Twice"`)
	alice.kept(process, "Twice")
	if read[bool](t, alice.tab, `document.querySelector("#elsewhere") !== null`) {
		t.Error("a false alarm")
	}
	alice.noAlarm()
}
