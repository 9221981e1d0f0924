package e2e

import (
	"testing"

	devpage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"gatehouse/services/servicestest"
)

// TestEditing is what two users do with one process on the pages, side by side: each has a
// browser with cookies of its own. Redis is a real one.
func TestEditing(t *testing.T) {
	t.Parallel()
	a := start(t, "REDIS_URL=redis://"+servicestest.StartRedis(t).Addr, "RATE_LIMIT_MAX=100000")
	for _, part := range []struct {
		name string
		run  func(t *testing.T, a *app)
	}{
		{"save while another looks on", editAndSave},
		{"a new process, created with two clicks", editCreated},
		{"asked for and given", editAsked},
		{"forced while typing", editForced},
		{"expired while typing", editExpired},
		{"taken over by oneself", editElsewhere},
		{"a conflict, with JavaScript", func(t *testing.T, a *app) { editConflict(t, a, true) }},
		{"a conflict, without JavaScript", func(t *testing.T, a *app) { editConflict(t, a, false) }},
		{"reload, leave and come back", editReload},
		{"refused", editRefused},
		{"given, with a draft that does not fit any more", editGivenWithDraft},
		{"free again", editOnceFree},
		{"deleted while another waits", editDeleted},
		{"sent in vain", editStopped},
		{"a copy that is not decided about", editUndecided},
		{"discarded", editDiscarded},
		{"typed elsewhere, and not decided", editBeside},
		{"typed while a write is under way", editSlowly},
		{"no room in the browser", editNoRoom},
		{"signed out at once", editSignedOut},
		{"written over while deciding", editWrittenOver},
		{"back before the last write", editReturned},
		{"asked while deciding between two texts", editDeciding},
		{"deleted while typing", editGone},
		{"one of two tabs of a lock goes", editTwins},
		{"the role is taken away", editBarred},
		{"saved while the server is away", editUnreached},
		{"keyboard only", editByKeyboard},
		{"the lock follows the hands", editHands},
		{"typed without a pause", editTyped},
		{"typed before the scripts have come", editEarly},
		{"seven tabs of a browser", editInManyTabs},
	} {
		t.Run(part.name, func(t *testing.T) { part.run(t, a) })
	}
}

func editAndSave(t *testing.T, a *app) {
	alice, bob := newDesk(t, a, "alice@example.com"), newDesk(t, a, "bob@example.com")
	process := alice.newProcess("Paint the fence")
	bob.look(process)
	bob.until(`document.querySelector("#lock")?.innerText.includes("Nobody is editing")`)
	bob.pressed(process, alice.client)
	alice.edit(process)
	bob.until(`document.querySelector("#editing")?.innerText.includes("alice@example.com is editing since")`)

	alice.do(fill("#description", "Two coats of green."))
	alice.kept(process, "Two coats of green.")
	bob.call(t, "GET /processes/"+process, nil).is(t, 200).with(t, "drafts.0.email", "alice@example.com")
	bob.look(process)
	bob.until(`document.querySelector("#drafts").innerText.startsWith("alice@example.com has changes from") && document.documentElement.matches(".live")`)
	read[bool](t, bob.tab, `window.sameDocument = true`)
	read[bool](t, bob.tab, `(window.sounds = 0, window.AudioContext = class extends AudioContext { constructor() { super(); sounds++; } }, true)`)
	bob.do(click(".tell button"))
	bob.until(`document.querySelector(".tell")?.innerText.includes("You will be told")`)

	alice.do(fill("#description", " And two of blue."), click("button[value=stay]")) // no draft has that
	alice.until(`document.querySelector(".notice")?.textContent.includes("Your changes are saved")`)
	alice.noAlarm()
	if got := alice.draft(process); got != "" {
		t.Errorf("a draft of what is saved: %q", got)
	}
	alice.noDraftAfter(func() { alice.do(fill("#description", " And a gate.")) }, "button[value=close]")
	alice.until(`document.querySelector(".reader .text")?.innerText.includes("And a gate.")`)
	if order := read[string](t, alice.tab, `sessionStorage.order`); order != "draft form " {
		t.Errorf("sent one after the other: %s", order)
	}
	alice.noAlarm()
	if draft := alice.text("#draft"); draft != "" {
		t.Errorf("after saving: %s", draft)
	}

	bob.until(`document.querySelector("#lock")?.innerText.includes("Nobody is editing")`)
	bob.until(`document.querySelector("#changed")?.innerText.includes("the description") && document.querySelector("#drafts").innerText === ""`)
	bob.until(`document.querySelector("#free") !== null && document.title.startsWith("Free:")`)
	if sounds := read[int](t, bob.tab, `sounds`); sounds != 0 {
		t.Errorf("%d sounds, which bob has not asked for", sounds)
	}
	token := "X-Lock-Token: " + alice.call(t, "POST /processes/"+process+"/lock", nil).is(t, 201).text(t, "lockToken")
	bob.do(click(".tell button"))
	bob.until(`document.querySelector(".tell button")?.innerText === "With a sound"`)
	bob.do(click(".tell button"))
	bob.until(`document.querySelector(".tell button")?.innerText === "Without a sound"`)
	alice.call(t, "DELETE /processes/"+process+"/lock", nil, token).is(t, 204)
	bob.until(`sounds === 1`)
	alice.call(t, "POST /processes/"+process+"/lock", nil).is(t, 201)
	bob.until(`document.querySelector("#editing") !== null && document.querySelector("#free") === null && !document.title.startsWith("Free:")`)
	if !read[bool](t, bob.tab, `window.sameDocument === true`) {
		t.Error("the page was loaded anew")
	}
	bob.accessible("changed while looking")
	bob.do(click("#changed button"))
	bob.until(`document.querySelector(".reader .text")?.innerText.includes("And a gate.")`)
}

