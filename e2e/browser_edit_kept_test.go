package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"gatehouse/services/servicestest"
)

// editRefused: the draft of a text that a save does not take stays, although the page that says so
// shows just that text.
func editRefused(t *testing.T, a *app) {
	alice := newDesk(t, a, "alice@example.com", "status of 422", "status of 401")
	process, long := alice.newProcess("Write it all down"), strings.Repeat("all of it ", 1001)
	alice.edit(process)
	read[bool](t, alice.tab, `(() => {
		const field = document.querySelector("#description");
		field.value = "all of it ".repeat(1001);
		return field.dispatchEvent(new Event("input", {bubbles: true}));
	})()`)
	alice.kept(process, long)
	alice.do(click("button[value=stay]"))
	alice.until(`document.querySelector("#description-error") !== null`)
	alice.until(`performance.getEntriesByType("resource").some(({name, responseEnd}) => name.includes("/draft?") && responseEnd > 0)`)
	if got := alice.draft(process); got != long {
		t.Errorf("the draft has %d characters, want %d", len(got), len(long))
	}

	// Loaded again it has what was typed since, and not the form that was refused.
	alice.do(fill("#title", "Now "))
	servicestest.Eventually(t, func() bool {
		return alice.call(t, "GET /processes/"+process+"/draft", nil).is(t, 200).text(t, "title") == "Now Write it all down"
	}, "no draft of what was typed since")
	alice.do(chromedp.Reload())
	alice.until(`document.querySelector("#edit")?.dataset.held === "true" && document.documentElement.matches(".live")`)
	alice.noAlarm()
	if got := read[string](t, alice.tab, `document.querySelector("#title").value`); got != "Now Write it all down" {
		t.Errorf("loaded again it has %q", got)
	}
	alice.do(click("button[value=stay]"))
	alice.until(`document.querySelector("#description-error") !== null`)

	alice.call(t, "POST /auth/logout", nil).is(t, 204)
	alice.do(fill("#title", "!"))
	alice.until(`document.querySelector("#unsaved[role=alert]")?.innerText.startsWith("You are signed out.")`)
	alice.do(fill("#title", "!"))
	if got := read[string](t, alice.tab, `JSON.parse(Object.entries(localStorage).find(([key]) => key.startsWith("gatehouse.draft."))?.[1] ?? "{}").title`); got != "!!Now Write it all down" {
		t.Errorf("the browser keeps %q", got)
	}
}

// editGivenWithDraft: who is given a lock, and has a draft that does not fit any more, comes to the
// choice by itself. What is written there is chosen and kept, and the lock follows the hands.
func editGivenWithDraft(t *testing.T, a *app) {
	alice, bob := newDesk(t, a, "alice@example.com"), newDesk(t, a, "bob@example.com")
	process := alice.newProcess("Sow the field")
	bob.call(t, "PUT /processes/"+process+"/draft", map[string]any{"title": "Sow the field", "status": "draft", "description": "Peas", "baseVersion": 1}).is(t, 200)
	alice.edit(process)
	alice.do(fill("#description", "Beans"), click("button[value=stay]"))
	alice.until(`document.querySelector(".notice")?.textContent.includes("Your changes are saved")`)
	bob.look(process)
	bob.asks("may I?")
	alice.do(click("#requests button[value^=give]"))
	bob.until(`document.querySelector("#conflict") !== null && performance.getEntriesByType("resource").some(({name, responseEnd}) => name.endsWith("/edit/extend") && responseEnd > 0)`)
	if left := bob.call(t, "GET /processes/"+process+"/lock/status", nil).is(t, 200).number(t, "ttl"); left > 300 {
		t.Errorf("the lock lasts %d s, as without scripts", left)
	}
	bob.do(fill("#description", ", and peas"))
	bob.until(`document.querySelector("#description-edited").checked`)
	written := bob.typed()
	servicestest.Eventually(t, func() bool { return bob.draft(process) == written }, "what is written in the choice is not kept")
	bob.do(click("#conflict button.primary"))
	bob.until(`document.querySelector("#conflict") === null && document.querySelector("#edit") !== null`)
	bob.call(t, "GET /processes/"+process, nil).is(t, 200).with(t, "description", written)
	bob.noAlarm()
	if got := bob.draft(process); got != "" {
		t.Errorf("a draft of what is saved: %q", got)
	}
}

