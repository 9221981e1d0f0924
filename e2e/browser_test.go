package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"gatehouse/services/servicestest"
)

// TestBrowser is what an administrator sees and does on the page, in a real
// Chromium. Every part has cookies of its own, and holds the page to a console
// without errors and a Content-Security-Policy without violations.
func TestBrowser(t *testing.T) {
	t.Parallel()
	type part struct {
		name string
		run  func(t *testing.T, a *app)
	}
	for group, parts := range map[string][]part{
		"locks": {
			{"force a lock", browserForce},
			{"force a lock without JavaScript", browserWithoutScripts},
			{"keyboard only", browserKeyboard},
			{"under the pointer", browserPointer},
		},
		"sessions": {
			{"end the other sessions", browserSessions},
			{"signed out from elsewhere", browserRevoked},
			{"back after signing out", browserBack},
			{"another user beside", browserBeside},
		},
		"looks": {
			{"Swagger UI", browserSwagger},
			{"light and dark", browserLooks},
		},
		"pages": {
			{"accessible", browserAccessible},
		},
	} {
		t.Run(group, func(t *testing.T) {
			t.Parallel()
			a := start(t)
			for _, part := range parts {
				t.Run(part.name, func(t *testing.T) { part.run(t, a) })
			}
		})
	}
}

const adminEmail = "admin@example.com"

// signInOnPage fills in the form that the tab shows.
func signInOnPage(t *testing.T, tab context.Context, email string) {
	t.Helper()
	do(t, tab, fill("#email", email), fill("#password", demoPassword), click("main form button"))
	until(t, tab, fmt.Sprintf(`document.querySelector("h1")?.textContent === "Locks held now" && document.querySelector(".who").textContent.includes(%q)`, email))
}

// lockOf is a process with a lock that alice takes over the API.
type lockOf struct {
	alice        *client
	process      string
	token        string
	title, row   string // of the process; the row's selector
	forceControl string // the selector of its force button
}

func takeLock(t *testing.T, a *app, title string) lockOf {
	t.Helper()
	alice := a.signIn(t, "alice@example.com")
	id := alice.call(t, "POST /processes", map[string]any{"title": title}).is(t, 201).text(t, "id")
	l := lockOf{alice: alice, process: id, title: title, row: fmt.Sprintf(`tr[data-resource="process:%s"]`, id)}
	l.forceControl = l.row + " a.danger"
	l.token = alice.call(t, "POST /processes/"+id+"/lock", map[string]any{"ttl": 300, "reason": "writing the summary"}).
		is(t, 201).text(t, "lockToken")
	return l
}

// release gives the lock back if it is still alice's.
func (l lockOf) release(t *testing.T) {
	t.Helper()
	l.alice.call(t, "DELETE /processes/"+l.process+"/lock", nil, "X-Lock-Token: "+l.token)
}

// forced checks, over the API, that alice has lost the lock and that the audit
// says why.
func (l lockOf) forced(t *testing.T, reason string) {
	t.Helper()
	l.alice.call(t, "GET /processes/"+l.process+"/lock/status", nil).is(t, 200).with(t, "isLocked", false)
	l.alice.call(t, "PUT /processes/"+l.process, map[string]any{"title": "Too late", "status": "draft", "description": ""}, "X-Lock-Token: "+l.token).
		problem(t, 409, "lock-not-held").with(t, "isLocked", false)
	audit := l.alice.app.signIn(t, adminEmail).call(t, "GET /audit?limit=200", nil).is(t, 200)
	if !strings.Contains(string(audit.Body), reason) {
		t.Errorf("the audit does not know why: %s", audit.Body)
	}
}

