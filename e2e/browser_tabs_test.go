package e2e

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	cdp "github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"

	"gatehouse/services/servicestest"
)

// beside opens another tab in the browser of the desk, whose user is signed in there, too. It
// can be closed without an end to the others.
func (d desk) beside(expected ...string) (beside desk, closeTab func()) {
	d.t.Helper()
	browser, err := shell.start()
	if err != nil {
		d.t.Fatal(err)
	}
	same := chromedp.WithExistingBrowserContext(chromedp.FromContext(d.tab).BrowserContextID)
	tab, closeTab := newTab(d.t, browser, same, expected)
	return desk{d.client, d.t, tab}, closeTab
}

// sleep makes the tab one that is hidden and whose timers do not run any more.
func (d desk) sleep() {
	d.t.Helper()
	read[bool](d.t, d.tab, `(() => {
		Object.defineProperty(document, "hidden", {value: true});
		document.dispatchEvent(new Event("visibilitychange"));
		for (let timer = setTimeout(() => {}); timer > 0; timer--) clearTimeout(timer);
		window.setTimeout = window.setInterval = () => 0;
		return true;
	})()`)
}

// worker is what runs the stream of the browser's tabs.
func (d desk) worker() target.ID {
	d.t.Helper()
	targets, err := chromedp.Call(d.tab, target.GetTargets, target.GetTargetsParams{})
	if err != nil {
		d.t.Fatal(err)
	}
	for _, one := range targets.TargetInfos {
		if one.Type == "shared_worker" && one.BrowserContextID == chromedp.FromContext(d.tab).BrowserContextID {
			return one.TargetID
		}
	}
	return ""
}

// endWorker ends it, as it ends with the tab in whose process the browser runs it if that crashes.
func (d desk) endWorker() {
	d.t.Helper()
	id := d.worker()
	worker, cancel := chromedp.NewContext(d.tab, chromedp.WithTargetID(id))
	defer cancel()
	if _, err := evaluate[bool](worker, `(self.close(), true)`); err != nil {
		d.t.Fatal(err)
	}
	servicestest.Eventually(d.t, func() bool { return d.worker() != id }, "the worker does not end")
}

// within waits until a condition is true in the page, not longer than the bound.
func (d desk) within(bound time.Duration, condition string) {
	d.t.Helper()
	servicestest.Within(d.t, bound, func() bool {
		ok, err := evaluate[bool](d.tab, condition)
		return err == nil && ok
	}, "not true in time: "+condition)
}

// editInManyTabs: a browser has six connections to a server. The event streams of its tabs must
// leave some of them to save with, and no tab that goes may take the events of the others along.
func editInManyTabs(t *testing.T, a *app) {
	const rejected = "status of 429" // a stream, on purpose
	alice, bob, admin := newDesk(t, a, "alice@example.com", rejected), a.signIn(t, "bob@example.com"), a.signIn(t, adminEmail)
	watched := bob.call(t, "POST /processes", map[string]any{"title": "Water the plants"}).is(t, 201).text(t, "id")
	token := bob.call(t, "POST /processes/"+watched+"/lock", nil).is(t, 201).text(t, "lockToken")
	alice.look(watched)
	alice.do(click(".tell button"))
	alice.until(`document.querySelector(".tell")?.innerText.includes("You will be told")`)
	alice.sleep()

	var tabs []desk
	var processes []string
	var closeFirst func()
	for i := range 7 {
		tab, closeTab := alice.beside(rejected, lateExtend)
		if i == 0 {
			closeFirst = closeTab
		}
		process := alice.newProcess(fmt.Sprintf("Water plant %d", i))
		tab.edit(process)
		tabs, processes = append(tabs, tab), append(processes, process)
	}
	saves := tabs[6]
	saves.do(fill("#description", "Twice a week."), click("button[value=stay]"))
	saves.until(`document.querySelector(".notice")?.textContent.includes("Your changes are saved")`)

	hears := func(i int, bound time.Duration) {
		t.Helper()
		admin.call(t, "DELETE /locks/process:"+processes[i]+"?reason=test", nil).is(t, 204)
		tabs[i].within(bound, `document.querySelector("#lost") !== null`)
	}
	frozen := cdp.SetWebLifecycleStateParams{State: cdp.SetWebLifecycleStateStateFrozen}
	if _, err := chromedp.Call(tabs[0].tab, cdp.SetWebLifecycleState, frozen); err != nil {
		t.Fatal(err)
	}
	hears(1, 2*time.Second)
	closeFirst()
	hears(2, 2*time.Second)

	// Only tabs whose timers run can miss the worker, and tell the others.
	tabs[3].sleep()
	alice.endWorker()
	hears(3, 6*time.Second)
	bob.call(t, "DELETE /processes/"+watched+"/lock", nil, "X-Lock-Token: "+token).is(t, 204)
	alice.within(2*time.Second, `document.title.startsWith("Free:")`)

	// Without a stream, as the user has all that there may be, the tabs look in turn: one in 0.4 s,
	// however many they are. Nor do they ask more often for the stream.
	alice.openStreams(t, streamsEach)
	alice.endWorker()
	servicestest.Eventually(t, func() bool { begun, _ := alice.openStreams(t, 1); return begun == 1 }, "the stream of the browser does not end")
	refused, full := a.refusedStreams(t), time.Now()
	awake := []desk{tabs[1], tabs[2], tabs[4], tabs[5], tabs[6]}
	for _, tab := range awake {
		tab.until(`!document.documentElement.classList.contains("live")`)
	}
	servicestest.Eventually(t, func() bool { return a.refusedStreams(t) > refused }, "no tab asks for the stream")
	began := time.Now()
	looks := func() (sum int) { // begun since
		for _, tab := range awake {
			sum += read[int](t, tab.tab, fmt.Sprintf(`performance.getEntriesByType("resource").filter(({name, startTime}) =>
				name.includes("/edit/state?") && performance.timeOrigin + startTime > %d).length`, began.UnixMilli()))
		}
		return sum
	}
	servicestest.Eventually(t, func() bool { return looks() >= 15 }, "the tabs do not look")
	sum := looks()
	if took := time.Since(began); sum > len(awake)+1+int(took/(400*time.Millisecond)) {
		t.Errorf("%d looks within %s", sum, took)
	}
	hears(4, 10*time.Second) // before it looks by itself, which it does every 15 s
	again := a.refusedStreams(t) - refused
	if took := time.Since(full); again > 2+int(took/(15*time.Second)) {
		t.Errorf("the stream was asked for %d times within %s", again, took)
	}
}