// noDraftAfter presses a button that saves while the draft of what was typed is under way: it would
// be left if the form did not wait for it. The session of the tab notes what was sent when.
func (d desk) noDraftAfter(typed func(), save string) {
	d.t.Helper()
	read[bool](d.t, d.tab, `(() => {
		const {fetch} = window, form = document.querySelector("#edit"), submit = form.requestSubmit.bind(form);
		sessionStorage.order = "";
		form.requestSubmit = (by) => {
			sessionStorage.order += "form ";
			submit(by);
		};
		window.fetch = async (url, {signal, ...options} = {}) => {
			if (options.method !== "PUT") return fetch(url, options);
			await new Promise((go) => { window.letGo = go; });
			const answer = await fetch(url, options);
			sessionStorage.order += "draft ";
			return answer;
		};
		return true;
	})()`)
	typed()
	d.until(`window.letGo !== undefined`)
	d.do(click(save))
	read[bool](d.t, d.tab, `(letGo(), true)`)
}

// editReload: a reload goes on, and so does who comes back. Who stays away gives the lock back.
func editReload(t *testing.T, a *app) {
	alice := newDesk(t, a, "alice@example.com", "status of 412") // the last write of the page before was there first
	process := alice.newProcess("Count the chairs")
	status := func() *answer { return alice.call(t, "GET /processes/"+process+"/lock/status", nil).is(t, 200) }
	alice.edit(process)
	alice.do(fill("#description", "Twelve"))
	fence := status().number(t, "fence")
	read[bool](t, alice.tab, `window.before = true`)
	alice.do(chromedp.Reload())
	alice.until(`!window.before && document.querySelector("#edit")?.dataset.held === "true" && document.querySelector("#description").value === "Twelve" && document.documentElement.matches(".live")`)
	alice.noAlarm()
	if got := status().number(t, "fence"); got != fence {
		t.Errorf("a reload took another lock: %d, then %d", fence, got)
	}

	alice.do(fill("#description", " and one"), click(`nav a[href="/account"]`))
	alice.until(`location.pathname === "/account"`)
	alice.kept(process, "Twelve and one")
	servicestest.Eventually(t, func() bool { return status().at(t, "isLocked") == false }, "the lock of a page that is gone stays")

	back(t, alice.tab, 1)
	alice.until(`document.querySelector("#edit")?.dataset.held === "true" && document.querySelector("#description").value === "Twelve and one"`)
	alice.do(click("button[value=close]"))
	alice.until(`document.querySelector(".reader .text")?.innerText === "Twelve and one"`)

	// "Back" from the form to the page before leaves it, too.
	alice.edit(process)
	back(t, alice.tab, 1)
	alice.until(`document.querySelector(".reader") !== null`)
	servicestest.Eventually(t, func() bool { return status().at(t, "isLocked") == false }, "the lock of a page that is gone stays")
	if !read[bool](t, alice.tab, `document.querySelector(".reader") !== null`) {
		t.Error("the form is back")
	}
}