func browserForce(t *testing.T, a *app) {
	servicestest.Need(t, "curl", "curl") // the example's
	tab := openTab(t, a)
	signInOnPage(t, tab, adminEmail)
	until(t, tab, `document.body.innerText.includes("Nobody is editing anything.")`)

	// The commands that the empty table offers do what it says.
	example := strings.Replace(read[string](t, tab, `document.querySelector("#example").textContent`), "YOUR PASSWORD", demoPassword, 1)
	if out, err := exec.Command("sh", "-ec", example).CombinedOutput(); err != nil || !strings.Contains(string(out), `"lockToken"`) {
		t.Errorf("the example fails: %v\n%s\n%s", err, example, out)
	}
	until(t, tab, `document.querySelector("#locks tr[data-resource]")?.innerText.includes("My first process")`)

	// It appears in the page as it stands: a reload would forget the mark.
	read[bool](t, tab, `window.sameDocument = true`)
	l := takeLock(t, a, "Paint the barn")
	until(t, tab, fmt.Sprintf(`document.querySelector(%q) !== null`, l.row))
	shown := read[string](t, tab, fmt.Sprintf(`document.querySelector(%q).innerText`, l.row))
	for _, want := range []string{l.title, "process:" + l.process, "alice@example.com", "writing the summary", "min"} {
		if !strings.Contains(shown, want) {
			t.Errorf("the row does not show %q: %s", want, shown)
		}
	}
	first := timeLeft(t, tab, l)
	if first > 5*time.Minute || first < 4*time.Minute {
		t.Errorf("%v left of a new lock of 5 minutes", first)
	}
	asked := time.Now()
	for last := first; last > first-2*time.Second; {
		until(t, tab, fmt.Sprintf(`document.querySelector(%q).textContent !== %q`, l.row+" .left", inWords(last)))
		next := timeLeft(t, tab, l)
		if next > last+time.Second+servicestest.Slack(asked) { // a second: the clock of a refreshed table is as old as its answer
			t.Fatalf("the time left goes from %v to %v", last, next)
		}
		last = next
	}
	if !read[bool](t, tab, `window.sameDocument === true`) {
		t.Error("the page was reloaded")
	}

	do(t, tab, click(l.forceControl))
	until(t, tab, `document.querySelector("h1")?.textContent === "Force this lock?"`)
	if asked := read[string](t, tab, `document.querySelector("main").innerText`); !strings.Contains(asked, "alice@example.com") || !strings.Contains(asked, l.title) {
		t.Errorf("the question does not say whose lock it is: %s", asked)
	}
	do(t, tab, fill("#reason", "on holiday <b>since</b> Monday"), click("main form button.danger"))
	until(t, tab, fmt.Sprintf(`document.querySelector(".notice")?.textContent.includes("The lock of alice@example.com on process:%s has ended.")`, l.process))
	until(t, tab, fmt.Sprintf(`document.querySelector(%q) === null`, l.row))
	l.forced(t, "on holiday")

	// The message is shown once.
	do(t, tab, chromedp.Reload())
	until(t, tab, `document.querySelector("h1")?.textContent === "Locks held now" && document.querySelector(".notice") === null`)

	// And a lock that goes by itself goes from the page. Both are shown at once.
	until(t, tab, `document.documentElement.matches(".live")`)
	took := time.Now()
	again := takeLock(t, a, "Paint the shed")
	atOnce(t, tab, again, true, took)
	let := time.Now()
	again.release(t)
	atOnce(t, tab, again, false, let)
}

// atOnce waits until a lock's row is in the page, or out of it, and holds the page to the time that
// may pass from an event to the screen. What happened has just happened, and began then.
func atOnce(t *testing.T, tab context.Context, l lockOf, there bool, began time.Time) {
	t.Helper()
	happened := time.Now()
	until(t, tab, fmt.Sprintf(`(document.querySelector(%q) !== null) === %t`, l.row, there))
	if took := time.Since(happened); took > 150*time.Millisecond+servicestest.Slack(began) {
		t.Errorf("from the event to the screen: %s", took)
	}
}

