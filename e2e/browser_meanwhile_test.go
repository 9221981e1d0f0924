package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/input"
	devpage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"gatehouse/services/servicestest"
)

// says wants a part of the page to say something that has just become true.
func (d desk) says(css, want string) {
	d.t.Helper()
	servicestest.Within(d.t, 2*time.Second, func() bool { return strings.Contains(d.text(css), want) }, css+" does not say "+want)
}

// looks lets the page ask how things stand, as for a user who comes back to the tab.
func (d desk) looks() {
	d.t.Helper()
	read[bool](d.t, d.tab, `document.dispatchEvent(new Event("visibilitychange"))`)
}

// mouse moves to an element, or presses or releases the left button over it.
func (d desk) mouse(kind input.DispatchMouseEventType, css string) {
	d.t.Helper()
	at := read[[]float64](d.t, d.tab, fmt.Sprintf(`(({x, y, width, height}) => [x + width / 2, y + height / 2])(document.querySelector(%q).getBoundingClientRect())`, css))
	event := input.DispatchMouseEventParams{Type: kind, X: at[0], Y: at[1]}
	if kind != input.DispatchMouseEventTypeMouseMoved {
		event.Button, event.ClickCount = input.MouseButtonLeft, 1
	}
	if _, err := chromedp.Call(d.tab, input.DispatchMouseEvent, event); err != nil {
		d.t.Fatal(err)
	}
}

// pressed: what is being pressed is not replaced under the pointer. Of all that happens meanwhile,
// the newest stands there afterwards.
func (d desk) pressed(process string, other *client) {
	d.t.Helper()
	read[bool](d.t, d.tab, `(() => {
		const {setTimeout: set, clearTimeout: clear} = window;
		const later = [];
		window.setTimeout = (run, wait, panel, ...more) => panel?.id === "lock" ? -later.push({run, panel}) : set(run, wait, panel, ...more);
		window.clearTimeout = (timer) => { if (timer < 0) delete later[-timer - 1]; else clear(timer); };
		window.waits = (text) => later.some((one) => one?.panel.textContent.includes(text));
		window.letGo = () => { // the oldest last
			Object.assign(window, {setTimeout: set, clearTimeout: clear});
			later.reverse().forEach(({run, panel}) => run(panel));
			return true;
		};
		return true;
	})()`)
	d.mouse(input.DispatchMouseEventTypeMousePressed, "#lock p")
	path := "/processes/" + process + "/lock"
	for _, reason := range []string{"the first", "the second"} {
		token := "X-Lock-Token: " + other.call(d.t, "POST "+path, map[string]any{"reason": reason}).is(d.t, 201).text(d.t, "lockToken")
		d.until(`waits(%q)`, reason)
		if shown := d.text("#lock"); strings.Contains(shown, reason) {
			d.t.Errorf("replaced while it is pressed: %s", shown)
		}
		if reason == "the second" {
			d.mouse(input.DispatchMouseEventTypeMouseReleased, "#lock p")
			read[bool](d.t, d.tab, `letGo()`)
			if shown := d.text("#lock"); !strings.Contains(shown, reason) {
				d.t.Errorf("after all, there stands: %s", shown)
			}
		}
		other.call(d.t, "DELETE "+path, nil, token).is(d.t, 204)
	}
	d.until(`document.querySelector("#lock")?.innerText.includes("Nobody is editing")`)
}

// unheard: an answer to who asks that does not get through is said to be none, and why.
func (d desk) unheard() {
	d.t.Helper()
	for _, row := range []struct{ answer, why string }{
		{`Promise.reject(new TypeError("gone"))`, "the server cannot be reached"},
		{`Promise.resolve(new Response("", {status: 422}))`, "the server does not accept it"},
		{`Promise.resolve(new Response("", {status: 503}))`, "the server cannot be reached"},
	} {
		read[bool](d.t, d.tab, `(window.reallyFetch ??= fetch, window.fetch = (url, ...more) => String(url).endsWith("/edit/answer") ? `+row.answer+` : reallyFetch(url, ...more), true)`)
		d.do(click("#requests button[value^=no]"))
		d.until(`document.querySelector("#told.failed[role=alert]")?.textContent === %q`, "Nothing was answered: "+row.why+". Try again in a moment.")
	}
	read[bool](d.t, d.tab, `(window.fetch = reallyFetch, document.querySelector("#requests li") !== null)`)
}