// editOnceFree: the page of a process that becomes free leads on to the form, also who has a draft,
// or is writing a word to its holder.
func editOnceFree(t *testing.T, a *app) {
	alice, bob := newDesk(t, a, "alice@example.com"), newDesk(t, a, "bob@example.com")
	process := alice.newProcess("Rake the leaves")
	draft := map[string]any{"title": "Rake the leaves", "status": "draft", "description": "All", "baseVersion": 1}
	bob.call(t, "PUT /processes/"+process+"/draft", draft).is(t, 200)
	locks := func() (unlock func()) {
		token := "X-Lock-Token: " + alice.call(t, "POST /processes/"+process+"/lock", nil).is(t, 201).text(t, "lockToken")
		return func() { alice.call(t, "DELETE /processes/"+process+"/lock", nil, token).is(t, 204) }
	}
	unlock := locks()
	bob.look(process)
	bob.until(`document.querySelector("#draft")?.innerText.includes("when it is your turn") && document.querySelector("#message") !== null`)
	bob.do(fill("#message", "please"))
	unlock()
	bob.until(`document.querySelector("#lock")?.innerText.includes("Nobody is editing") && document.querySelector("#draft form.begin button")?.innerText === "Go on with them"`)
	unlock = locks()
	bob.until(`document.querySelector("#message") !== null && document.querySelector("#draft form.begin") === null`)

	bob.call(t, "DELETE /processes/"+process+"/draft", nil).is(t, 204)
	bob.look(process)
	bob.do(fill("#message", "please"))
	unlock()
	bob.until(`document.querySelector("#lock #reason")?.value === "please"`)
}

// editDeciding: who decides between two texts hears that another user asks, and answers. The lock of
// a page that is left goes back.
func editDeciding(t *testing.T, a *app) {
	alice, bob := newDesk(t, a, "alice@example.com"), newDesk(t, a, "bob@example.com", lateExtend)
	process := alice.newProcess("Feed the hens")
	bob.call(t, "PUT /processes/"+process+"/draft", map[string]any{"title": "Feed the hens", "status": "draft", "description": "Corn", "baseVersion": 1}).is(t, 200)
	alice.edit(process)
	alice.do(fill("#description", "Oats"), click("button[value=close]"))
	alice.until(`document.querySelector(".reader .text")?.innerText === "Oats"`)
	decides := func() {
		t.Helper()
		bob.look(process)
		bob.do(click("#draft form.begin button"))
		bob.until(`document.querySelector("#conflict") !== null && document.documentElement.matches(".live")`)
	}
	decides()
	alice.look(process)
	alice.asks("one more thing")
	bob.until(`document.querySelector("#asked")?.innerText.includes("alice@example.com asks to edit: “one more thing”") && document.title.startsWith("(1)")`)
	bob.accessible("asked while deciding")
	bob.do(click("#asked button:last-child"))
	alice.until(`document.querySelector("#lock")?.textContent.includes("The answer: no")`)
	bob.until(`document.querySelector("#asked") === null && !document.title.startsWith("(")`)
	// There, too, the page counts down, and a press keeps the lock.
	read[bool](t, bob.tab, `(window.reallyFetch = fetch, window.fetch = async (url, ...more) => {
		const response = await reallyFetch(url, ...more);
		if (!String(url).includes("/edit/state")) return response;
		const state = await response.json();
		return Response.json({...state, expires: state.now + 59_000});
	}, true)`)
	bob.looks()
	bob.until(`/Others can edit in 5\d s/.test(document.querySelector("#countdown[role=alert]")?.innerText)`)
	read[bool](t, bob.tab, `(window.fetch = reallyFetch, true)`)
	bob.do(click("#countdown button"))
	bob.until(`document.querySelector("#countdown") === null`)
	alice.asks("please")
	bob.until(`document.querySelector("#asked button") !== null`)
	alice.looksAway()
	bob.do(click("#asked button"))
	bob.until(`document.querySelector(".notice")?.textContent.includes("alice@example.com can edit it now.")`)
	alice.until(`document.querySelector("#edit")?.dataset.held === "true" && document.title.startsWith("Yours: ")`)
	read[bool](t, alice.tab, `(window.looks = true, document.dispatchEvent(new Event("visibilitychange")))`)
	alice.until(`!document.title.startsWith("Yours: ")`)
	alice.do(click("#cancel"))
	alice.until(`document.querySelector(".reader") !== null`)

	decides()
	bob.do(click(`nav a[href="/account"]`))
	servicestest.Eventually(t, func() bool {
		return bob.call(t, "GET /processes/"+process+"/lock/status", nil).is(t, 200).at(t, "isLocked") == false
	}, "the lock of a page that is gone stays")
}