// timeLeft reads the countdown of a lock's row.
func timeLeft(t *testing.T, tab context.Context, l lockOf) time.Duration {
	t.Helper()
	words := read[string](t, tab, fmt.Sprintf(`document.querySelector(%q).textContent`, l.row+" .left"))
	left, err := time.ParseDuration(strings.NewReplacer(" h", "h", " min", "m", " s", "s", " ", "").Replace(words))
	if err != nil {
		t.Fatalf("time left %q: %v", words, err)
	}
	return left
}

// inWords is how the page writes some minutes.
func inWords(d time.Duration) string {
	return fmt.Sprintf("%d min %02d s", int(d.Minutes()), int(d.Seconds())%60)
}

func browserWithoutScripts(t *testing.T, a *app) {
	tab := openTab(t, a)
	switchOffScripts(t, tab)
	signInOnPage(t, tab, adminEmail)
	l := takeLock(t, a, "Cut the hedge")
	do(t, tab, chromedp.Reload())
	if read[bool](t, tab, `document.documentElement.classList.contains("script")`) {
		t.Fatal("the page's script ran: this is no test without JavaScript")
	}
	if !read[bool](t, tab, `document.querySelector("noscript meta[http-equiv=refresh]") !== null`) {
		t.Error("nothing refreshes the page without JavaScript")
	}
	if shown := read[string](t, tab, fmt.Sprintf(`document.querySelector(%q).innerText`, l.row)); !strings.Contains(shown, "alice@example.com") {
		t.Errorf("the row does not show the holder: %s", shown)
	}
	if left := timeLeft(t, tab, l); left > 5*time.Minute || left < 4*time.Minute {
		t.Errorf("%v left of a new lock of 5 minutes", left)
	}

	do(t, tab, click(l.forceControl))
	until(t, tab, `document.querySelector("h1")?.textContent === "Force this lock?"`)
	do(t, tab, fill("#reason", "left for the day"), click("main form button.danger"))
	until(t, tab, fmt.Sprintf(`document.querySelector(".notice")?.textContent.includes("process:%s has ended.")`, l.process))
	if !read[bool](t, tab, fmt.Sprintf(`document.querySelector(%q) === null`, l.row)) {
		t.Error("the forced lock is still in the table")
	}
	l.forced(t, "left for the day")

	do(t, tab, click(".who button"))
	until(t, tab, `document.querySelector("#password") !== null && document.querySelector(".notice")?.textContent === "You are signed out."`)
}

// tabTo presses Tab until an element has the focus.
func tabTo(t *testing.T, tab context.Context, css string) {
	t.Helper()
	for range 40 {
		do(t, tab, press(kb.Tab))
		if read[bool](t, tab, fmt.Sprintf(`document.activeElement.matches(%q)`, css)) {
			return
		}
	}
	t.Fatalf("Tab does not reach %s", css)
}

func browserKeyboard(t *testing.T, a *app) {
	tab := openTab(t, a, "status of 401") // a refresh under way when it signs out
	until(t, tab, `document.activeElement?.id === "email"`)
	do(t, tab, press(adminEmail, kb.Tab))
	until(t, tab, `document.activeElement?.id === "password"`)
	do(t, tab, press(demoPassword, kb.Enter))
	until(t, tab, `document.querySelector("h1")?.textContent === "Locks held now"`)

	do(t, tab, press(kb.Tab))
	until(t, tab, `document.activeElement?.matches("a.skip") && document.activeElement.getBoundingClientRect().top >= 0`)

	l := takeLock(t, a, "Sweep the yard")
	until(t, tab, fmt.Sprintf(`document.querySelector(%q) !== null`, l.row))
	tabTo(t, tab, l.forceControl)
	if read[string](t, tab, `getComputedStyle(document.activeElement).outlineStyle`) == "none" {
		t.Error("the focus cannot be seen")
	}
	other := takeLock(t, a, "Mow the lawn") // the table is replaced under the focus
	until(t, tab, fmt.Sprintf(`document.querySelector(%q) !== null`, other.row))
	until(t, tab, fmt.Sprintf(`document.activeElement?.matches(%q)`, l.forceControl))
	if !read[bool](t, tab, fmt.Sprintf(`document.querySelector(%q).compareDocumentPosition(document.querySelector(%q)) === Node.DOCUMENT_POSITION_FOLLOWING`, l.row, other.row)) {
		t.Error("a newer lock moved the row that has the focus")
	}

	do(t, tab, press(kb.Enter))
	until(t, tab, `document.activeElement?.id === "reason"`)
	do(t, tab, press("nobody is there", kb.Enter))
	until(t, tab, `document.activeElement?.matches(".notice")`) // a screen reader says it
	l.forced(t, "nobody is there")
	other.release(t)

	tabTo(t, tab, ".who button")
	do(t, tab, press(kb.Enter))
	until(t, tab, `document.querySelector("#password") !== null`)
}