func editByKeyboard(t *testing.T, a *app) {
	alice := newDesk(t, a, "alice@example.com", lateExtend)
	process := alice.newProcess("Oil the hinges")
	alice.look(process)
	tabTo(t, alice.tab, "form.begin [name=reason]")
	alice.do(press("spring cleaning", kb.Enter))
	alice.until(`document.querySelector("#edit")?.dataset.held === "true" && document.activeElement.id === "title"`)
	tabTo(t, alice.tab, "#description")
	alice.do(press("All of them."))
	alice.call(t, "GET /processes/"+process+"/lock/status", nil).is(t, 200).with(t, "holder.reason", "spring cleaning")
	alice.kept(process, "All of them.")
	a.signIn(t, adminEmail).call(t, "DELETE /locks/process:"+process+"?reason=test", nil).is(t, 204)
	alice.until(`document.querySelector("#lost") !== null`)
	if !read[bool](t, alice.tab, `document.activeElement?.id === "description"`) {
		t.Error("the focus was taken from who types")
	}
	tabTo(t, alice.tab, "#edit .actions .primary")
	alice.do(press(kb.Enter))
	alice.until(`document.querySelector("#edit")?.dataset.held === "true" && document.querySelector("#description").value === "All of them."`)
	tabTo(t, alice.tab, "button[value=close]")
	alice.do(press(kb.Enter))
	alice.until(`document.querySelector(".reader .text")?.innerText === "All of them."`)
}

// editCreated: who clicks twice makes one process, also while the server has not answered the first.
func editCreated(t *testing.T, a *app) {
	alice := newDesk(t, a, "alice@example.com")
	alice.do(chromedp.Navigate(a.URL+"/processes/new"), fill("#title", "Plant a tree"))
	const twice = `(() => {
		const form = document.querySelector("form[action='/processes/new']");
		form.requestSubmit();
		const second = new SubmitEvent("submit", { bubbles: true, cancelable: true });
		return !form.dispatchEvent(second);
	})()`
	if !read[bool](t, alice.tab, twice) {
		t.Error("the second click sends the form again")
	}
	alice.until(`document.querySelector(".reader")?.innerText.includes("Plant a tree") && document.documentElement.matches(".live")`) // its scripts know that the form has arrived

	// What is typed for longer than the session lives is there again. Created, it is no more.
	alice.do(chromedp.Navigate(a.URL+"/processes/new"), fill("#title", "Water it"), fill("#description", "Each evening"))
	read[bool](t, alice.tab, `(document.body.dataset.ends = "1", true)`)
	alice.until(`location.search === "" && document.querySelector("#title")?.value === "" && document.querySelector("#copy button") !== null`)
	alice.do(click("#copy button"))
	if got := alice.typed(); got != "Each evening" {
		t.Errorf("the copy brings %q", got)
	}
	alice.do(click("button.primary"))
	alice.until(`document.querySelector(".reader .text")?.innerText === "Each evening" && Object.keys(localStorage).every((key) => !key.startsWith("gatehouse.new."))`)
}

// editEarly: a page can be typed in before its scripts are at work, on a slow line for long.
func editEarly(t *testing.T, a *app) {
	alice := newDesk(t, a, "alice@example.com")
	process := alice.newProcess("Wind the clock")
	if _, err := chromedp.Call(alice.tab, devpage.AddScriptToEvaluateOnNewDocument, devpage.AddScriptToEvaluateOnNewDocumentParams{
		// The document is interactive before scripts that are deferred run.
		Source: `document.addEventListener("readystatechange", () => {
			const field = document.querySelector("#edit #description");
			if (field && document.readyState === "interactive") field.value = "Every Sunday";
		})`,
	}); err != nil {
		t.Fatal(err)
	}
	alice.edit(process)
	alice.kept(process, "Every Sunday")
}