// editGone: the text of a process that is deleted meanwhile is there for a new one.
func editGone(t *testing.T, a *app) {
	alice, bob := newDesk(t, a, "alice@example.com", lateExtend, "status of 404", "status of 409"), a.signIn(t, "bob@example.com")
	process := alice.newProcess("Whet the scythe")
	alice.edit(process)
	alice.do(fill("#description", "Twice"))
	alice.kept(process, "Twice")
	a.signIn(t, adminEmail).call(t, "DELETE /locks/process:"+process+"?reason=test", nil).is(t, 204)
	token := "X-Lock-Token: " + bob.call(t, "POST /processes/"+process+"/lock", nil).is(t, 201).text(t, "lockToken")
	bob.call(t, "DELETE /processes/"+process, nil, token).is(t, 204)
	alice.until(`document.querySelector("#lost")?.innerText.includes("The process was deleted.")`)
	alice.do(fill("#description", " a day"))
	alice.do(chromedp.Navigate(a.URL + "/processes/new"))
	alice.until(`document.querySelector("#copy button") !== null`)
	alice.do(click("#copy button"))
	if got := alice.typed(); got != "Twice a day" {
		t.Errorf("the copy brings %q", got)
	}
	alice.do(click("button.primary"))
	alice.until(`document.querySelector(".reader .text")?.innerText === "Twice a day" && Object.keys(localStorage).every((key) => !key.startsWith("gatehouse.new."))`)

	// What a page that was closed had of it is there, too.
	read[bool](t, alice.tab, `((user) => {
		const copy = {title: "Whet it", status: "draft", description: "Before", base: "1", at: 1000};
		localStorage.setItem("gatehouse.draft." + user + ".`+process+`.1", JSON.stringify(copy));
		return true;
	})(document.body.dataset.user)`)
	alice.do(chromedp.Navigate(a.URL + "/processes/new"))
	alice.until(`document.querySelector("#copy button") !== null`)
	alice.do(click("#copy button"))
	if got := alice.typed(); got != "Before" {
		t.Errorf("the copy brings %q", got)
	}
	alice.do(click("button.primary"))
	alice.until(`document.querySelector(".reader .text")?.innerText === "Before" && Object.keys(localStorage).every((key) => !key.startsWith("gatehouse.new."))`)

	// What the server had went with it.
	alice.do(chromedp.Navigate(a.URL + "/processes"))
	if said := alice.text(".banner"); said != "" {
		t.Errorf("what was created is offered again: %s", said)
	}

	// What only the server has is offered, too.
	process = alice.newProcess("Whet the sickle")
	alice.call(t, "PUT /processes/"+process+"/draft", map[string]any{"title": "Whet the sickle", "status": "draft", "description": "Once", "baseVersion": 1}).is(t, 200)
	token = "X-Lock-Token: " + bob.call(t, "POST /processes/"+process+"/lock", nil).is(t, 201).text(t, "lockToken")
	bob.call(t, "DELETE /processes/"+process, nil, token).is(t, 204)
	alice.do(chromedp.Navigate(a.URL + "/processes"))
	left := fmt.Sprintf(".banner a[href=\"/processes/%s\"]", process)
	alice.accessible("processes, and what is left of a deleted one")
	alice.do(click(left))
	alice.until(`document.querySelector("#lost")?.innerText.includes("kept for you") && document.documentElement.matches(".live")`)
	alice.accessible("what is left of a deleted process")
	if got := alice.typed(); got != "Once" {
		t.Errorf("the server kept %q", got)
	}
	alice.do(click("button[form=discard]"))
	alice.until(`document.querySelector("main > .notice")?.innerText.includes("discarded") && document.querySelector(%q) === null`, left)
	if copies := read[int](t, alice.tab, `Object.keys(localStorage).filter((key) => /^gatehouse[.](draft|new)[.]/.test(key)).length`); copies != 0 {
		t.Errorf("%d copies in the browser", copies)
	}
}