// browserPointer: no row moves under the pointer. When it has left, the table is as the server
// has it.
func browserPointer(t *testing.T, a *app) {
	admin := newDesk(t, a, adminEmail)
	l := takeLock(t, a, "Polish the bell")
	admin.do(chromedp.Navigate(a.URL + "/"))
	admin.until(`document.querySelector(%q) !== null && document.documentElement.matches(".live")`, l.row)
	admin.mouse(input.DispatchMouseEventTypeMouseMoved, l.row)
	top := func() float64 {
		return read[float64](t, admin.tab, fmt.Sprintf(`document.querySelector(%q).getBoundingClientRect().top`, l.row))
	}
	before := top()
	other := takeLock(t, a, "Ring the bell")
	admin.until(`document.querySelector(%q) !== null`, other.row)
	l.release(t)
	admin.until(`document.querySelector(%q)?.matches(".over") && document.querySelector(%q).innerText.includes("ended")`, l.row, l.row)
	if now := top(); now != before {
		t.Errorf("the row under the pointer moved from %v to %v", before, now)
	}
	admin.mouse(input.DispatchMouseEventTypeMouseMoved, "h1")
	admin.until(`document.querySelector(%q) === null && document.querySelector(%q) !== null`, l.row, other.row)

	// A row that goes from a search is not one whose lock has ended.
	another := takeLock(t, a, "Hang the bell")
	admin.do(chromedp.Navigate(a.URL + "/?q=bell"))
	admin.until(`document.querySelector(".count")?.innerText === "2 locks found" && document.documentElement.matches(".live")`)
	admin.mouse(input.DispatchMouseEventTypeMouseMoved, other.row)
	other.alice.call(t, "PUT /processes/"+other.process, map[string]any{"title": "Ring twice", "status": "draft", "description": ""}, "X-Lock-Token: "+other.token).is(t, 200)
	admin.until(`document.querySelector(%q)?.innerText.includes("not in this list now") && document.querySelector(".count").innerText === "1 lock found"`, other.row)
	if read[bool](t, admin.tab, fmt.Sprintf(`document.querySelector(%q).matches(".over")`, other.row)) {
		t.Error("a lock that is held is struck through")
	}
	// Where the locks cannot be listed at all, the page says so above the rows, which stay.
	missing := read[string](t, admin.tab, fmt.Sprintf(`(() => {
		const list = "<div id=locks data-user=" + document.body.dataset.user + " data-partial><p class='empty missing'>Not now.</p></div>";
		document.dispatchEvent(new CustomEvent("htmx:beforeSwap", { detail: { xhr: { status: 200 }, serverResponse: list } }));
		return document.querySelector(%q) && !document.querySelector("#locks .count, #locks .over") ? "" : document.querySelector("#locks").innerText;
	})()`, "#locks > .missing + table "+another.row+" .left"))
	if missing != "" {
		t.Errorf("while the locks cannot be listed the page has %s", missing)
	}
	other.release(t)
	another.release(t)
}
