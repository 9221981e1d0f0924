package e2e

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"

	"gatehouse/services/servicestest"
)

// lateExtend is what a browser complains about when a page asks for more time just after its lock
// was lost, as every 20 s while there is input.
const lateExtend = "/edit/extend)"

func editForced(t *testing.T, a *app) {
	alice, admin := newDesk(t, a, "alice@example.com", lateExtend), a.signIn(t, adminEmail)
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

// editExpired: the lock is given a few seconds, as if the rest had passed.
func editExpired(t *testing.T, a *app) {
	alice := newDesk(t, a, "alice@example.com", lateExtend)
	process := alice.newProcess("Sweep the yard")
	alice.edit(process)
	alice.writesInTime(process, "Leaves")
	alice.warned()
	read[bool](t, alice.tab, `(fetch("/processes/`+process+`/edit/release", {
		method: "POST", body: new URLSearchParams({lock: document.querySelector("#edit").dataset.lock, soon: "true"}),
	}), true)`)
	servicestest.Eventually(t, func() bool {
		return alice.call(t, "GET /processes/"+process+"/lock/status", nil).is(t, 200).at(t, "isLocked") == false
	}, "the lock does not end")
	alice.lost(process, "Leaves", "ran out")
}

// editElsewhere: the same user goes on in another browser. That is no loss.
func editElsewhere(t *testing.T, a *app) {
	here, there := newDesk(t, a, "alice@example.com", lateExtend, "status of 412"), newDesk(t, a, "alice@example.com")
	process := here.newProcess("Cut the hedge")
	here.edit(process)

	// Text that was taken back needs no draft, but what was kept elsewhere since stays.
	here.do(fill("#description", "x"))
	here.kept(process, "x")
	here.call(t, "PUT /processes/"+process+"/draft", map[string]any{"title": "Cut the hedge", "status": "draft", "description": "By hand", "baseVersion": 1}).is(t, 200)
	here.meddles()
	read[bool](t, here.tab, `(answers["/draft"] = ({status}) => { window.deleted = status; }, true)`)
	here.do(press(kb.Backspace))
	here.until(`window.deleted === 412`)

	here.do(fill("#description", "To the shoulder"))
	here.until(`document.querySelector("#elsewhere button") !== null`) // what is there was typed elsewhere
	here.do(click("#elsewhere button"))
	here.kept(process, "To the shoulder")
	there.look(process)
	there.until(`document.querySelector("#lock")?.innerText.includes("You are editing")`)
	there.do(click("#lock form.actions button"))
	there.until(`document.querySelector("#edit")?.dataset.held === "true" && document.querySelector("#description").value === "To the shoulder"`)
	here.until(`document.querySelector("#lost") !== null`)
	if read[bool](t, here.tab, `document.querySelector("#lost").matches(".failed")`) {
		t.Errorf("a false alarm: %s", here.text("#lost"))
	}
	here.until(`document.querySelector("#edit .actions .primary")?.innerText === "Go on here"`)
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
	if scripts { // the page says so by itself, once it knows that bob has gone, too
		since := read[float64](t, alice.tab, `performance.now()`)
		alice.looks()
		alice.until(`performance.getEntriesByType("resource").some(({name, startTime, responseEnd}) => name.includes("/edit/state?") && startTime > %f && responseEnd > 0)`, since)
	} else {
		alice.do(click("button[value=stay]"))
	}
	alice.until(`document.querySelector("#lost") !== null && document.querySelector("#edit .actions .primary")?.innerText === "Edit again with this text"`)
	alice.do(click("#edit .actions .primary"))
	alice.until(`document.querySelector("#conflict") !== null`)
	if os.Getenv("GATEHOUSE_SCREENSHOTS") != "" && !scripts {
		screenshot(t, alice.tab, "conflict-without-scripts")
	}
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

// editDeleted: who waits until a process is free hears that it was deleted.
func editDeleted(t *testing.T, a *app) {
	alice, bob := a.signIn(t, "alice@example.com"), newDesk(t, a, "bob@example.com", "status of 404")
	process := bob.newProcess("Empty the bin")
	token := "X-Lock-Token: " + alice.call(t, "POST /processes/"+process+"/lock", nil).is(t, 201).text(t, "lockToken")
	bob.look(process)
	bob.do(click(".tell button"))
	bob.until(`document.querySelector(".tell")?.innerText.includes("You will be told") && document.documentElement.matches(".live")`)
	alice.call(t, "DELETE /processes/"+process, nil, token).is(t, 204)
	bob.until(`document.querySelector("#deleted[role=alert]") !== null && document.querySelector("#lock").hidden && document.querySelector("#free") === null`)
}
