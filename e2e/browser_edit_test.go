package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

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
		{"asked for and given", editAsked},
		{"forced while typing", editForced},
		{"expired while typing", editExpired},
		{"taken over by oneself", editElsewhere},
		{"a conflict, with JavaScript", func(t *testing.T, a *app) { editConflict(t, a, true) }},
		{"a conflict, without JavaScript", func(t *testing.T, a *app) { editConflict(t, a, false) }},
		{"reload, leave and come back", editReload},
		{"keyboard only", editByKeyboard},
		{"typed before the scripts have come", editEarly},
		{"seven tabs of a browser", editInManyTabs},
	} {
		t.Run(part.name, func(t *testing.T) { part.run(t, a) })
	}
}

// desk is a user's tab, and the same user at the API.
type desk struct {
	*client
	t   *testing.T
	tab context.Context //nolint:containedctx // chromedp knows a tab by its context
}

// newDesk is a tab in which a user has signed in.
func newDesk(t *testing.T, a *app, email string, expected ...string) desk {
	t.Helper()
	d := desk{a.signIn(t, email), t, openTab(t, a, expected...)}
	d.do(fill("#email", email), fill("#password", demoPassword), click("main form button"))
	d.until(`document.querySelector(".who")?.textContent.includes(%q)`, email)
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
	for _, want := range why {
		if said := d.text("#lost"); !strings.Contains(said, want) {
			d.t.Errorf("the page says %q, want %q", said, want)
		}
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
	if said := read[string](d.t, d.tab, `[...document.querySelectorAll("#lost, #changed, #away, #copy, #unsaved, #countdown, .failed")].map((one) => one.innerText).join("; ")`); said != "" {
		d.t.Errorf("a false alarm: %s", said)
	}
}

func editAndSave(t *testing.T, a *app) {
	alice, bob := newDesk(t, a, "alice@example.com"), newDesk(t, a, "bob@example.com")
	process := alice.newProcess("Paint the fence")
	bob.look(process)
	bob.until(`document.querySelector("#lock")?.innerText.includes("Nobody is editing")`)
	read[bool](t, bob.tab, `window.sameDocument = true`)
	bob.pressed(process, alice.client)
	alice.edit(process)
	bob.until(`document.querySelector("#editing")?.innerText.includes("alice@example.com is editing since")`)

	alice.do(fill("#description", "Two coats of green."))
	alice.kept(process, "Two coats of green.")
	bob.call(t, "GET /processes/"+process, nil).is(t, 200).with(t, "drafts.0.email", "alice@example.com")
	bob.do(click(".tell button"))
	bob.until(`document.querySelector(".tell")?.innerText.includes("You will be told")`)

	alice.do(fill("#description", " And two of blue."), click("button[value=stay]")) // no draft has that
	alice.until(`document.querySelector(".notice")?.textContent.includes("Your changes are saved")`)
	alice.noAlarm()
	if got := alice.draft(process); got != "" {
		t.Errorf("a draft of what is saved: %q", got)
	}
	alice.do(fill("#description", " And a gate."), click("button[value=close]"))
	alice.until(`document.querySelector(".reader .text")?.innerText.includes("And a gate.")`)
	alice.noAlarm()
	if draft := alice.text("#draft"); draft != "" {
		t.Errorf("after saving: %s", draft)
	}

	bob.until(`document.querySelector("#lock")?.innerText.includes("Nobody is editing")`)
	bob.until(`document.querySelector("#changed")?.innerText.includes("the description")`)
	bob.until(`document.querySelector("#free") !== null && document.title.startsWith("Free:")`)
	if !read[bool](t, bob.tab, `window.sameDocument === true`) {
		t.Error("the page was loaded anew")
	}
	bob.do(click("#changed button"))
	bob.until(`document.querySelector(".reader .text")?.innerText.includes("And a gate.")`)
}

func editForced(t *testing.T, a *app) {
	alice, admin := newDesk(t, a, "alice@example.com"), a.signIn(t, adminEmail)
	process := alice.newProcess("Mend the roof")
	alice.edit(process)
	alice.do(fill("#description", "Tiles"))
	// When the loss is shown, by the clock of the machine.
	read[bool](t, alice.tab, `(new MutationObserver(() => {
		if (document.querySelector("#lost")) window.lostAt ??= Date.now();
	}).observe(document.body, {childList: true, subtree: true}), true)`)
	began := time.Now()
	admin.call(t, "DELETE /locks/process:"+process+"?reason=gone+home", nil).is(t, 204)
	forced := time.Now()
	alice.lost(process, "Tiles", "admin@example.com", "gone home")
	shown := time.UnixMilli(read[int64](t, alice.tab, `window.lostAt`))
	if took := shown.Sub(forced); took > 150*time.Millisecond+servicestest.Slack(began) {
		t.Errorf("from the event to the screen: %s", took)
	}
	alice.do(click("#edit .actions .primary"))
	alice.until(`document.querySelector("#edit")?.dataset.held === "true" && document.querySelector("#description").value === "Tiles!"`)
	alice.do(click("button[value=close]"))
	alice.until(`document.querySelector(".reader .text")?.innerText === "Tiles!"`)
}

// editAsked: who asked for a lock comes to the form by itself once it is given, and is not told of
// another tab. What the holder typed is kept.
func editAsked(t *testing.T, a *app) {
	alice, bob := newDesk(t, a, "alice@example.com"), newDesk(t, a, "bob@example.com")
	process := alice.newProcess("Asked for")
	alice.edit(process)
	bob.look(process)
	bob.asks("two minutes?")
	request := bob.request()
	alice.until(`document.querySelector("#lock-line .asked")?.textContent.includes("two minutes?") && document.title.startsWith("(1) ")`)

	// Answered with the page as it is: what was told stands there at once, and on no later page.
	alice.do(fill("#description", "a draft"))
	read[bool](t, alice.tab, `window.sameDocument = true`)
	alice.do(click("#requests button[value^=later]"))
	alice.until(`document.querySelector("#told")?.textContent === "bob@example.com is told: 5 more minutes."`)
	alice.until(`document.querySelector("#requests li")?.textContent.includes("You asked for more time.") && document.activeElement.matches("#requests button[value^=later]")`)
	bob.until(`document.querySelector("#lock")?.textContent.includes("The answer: a few more minutes")`)
	read[bool](t, bob.tab, `(document.querySelector("#lock form[action$=withdraw] button").focus(), true)`) // what changes under the focus is told, too
	alice.unheard()
	alice.do(click("#requests button[value^=no]"))
	alice.until(`document.querySelector("#told")?.textContent === "bob@example.com is told: no."`)
	alice.until(`document.querySelector("#requests").hidden && !document.title.startsWith("(") && document.activeElement.id === "description"`)
	bob.until(`document.querySelector("#lock")?.textContent.includes("The answer: no") && document.activeElement.id === "message"`)

	// Asked and withdrawn, from elsewhere: the holder's page takes it back, and bob can ask again.
	bob.asks("one minute?")
	if bob.request() == request {
		t.Error("what was answered is asked for again")
	}
	request = bob.request()
	leave, left := a.signIn(t, adminEmail).waitUntilLeaving(t, "POST /processes/"+process+"/lock")
	bob.says("#editing", "2 are waiting, 1 before you") // the queue comes first
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
	if got := alice.typed(); got != "a draft" || !read[bool](t, alice.tab, `window.sameDocument === true`) {
		t.Errorf("the page was loaded anew, or the text is %q", got)
	}
	alice.do(click("#requests button[value^=give]"))
	alice.until(`document.querySelector("#draft")?.textContent.includes("You left changes at")`)
	bob.until(`document.querySelector("#edit")?.dataset.held === "true"`)
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
	alice, bob := newDesk(t, a, "alice@example.com"), newDesk(t, a, "bob@example.com")
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
	d.until(`document.querySelector("main > .notice")?.textContent.startsWith("You asked for it.") && document.activeElement.matches(".notice")`)
}

// request is the one that the page waits for.
func (d desk) request() string {
	d.t.Helper()
	return read[string](d.t, d.tab, `document.querySelector("#lock [name=request]").value`)
}

// editExpired: the lock is given a few seconds, as if the rest had passed.
func editExpired(t *testing.T, a *app) {
	alice := newDesk(t, a, "alice@example.com")
	process := alice.newProcess("Sweep the yard")
	alice.edit(process)
	alice.do(fill("#description", "Leaves"))
	alice.kept(process, "Leaves")
	alice.warned()
	read[bool](t, alice.tab, `(fetch(document.querySelector("#edit").dataset.release, {
		method: "POST", body: new URLSearchParams({lock: document.querySelector("#edit").dataset.lock, soon: "true"}),
	}), true)`)
	servicestest.Eventually(t, func() bool {
		return alice.call(t, "GET /processes/"+process+"/lock/status", nil).is(t, 200).at(t, "isLocked") == false
	}, "the lock does not end")
	alice.lost(process, "Leaves", "ran out")
}

// editElsewhere: the same user goes on in another browser. That is no loss.
func editElsewhere(t *testing.T, a *app) {
	here, there := newDesk(t, a, "alice@example.com"), newDesk(t, a, "alice@example.com")
	process := here.newProcess("Cut the hedge")
	here.edit(process)
	here.do(fill("#description", "To the shoulder"))
	here.kept(process, "To the shoulder")
	there.look(process)
	there.until(`document.querySelector("#lock")?.innerText.includes("You are editing")`)
	there.do(click("#lock form.actions button"))
	there.until(`document.querySelector("#edit")?.dataset.held === "true" && document.querySelector("#description").value === "To the shoulder"`)
	here.until(`document.querySelector("#lost") !== null`)
	if read[bool](t, here.tab, `document.querySelector("#lost").matches(".failed")`) {
		t.Errorf("a false alarm: %s", here.text("#lost"))
	}
	there.do(fill("#description", "."), click("button[value=close]"))
	there.until(`document.querySelector(".reader .text") !== null`)
}

// editConflict: the lock is lost, another user saves, and both changed the description.
func editConflict(t *testing.T, a *app, scripts bool) {
	alice, bob := newDesk(t, a, "alice@example.com", "status of 409"), a.signIn(t, "bob@example.com")
	process := alice.newProcess("Order seeds")
	if !scripts {
		switchOffScripts(t, alice.tab)
	}
	alice.look(process)
	alice.do(click("form.begin button.primary"))
	alice.until(`document.querySelector("#edit")?.dataset.held === "true"`)
	alice.do(fill("#description", "Beans"))
	a.signIn(t, adminEmail).call(t, "DELETE /locks/process:"+process+"?reason=order", nil).is(t, 204)
	token := bob.call(t, "POST /processes/"+process+"/lock", nil).is(t, 201).text(t, "lockToken")
	bob.call(t, "PUT /processes/"+process, map[string]any{"title": "Order more seeds", "status": "draft", "description": "Peas"}, "X-Lock-Token: "+token).is(t, 200)
	bob.call(t, "DELETE /processes/"+process+"/lock", nil, "X-Lock-Token: "+token).is(t, 204)
	if !scripts { // with it the page says so by itself
		alice.do(click("button[value=stay]"))
	}
	alice.until(`document.querySelector("#lost") !== null && document.querySelector("#edit .actions .primary")?.innerText === "Edit again with this text"`)
	alice.do(click("#edit .actions .primary"))
	alice.until(`document.querySelector("#conflict") !== null`)
	shown := alice.text("main")
	for _, want := range []string{"bob@example.com", "Beans", "Peas"} {
		if !strings.Contains(shown, want) {
			t.Errorf("the choice does not show %q: %s", want, shown)
		}
	}
	alice.do(click("#description-mine"), click("#conflict button.primary"))
	alice.until(`document.querySelector("#conflict") === null && document.querySelector("#edit") !== null`)
	bob.call(t, "GET /processes/"+process, nil).is(t, 200).with(t, "title", "Order more seeds").with(t, "description", "Beans")
}

// editReload: a reload goes on, and so does who comes back. Who stays away gives the lock back.
func editReload(t *testing.T, a *app) {
	alice := newDesk(t, a, "alice@example.com")
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

	read[bool](t, alice.tab, `(history.back(), true)`)
	alice.until(`document.querySelector("#edit")?.dataset.held === "true" && document.querySelector("#description").value === "Twelve and one"`)
	alice.do(click("button[value=close]"))
	alice.until(`document.querySelector(".reader .text")?.innerText === "Twelve and one"`)
}

func editByKeyboard(t *testing.T, a *app) {
	alice := newDesk(t, a, "alice@example.com")
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
