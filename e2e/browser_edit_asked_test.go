package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"

	"gatehouse/services/servicestest"
)

// editAsked: who asked for a lock comes to the form by itself once it is given, with a sound if they
// want one. What the holder typed is kept.
func editAsked(t *testing.T, a *app) {
	alice, bob := newDesk(t, a, "alice@example.com", lateExtend), newDesk(t, a, "bob@example.com")
	process := alice.newProcess("Asked for")
	alice.edit(process)
	bob.look(process)
	bob.asks("two minutes?")
	request := bob.request()
	bob.until(`document.documentElement.matches(".live")`)
	if offered := bob.text(".tell"); !strings.HasPrefix(offered, "When it is yours, this tab shows the form, and its title says so.") {
		t.Errorf("who asked is offered %q", offered)
	}
	alice.until(`document.querySelector("#lock-line .asked")?.textContent.includes("two minutes?") && document.title.startsWith("(1) ")`)

	bob.accessible("who asked")
	alice.accessible("asked while editing")

	// Answered with the page as it is: what was told stands there at once, and on no later page.
	alice.do(fill("#description", "a draft"))
	read[bool](t, alice.tab, `window.sameDocument = true`)
	alice.do(click("#requests button[value^=later]"))
	alice.until(`document.querySelector("#told")?.textContent === "bob@example.com is told: 5 more minutes."`)
	alice.until(`document.querySelector("#requests li")?.textContent.includes("You asked for more time.") && !document.title.startsWith("(") && document.activeElement.matches("#requests button[value^=later]")`)
	bob.until(`document.querySelector("#lock")?.textContent.includes("The answer: a few more minutes")`)
	read[bool](t, bob.tab, `(document.querySelector("#lock form[action$=withdraw] button").focus(), true)`) // what changes under the focus is told, too
	alice.unheard()
	alice.do(click("#requests button[value^=no]"))
	alice.until(`document.querySelector("#told")?.textContent === "bob@example.com is told: no."`)
	alice.until(`document.querySelector("#requests").hidden && !document.title.startsWith("(") && document.activeElement.id === "description"`)
	bob.until(`document.querySelector("#lock")?.textContent.includes("The answer: no") && document.activeElement.id === "message"`)

	// Asked and withdrawn, from elsewhere: the holder's page takes it back, and bob can ask again.
	bob.do(press("one minute?", kb.Enter)) // the keyboard alone will do
	bob.asked()
	if bob.request() == request {
		t.Error("what was answered is asked for again")
	}
	request = bob.request()
	leave, left := a.signIn(t, adminEmail).waitUntilLeaving(t, "POST /processes/"+process+"/lock")
	bob.says("#editing", "2 are waiting, 1 ahead of you") // the queue comes first
	alice.says("#lock-line", "2 other users are waiting")
	leave()
	if err := <-left; err == nil {
		t.Error("the wait was answered")
	}
	bob.says("#editing", "; you are next")
	servicestest.Within(t, 2*time.Second, func() bool { // by the event: it asks every 15 s only
		return strings.Contains(alice.text("#requests"), "one minute?") && strings.Contains(alice.text("#lock-line"), "1 other user is waiting")
	}, "the holder's page does not say who asks, and that somebody waits")
	bob.call(t, "DELETE /processes/"+process+"/lock/requests/"+request, nil).is(t, 204)
	alice.until(`document.querySelector("#requests").hidden && document.querySelector("#lock-line .asked") === null`)
	bob.until(`document.querySelector("#message") !== null`)
	bob.asks("ten minutes?")
	if bob.request() == request {
		t.Error("what was withdrawn is asked for again")
	}

	alice.until(`document.querySelector("#lock-line .asked")?.textContent.includes("ten minutes?")`)
	read[bool](t, bob.tab, `(window.AudioContext = class extends AudioContext { constructor() { super(); sessionStorage.sounds = "1"; } }, true)`)
	bob.do(click(".tell button"))
	bob.until(`document.activeElement.innerText === "Without a sound"`)
	if got := alice.typed(); got != "a draft" || !read[bool](t, alice.tab, `window.sameDocument === true`) {
		t.Errorf("the page was loaded anew, or the text is %q", got)
	}
	tabTo(t, alice.tab, "#requests button[value^=give]")
	alice.do(press(kb.Enter))
	alice.until(`document.querySelector("#draft")?.textContent.includes("You left changes at")`)
	bob.until(`document.querySelector("#edit")?.dataset.held === "true" && sessionStorage.sounds === "1"`)
	if got := alice.draft(process); got != "a draft" {
		t.Errorf("alice's draft is %q", got)
	}
	if said := alice.text("main > .notice"); strings.Contains(said, "is told") {
		t.Errorf("said again: %s", said)
	}
}

// editUnanswered: who is away loses the lock to who asked, but no text, and may have it back as
// soon as nobody is typing there.
func editUnanswered(t *testing.T, a *app) {
	alice, bob := newDesk(t, a, "alice@example.com", lateExtend), newDesk(t, a, "bob@example.com", lateExtend)
	process := alice.newProcess("Water the plants")
	alice.edit(process)
	alice.do(fill("#description", "Ferns"))
	alice.kept(process, "Ferns")
	bob.look(process)
	bob.do(fill("#message", "Are you there?"), click("#lock form.begin button"))
	bob.until(`document.querySelector("#edit")?.dataset.held === "true"`)
	bob.noAlarm()
	alice.lost(process, "Ferns", "passed on", "no answer to the request of bob@example.com")
	if !read[bool](t, alice.tab, `document.querySelector("#lost time[title]") !== null`) {
		t.Errorf("the time is not the reader's: %s", alice.text("#lost"))
	}
	servicestest.Eventually(t, func() bool {
		return alice.call(t, "GET /processes/"+process+"/lock/status", nil).is(t, 200).at(t, "takeOver") == "protection-over"
	}, "the protection of who does not type does not end")
	alice.looks()
	alice.until(`document.querySelector("#edit .actions .primary")?.innerText === "Take it over with this text"`)
	alice.do(click("#edit .actions .primary"))
	alice.until(`document.querySelector("#edit")?.dataset.held === "true" && document.querySelector("#description").value === "Ferns!" && document.querySelector("#draft-note") !== null`)
	bob.until(`document.querySelector("#lost")?.innerText.includes("alice@example.com took it over")`)

	a.signIn(t, adminEmail).call(t, "DELETE /locks/process:"+process+"?reason=test", nil).is(t, 204)
	alice.until(`document.querySelector("#lost")?.innerText.includes("admin@example.com")`)
	if said := read[int](t, alice.tab, `document.querySelectorAll(".editor .notice, .editor .banner").length`); said != 1 {
		t.Errorf("%d notices of one loss: %s", said, alice.text(".editor"))
	}
}

// asks sends the form on the page of a process with which a user asks for its lock.
func (d desk) asks(word string) {
	d.t.Helper()
	d.do(fill("#message", word), click("#lock form.begin button"))
	d.asked()
}

// asked waits for the page that comes after that.
func (d desk) asked() {
	d.t.Helper()
	d.until(`document.querySelector("main > .notice")?.textContent.startsWith("You asked for it.") && document.activeElement.matches(".notice")`)
}

// request is the one that the page waits for.
func (d desk) request() string {
	d.t.Helper()
	return read[string](d.t, d.tab, `document.querySelector("#lock [name=request]").value`)
}