// looksAway makes the pages that come ones of a tab that is not seen, until their window.looks.
func (d desk) looksAway() {
	d.t.Helper()
	if _, err := chromedp.Call(d.tab, devpage.AddScriptToEvaluateOnNewDocument, devpage.AddScriptToEvaluateOnNewDocumentParams{
		Source: `Object.defineProperty(document, "hidden", {get: () => !window.looks})`,
	}); err != nil {
		d.t.Fatal(err)
	}
}

// meddles lets a test stand between the page and the server: answers has, for paths below that of
// the process, what becomes of an answer, and asked is what the page has asked for.
func (d desk) meddles() {
	d.t.Helper()
	read[bool](d.t, d.tab, `(() => {
		const really = fetch;
		Object.assign(window, {asked: [], answers: {}, looks: () => asked.filter((path) => path === "/edit/state").length});
		window.fetch = async (url, ...more) => {
			const path = new URL(url, location).pathname.replace(/^.*\/processes\/\d+/, "");
			asked.push(path);
			const response = await really(url, ...more);
			return answers[path]?.(response) ?? response;
		};
		return true;
	})()`)
}

// bothSave: without Redis another instance lets bob edit what alice is editing. The fields that
// alice left alone become bob's on her page, and what she typed stays; of a field that both changed
// she decides when she saves.
func bothSave(t *testing.T, alice desk, process string, bob *client) {
	t.Helper()
	token := "X-Lock-Token: " + bob.call(t, "POST /processes/"+process+"/lock", nil).is(t, 201).text(t, "lockToken")
	put := func(title, description string) {
		t.Helper()
		bob.call(t, "PUT /processes/"+process, map[string]any{"title": title, "status": "draft", "description": description}, token).is(t, 200)
	}
	saves := func(title, description string) {
		t.Helper()
		put(title, description)
		alice.looks()
		alice.until(`document.querySelector("#title").value === %q`, title)
	}
	mine := alice.typed()
	alice.meddles()

	// Of a version that is not kept any more nobody knows what it had. The page says so once.
	read[bool](t, alice.tab, `(answers["/versions/1"] = () => new Response("{}", {status: 404, headers: {"Content-Type": "application/problem+json"}}), true)`)
	put("Dig a pond", "")
	alice.looks()
	alice.until(`document.querySelector("#changed")?.innerText.includes("bob@example.com saved. When you save, the two are combined.")`)
	looks := read[int](t, alice.tab, `looks()`)
	alice.until(`document.dispatchEvent(new Event("visibilitychange")) && looks() > %d`, looks+1) // the one before has ended
	if !read[bool](t, alice.tab, `asked.filter((path) => path === "/versions/1").length === 1`) {
		t.Error("a version that there is not is asked for again")
	}

	read[bool](t, alice.tab, `(answers = {}, true)`)
	saves("Dig a deep pond", "")
	alice.until(`document.querySelector("#changed")?.innerText.includes("bob@example.com saved. Their title is in the form now; what you changed stays.")`)
	if got := read[string](t, alice.tab, `(({elements}) => elements.base.value + " and " + new FormData(edit).get("base"))(edit)`); got != "1 and 3" {
		t.Errorf("the field of the base, and what is sent, are %s", got)
	}
	alice.do(fill("#description", "!"))
	alice.kept(process, mine+"!")

	// What alice saves in another tab hides nothing of bob's.
	read[bool](t, alice.tab, `(answers[""] = async (response) => Response.json({...await response.json(), updatedBy: {id: edit.dataset.user}}), true)`)
	saves("Dig the deepest pond", "Two feet")
	both := "bob@example.com saved. Their title is in the form now; what you changed stays. You both changed the description: when you save, you are shown both texts."
	alice.until(`document.querySelector("#changed")?.innerText.includes(%q)`, both)
	if got := alice.typed(); got != mine+"!" {
		t.Errorf("the form has %q, want %q", got, mine+"!")
	}

	// Looks do not overtake each other, and while the description is to be decided the title, which
	// alice has left alone, still follows.
	read[bool](t, alice.tab, `(answers[""] = (response) => new Promise((go) => { window.letGo = () => { answers = {}; go(response); return true; }; }), true)`)
	put("Dig a wide pond", "Two feet")
	alice.looks()
	alice.until(`window.letGo !== undefined`)
	if read[bool](t, alice.tab, `(() => { const before = looks(); document.dispatchEvent(new Event("visibilitychange")); return looks() > before; })()`) {
		t.Error("the page looks again before it has looked")
	}
	put("Dig the widest pond", "Two feet")
	read[bool](t, alice.tab, `letGo()`)
	alice.until(`document.querySelector("#title").value === "Dig the widest pond"`)
	alice.until(`document.querySelector("#changed")?.innerText.includes(%q)`, both)

	// Of what she alone has saved, in another tab, nothing is said.
	read[bool](t, alice.tab, `(answers = {
		"": async (response) => Response.json({...await response.json(), updatedBy: {id: edit.dataset.user}}),
		"/history": () => Response.json({items: []}),
	}, document.querySelector("#changed").dataset.before = "true", true)`)
	saves("Dig the pond again", "Two feet")
	alice.until(`document.querySelector("#changed")?.dataset.before === "true"`)

	// What she did not type is not hers when it is saved, even if bob puts it back meanwhile.
	put("Dig the pond", "Two feet")
	bob.call(t, "DELETE /processes/"+process+"/lock", nil, token).is(t, 204)
	alice.do(click("button[value=stay]"))
	alice.until(`document.querySelector("#conflict") !== null`)
	alice.do(click("#description-mine"), click("#conflict button.primary"))
	alice.until(`document.querySelector("#conflict") === null && document.querySelector("#edit")?.dataset.held === "true"`)
	bob.call(t, "GET /processes/"+process, nil).is(t, 200).with(t, "title", "Dig the pond").with(t, "description", mine+"!")
	alice.noAlarm()

	// A copy of this browser's, from the time of version 4, is compared with that one.
	read[bool](t, alice.tab, `(({user, process}) => {
		const copy = {title: "Dig the deepest pond", status: "draft", description: edit.elements.description.value, base: "4", at: Date.now()};
		localStorage.setItem("gatehouse.draft." + user + "." + process + ".1", JSON.stringify(copy));
		return true;
	})(edit.dataset)`)
	alice.do(chromedp.Reload())
	alice.until(`document.querySelector("#copy button") !== null && document.documentElement.matches(".live")`)
	alice.do(click("#copy button"))
	alice.looks()
	alice.until(`document.querySelector("#title").value === "Dig the pond"`)
}