// editTwins: of two tabs of one lock, as of a tab that was duplicated, one goes. The other keeps it.
func editTwins(t *testing.T, a *app) {
	const replaced = "status of 412"
	alice := newDesk(t, a, "alice@example.com", replaced)
	process := alice.newProcess("Mend the net")
	alice.edit(process)
	twin, _ := alice.beside(replaced)
	twin.do(chromedp.Navigate(read[string](t, alice.tab, `location.href`)))
	twin.until(`document.querySelector("#edit")?.dataset.held === "true" && document.documentElement.matches(".live")`)
	read[bool](t, alice.tab, `(window.reallyFetch = fetch, window.kept = 0, window.fetch = async (url, ...more) => {
		const response = await reallyFetch(url, ...more);
		if (String(url).includes("/edit/extend") && response.ok) kept++;
		return response;
	}, true)`)
	// Of two texts neither replaces the other without a word.
	alice.do(fill("#description", "Here"))
	alice.kept(process, "Here")
	twin.do(fill("#description", "There"))
	twin.until(`document.querySelector("#elsewhere[role=alert]")?.innerText.includes("You typed something else")`)
	alice.kept(process, "Here")
	twin.do(click("#elsewhere button"))
	alice.kept(process, "There")
	alice.do(fill("#description", "!"))
	alice.until(`document.querySelector("#elsewhere button:last-child") !== null`)
	read[bool](t, alice.tab, `(window.counting = fetch, window.fetch = async () => new Response("{}", {status: 503}), true)`)
	alice.do(click("#elsewhere button:last-child"))
	alice.until(`document.querySelector("#unsaved") !== null`)
	if got := alice.typed(); got != "Here!" {
		t.Errorf("a server that is away leaves %q", got)
	}
	read[bool](t, alice.tab, `(window.fetch = counting, true)`)
	alice.do(click("#elsewhere button:last-child"))
	alice.until(`document.querySelector("#elsewhere") === null && document.querySelector("#description").value === "There"`)
	// Who only wanted to look at the other one gets the first back, and the other one again.
	for _, want := range []string{"Here!", "There"} {
		alice.until(`document.querySelector("#copy")?.innerText.includes("that was here before")`)
		alice.do(click("#copy button"))
		if got := alice.typed(); got != want {
			t.Errorf("what was here before is %q, want %q", got, want)
		}
		alice.kept(process, want)
		alice.until(`document.querySelector("#unsaved") === null`) // or it goes from above the next button
	}
	alice.do(click("#copy button:last-child"))
	alice.until(`document.querySelector("#copy") === null`)
	alice.do(fill("#description", "!"))
	alice.kept(process, "There!")

	twin.do(chromedp.Navigate(a.URL + "/"))
	alice.until(`window.kept > 0`)
	if ttl := alice.call(t, "GET /processes/"+process+"/lock/status", nil).is(t, 200).number(t, "ttl"); ttl < 60 {
		t.Errorf("the lock ends in %v s", ttl)
	}
	alice.noAlarm()
}