// refusedStreams is how many event streams the instance has refused because there were too many.
func (a *app) refusedStreams(t *testing.T) int {
	t.Helper()
	metrics := a.anonymous().send(t, "GET /metrics", nil).is(t, 200).Body
	found := streamsRefused.FindSubmatch(metrics)
	if found == nil {
		return 0
	}
	count, err := strconv.Atoi(string(found[1]))
	if err != nil {
		t.Fatal(err)
	}
	return count
}

var streamsRefused = regexp.MustCompile(`gatehouse_http_request_duration_seconds_count\{method="GET",route="/api/v1/locks/events",status="429"\} (\d+)`)

// holds lets nothing go from the scripts of the page until it says so: then first the drafts.
const holds = `(() => {
	const {fetch} = window, going = new Promise((go) => { window.go = go; });
	let rest = going;
	window.fetch = async (url, {signal, ...options} = {}) => {
		if (options.method !== "PUT") {
			await going;
			await rest;
			return fetch(url, options);
		}
		window.typed = true;
		const answer = going.then(() => fetch(url, options));
		rest = answer.catch(() => {});
		return answer;
	};
	return true;
})()`

// browserBeside: once another user signs in beside them, pages left open are theirs. They do not
// hear what is only for that user, and what was typed does not become that user's draft.
func browserBeside(t *testing.T, a *app) {
	refused := []string{"status of 401", "status of 403", "status of 409"} // the pages of before, whose lock is not the other user's
	alice, bob, admin := pageDesk(t, a, "alice@example.com", refused...), a.signIn(t, "bob@example.com"), a.signIn(t, adminEmail)
	process, theirs := alice.newProcess("Fill the lamps"), alice.newProcess("Trim the wicks")
	alice.edit(process)
	alice.do(fill("#description", "Two are empty."))
	alice.kept(process, "Two are empty.")
	reads, _ := alice.beside(refused...)
	reads.look(theirs)
	listen := `(sessionStorage.heard = "", gatehouse.listen({look() {}, heard: (kind) => { sessionStorage.heard += kind + " "; }}), true)`
	read[bool](t, reads.tab, listen)
	reads.until(`document.documentElement.matches(".live")`)
	for _, page := range []desk{alice, reads} { // which would be another one at once
		read[bool](t, page.tab, holds)
	}
	alice.do(fill("#description", "None is empty."))
	alice.until(`window.typed`)

	beside, _ := alice.beside(refused...)
	beside.do(chromedp.Navigate(a.URL + "/account"))
	read[bool](t, beside.tab, `(window.confirm = () => true, true)`) // a copy of what is typed there may be all there is
	beside.do(click(".who button"))
	beside.until(`document.querySelector("#password") !== null`)
	signInOnPage(t, beside.tab, "bob@example.com")
	beside.until(`document.body.dataset.user === %q && document.documentElement.matches(".live")`, bob.id)
	read[bool](t, beside.tab, listen)
	beside.until(`document.documentElement.matches(".live")`)
	bob.call(t, "POST /processes/"+theirs+"/lock", nil).is(t, 201)
	beside.until(`sessionStorage.heard.includes("acquired")`)
	admin.call(t, "POST /processes/"+theirs+"/lock/requests", map[string]any{"message": "for your eyes"}).is(t, 201)
	beside.until(`sessionStorage.heard.includes("asked")`)
	for _, page := range []desk{alice, reads} {
		read[bool](t, page.tab, `(go(), true)`)
		page.until(`document.readyState === "complete" && document.body.dataset.user !== %q`, alice.id) // bob's, or a sign-in
	}
	if heard := read[string](t, reads.tab, `sessionStorage.heard ?? ""`); strings.Contains(heard, "asked") {
		t.Errorf("a page of alice heard what is for bob: %s", heard)
	}
	bob.call(t, "GET /processes/"+process+"/draft", nil).is(t, 404)
	alice.kept(process, "Two are empty.")
}