// writesInTime: a draft that the server did not get is tried again at ever longer intervals, but in the
// last seconds of the lock at once.
func (d desk) writesInTime(process, text string) {
	d.t.Helper()
	read[bool](d.t, d.tab, `(window.reallyFetch ??= fetch, window.writes = [], window.fetch = async (url, options) => {
		if (options?.method === "PUT" && writes.push(performance.now()) <= 3) throw new TypeError("gone");
		const response = await reallyFetch(url, options);
		if (!String(url).includes("/edit/state") || writes.length < 3) return response;
		const state = await response.json(); // as if the rest had passed
		return Response.json({...state, expires: state.now + 4000});
	}, true)`)
	d.do(fill("#description", text))
	d.until(`writes.length >= 3`)
	d.looks()
	d.until(`writes.length >= 4`)
	if waited := read[float64](d.t, d.tab, `writes[3] - writes[2]`); waited > 7900 { // milliseconds; it would be 8 s
		d.t.Errorf("the draft is tried again %.0f ms later, with 4 s left", waited)
	}
	d.kept(process, text)
	d.until(`document.querySelector("#away") === null`)
	read[bool](d.t, d.tab, `(window.fetch = reallyFetch, true)`)
	d.looks() // the rest has not passed
	d.until(`document.querySelector("#countdown") === null`)
}

// warned: a minute before the end of the lock the page counts down, and a press keeps the lock.
func (d desk) warned() {
	d.t.Helper()
	read[bool](d.t, d.tab, `(window.reallyFetch ??= fetch, window.fetch = async (url, ...more) => {
		const response = await reallyFetch(url, ...more);
		if (!String(url).includes("/edit/state")) return response;
		const state = await response.json(); // as if the rest had passed
		return Response.json({...state, expires: state.now + 59_000});
	}, true)`)
	d.looks()
	d.until(`/Others can edit in 5\d s/.test(document.querySelector("#countdown[role=alert]")?.innerText)`)
	d.accessible("the time runs out")
	read[bool](d.t, d.tab, `(window.fetch = reallyFetch, true)`)
	d.do(click("#countdown button"))
	d.until(`document.querySelector("#countdown") === null && document.querySelector("#edit").dataset.held === "true"`)
}