// editBarred: an editor who becomes a viewer while typing hears it, and keeps the text on the page.
func editBarred(t *testing.T, a *app) {
	const forbidden = "status of 403"
	admin := a.signIn(t, adminEmail)
	id := admin.call(t, "POST /users", map[string]any{"email": "carol@example.com", "password": demoPassword, "roles": []string{"editor"}}).is(t, 201).text(t, "id")
	carol := newDesk(t, a, "carol@example.com", forbidden)
	process := carol.newProcess("Sweep the yard")
	carol.edit(process)
	carol.do(fill("#description", "Twice"))
	carol.kept(process, "Twice")
	admin.call(t, "PATCH /users/"+id, map[string]any{"roles": []string{"viewer"}}).is(t, 200)
	carol.do(fill("#description", " a week"))
	carol.until(`document.querySelector("#lost")?.innerText.includes("You may not edit any more.")`)
	if got := carol.typed(); got != "Twice a week" {
		t.Errorf("the text is %q", got)
	}
	if read[bool](t, carol.tab, `document.querySelector("#edit > .actions button, #countdown") !== null`) {
		t.Error("the page offers what a viewer may not do")
	}
	read[bool](t, carol.tab, `(HTMLFormElement.prototype.submit.call(edit), true)`) // as without JavaScript
	carol.until(`document.querySelector("#failed")?.innerText.includes("An administrator can give you the right back.")`)
	if got := carol.typed(); got != "Twice a week" || read[bool](t, carol.tab, `document.querySelector("main button") !== null`) {
		t.Errorf("the text to copy is %q: %s", got, carol.text("main"))
	}
	carol.accessible("may not edit any more")

	// The browser has kept it, too.
	admin.call(t, "PATCH /users/"+id, map[string]any{"roles": []string{"editor"}}).is(t, 200)
	carol.edit(process)
	carol.until(`document.querySelector("#copy button") !== null`)
	carol.do(click("#copy button"))
	if got := carol.typed(); got != "Twice a week" {
		t.Errorf("the copy brings %q", got)
	}
}

// editUnreached: a save that finds the server away says so, and the page goes on: once the server is
// back the draft is written by itself, and the next save goes.
func editUnreached(t *testing.T, a *app) {
	alice := newDesk(t, a, "alice@example.com", "status of 412") // to a write whose answer it has not seen
	process := alice.newProcess("Call the smith")
	alice.edit(process)

	// A proxy that does not find the server answers 404. The process is not deleted.
	alice.meddles()
	read[bool](t, alice.tab, `(answers["/draft"] = answers["/edit/state"] = () => new Response("<h1>Not found</h1>", {status: 404, headers: {"Content-Type": "text/html"}}), true)`)
	alice.do(fill("#description", "At"))
	alice.until(`document.querySelector("#away")?.innerText.startsWith("The server cannot be reached")`)
	for range 2 { // what the first one found is shown when it asks again
		before := read[int](t, alice.tab, `looks()`)
		alice.looks()
		alice.until(`looks() > %d`, before)
	}
	if said := alice.text("#lost"); said != "" {
		t.Errorf("a 404 of a proxy: %s", said)
	}
	read[bool](t, alice.tab, `(answers = {}, true)`)
	alice.until(`document.querySelector("#away") === null`)

	read[bool](t, alice.tab, `(window.reallyFetch = fetch, window.fetch = (url, options) => options?.method === "PUT"
		? new Promise((_, refuse) => { window.goAway = () => refuse(new TypeError("gone")); }) : reallyFetch(url, options), true)`)
	alice.do(fill("#description", " noon"))
	alice.until(`window.goAway !== undefined`)
	alice.do(click("button[value=stay]"))
	read[bool](t, alice.tab, `(window.fetch = reallyFetch, goAway(), true)`)
	alice.until(`document.querySelector("#unsaved[role=alert]")?.innerText.startsWith("Nothing was saved: the server cannot be reached.")`)
	servicestest.Eventually(t, func() bool { return alice.draft(process) == "At noon" }, "no draft once the server is back")
	alice.until(`document.querySelector("#unsaved, #away") === null`)
	alice.do(click("button[value=close]"))
	alice.until(`document.querySelector(".reader .text")?.innerText === "At noon"`)
}
