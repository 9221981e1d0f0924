package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"gatehouse/services/servicestest"
)

// TestBrowser is what an administrator sees and does on the page, in a real
// Chromium. Every part has cookies of its own, and holds the page to a console
// without errors and a Content-Security-Policy without violations.
func TestBrowser(t *testing.T) {
	t.Parallel()
	a, browser := start(t, "ADDR="+servicestest.FreeAddr(t)), startBrowser(t)
	for _, part := range []struct {
		name string
		run  func(t *testing.T, browser context.Context, a *app)
	}{
		{"force a lock", browserForce},
		{"force a lock without JavaScript", browserWithoutScripts},
		{"keyboard only", browserKeyboard},
		{"end the other sessions", browserSessions},
		{"signed out from elsewhere", browserRevoked},
		{"back after signing out", browserBack},
		{"Swagger UI", browserSwagger},
		{"light and dark", browserLooks},
	} {
		t.Run(strings.ReplaceAll(part.name, " ", "-"), func(t *testing.T) { part.run(t, browser, a) })
	}
}

const adminEmail = "admin@example.com"

// signInOnPage fills in the form that the tab shows.
func signInOnPage(t *testing.T, tab context.Context) {
	t.Helper()
	do(t, tab, fill("#email", adminEmail), fill("#password", demoPassword), click("main form button"))
	until(t, tab, `document.querySelector("h1")?.textContent === "Locks held now"`)
	until(t, tab, `document.querySelector(".who").textContent.includes("admin@example.com")`)
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

func browserForce(t *testing.T, browser context.Context, a *app) {
	servicestest.Need(t, "curl", "curl") // the example's
	tab := openTab(t, browser, a)
	signInOnPage(t, tab)
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
	for last := first; last > first-3*time.Second; {
		until(t, tab, fmt.Sprintf(`document.querySelector(%q).textContent !== %q`, l.row+" .left", inWords(last)))
		next := timeLeft(t, tab, l)
		if next > last+time.Second { // a second: the clock of a refreshed table is as old as its answer
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

	// And a lock that goes by itself goes from the page.
	again := takeLock(t, a, "Paint the shed")
	until(t, tab, fmt.Sprintf(`document.querySelector(%q) !== null`, again.row))
	again.release(t)
	until(t, tab, fmt.Sprintf(`document.querySelector(%q) === null`, again.row))
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

func browserWithoutScripts(t *testing.T, browser context.Context, a *app) {
	tab := openTab(t, browser, a)
	switchOffScripts(t, tab)
	signInOnPage(t, tab)
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

func browserKeyboard(t *testing.T, browser context.Context, a *app) {
	tab := openTab(t, browser, a, "status of 401") // a refresh under way when it signs out
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

func browserSessions(t *testing.T, browser context.Context, a *app) {
	elsewhere := a.signIn(t, adminEmail)
	tab := openTab(t, browser, a)
	signInOnPage(t, tab)
	do(t, tab, chromedp.Click(chromedp.CSS(`form[action="/sessions/end-others"] button`)))
	until(t, tab, `document.querySelector(".notice")?.textContent === "All your other sessions have ended."`)
	elsewhere.call(t, "GET /auth/session", nil).problem(t, 401, "unauthenticated")

	elsewhere = a.signIn(t, adminEmail)
	do(t, tab, chromedp.Reload(), chromedp.Click(chromedp.CSS(`form[action="/sessions/end"] button`)))
	until(t, tab, `document.querySelector(".notice")?.textContent === "The session has ended."`)
	elsewhere.call(t, "GET /auth/session", nil).problem(t, 401, "unauthenticated")
}

// browserRevoked: a page left open shows nothing any more once its session has
// been ended from elsewhere.
func browserRevoked(t *testing.T, browser context.Context, a *app) {
	tab := openTab(t, browser, a, "status of 401") // the refresh that is refused
	signInOnPage(t, tab)
	a.signIn(t, adminEmail).call(t, "DELETE /sessions", nil).is(t, 204)
	until(t, tab, `document.querySelector("#password") !== null && !document.body.innerText.includes("My sessions")`)
}

// browserBack: a page that the browser has kept for "Back" is not shown again once its
// reader has signed out, or the session has been ended from elsewhere.
func browserBack(t *testing.T, browser context.Context, a *app) {
	signOut := func(t *testing.T, tab context.Context) {
		do(t, tab, click(".who button"))
		until(t, tab, `document.querySelector(".notice")?.textContent === "You are signed out."`)
	}
	endedElsewhere := func(t *testing.T, tab context.Context) {
		do(t, tab, click(`nav a[href="/problems"]`))
		until(t, tab, `location.pathname === "/problems" && document.readyState === "complete"`)
		a.signIn(t, adminEmail).call(t, "DELETE /sessions", nil).is(t, 204)
	}
	otherUser := func(t *testing.T, tab context.Context) {
		signOut(t, tab)
		do(t, tab, fill("#email", "alice@example.com"), fill("#password", demoPassword), click("main form button"))
		until(t, tab, `document.querySelector(".who")?.textContent.includes("alice@example.com")`)
	}
	for _, row := range []struct {
		name, path string
		leave      func(t *testing.T, tab context.Context)
		pages      int    // to go back
		then       string // true of the page that may be shown
	}{
		{"dashboard, signed out", "/", signOut, 1, `document.querySelector("#password") !== null`},
		{"users, signed out", "/users", signOut, 1, `document.querySelector("#password") !== null`},
		{"password, session ended elsewhere", "/password", endedElsewhere, 1, `document.querySelector("#email") !== null`},
		{"dashboard, another user", "/", otherUser, 2, `document.querySelector(".who")?.textContent.includes("alice@example.com")`},
	} {
		t.Run(strings.ReplaceAll(row.name, " ", "-"), func(t *testing.T) {
			tab := openTab(t, browser, a, "status of 401") // the pages that ask for a sign-in
			signInOnPage(t, tab)
			if row.path != "/" {
				do(t, tab, click(fmt.Sprintf("a[href=%q]", row.path)))
				until(t, tab, fmt.Sprintf(`location.pathname === %q && document.readyState === "complete"`, row.path))
			}
			// Who is named when the page comes back, noted after its own script has run.
			read[bool](t, tab, `(addEventListener("pageshow", (event) => {
				if (event.persisted) sessionStorage.kept = document.querySelector(".who")?.textContent ?? "";
			}), true)`)
			row.leave(t, tab)
			read[bool](t, tab, fmt.Sprintf(`(window.left = true, history.go(-%d), true)`, row.pages))
			until(t, tab, fmt.Sprintf(`!window.left && location.pathname + location.search === %q && document.readyState === "complete" && (%s)`, row.path, row.then))
			if kept := read[string](t, tab, `sessionStorage.kept ?? ""`); strings.Contains(kept, adminEmail) {
				t.Errorf("the page of before is shown: %s", kept)
			}
			if read[bool](t, tab, `sessionStorage.kept === undefined`) {
				t.Log("the browser had not kept the page: ", read[string](t, tab, `JSON.stringify(performance.getEntriesByType("navigation")[0].notRestoredReasons)`))
			}
		})
	}
}

func browserSwagger(t *testing.T, browser context.Context, a *app) {
	alice := a.signIn(t, "alice@example.com")
	tab := openTab(t, browser, a)
	do(t, tab,
		chromedp.Navigate(a.URL+"/swagger/index.html"),
		click(".auth-wrapper .authorize"),
		fill(".auth-container input", "Bearer "+alice.token),
		click(".auth-container button.authorize"),
		click(".auth-container button.btn-done"),
		click("[id$='get_auth_session'] .opblock-summary"),
		click("[id$='get_auth_session'] .try-out__btn"),
		click("[id$='get_auth_session'] .execute"),
	)
	live := `document.querySelector("[id$='get_auth_session'] .live-responses-table")`
	until(t, tab, live+` !== null`)
	if status := read[string](t, tab, live+`.querySelector("tbody .response-col_status").innerText`); !strings.HasPrefix(strings.TrimSpace(status), "200") {
		t.Errorf("Try it out answers %s", status)
	}
	if body := read[string](t, tab, live+`.innerText`); !strings.Contains(body, "alice@example.com") {
		t.Errorf("Try it out shows %s", body)
	}
	screenshot(t, tab, "swagger")
}

// browserLooks: both colour schemes are what they say, on a wide and on a narrow
// screen, and nothing has to be scrolled sideways.
func browserLooks(t *testing.T, browser context.Context, a *app) {
	tab := openTab(t, browser, a)
	look := func(name string) {
		t.Helper()
		for _, scheme := range []string{"light", "dark"} {
			emulate(t, tab, "prefers-color-scheme", scheme)
			bright := screenshot(t, tab, name+"-"+scheme)
			if scheme == "light" != (bright > 0.7) || scheme == "dark" != (bright < 0.3) {
				t.Errorf("%s, %s: a mean brightness of %.2f", name, scheme, bright)
			}
		}
		if wide := read[float64](t, tab, `document.documentElement.scrollWidth - window.innerWidth`); wide > 0 {
			t.Errorf("%s: %v pixels too wide", name, wide)
		}
	}
	look("sign-in")
	signInOnPage(t, tab)
	look("nothing-locked")
	l, second := takeLock(t, a, "Repair the roof"), takeLock(t, a, strings.Repeat("A long title of an important process ", 5))
	until(t, tab, fmt.Sprintf(`document.querySelector(%q) !== null && document.querySelector(%q) !== null`, l.row, second.row))
	look("dashboard")
	do(t, tab, chromedp.EmulateViewport(390, 844, chromedp.EmulateScale(2), chromedp.EmulateOrientation(emulation.ScreenOrientationTypePortraitPrimary, 0)))
	look("dashboard-narrow")
	do(t, tab, click(l.forceControl))
	until(t, tab, `document.querySelector("#reason") !== null`)
	look("force-narrow")
	do(t, tab, chromedp.EmulateViewport(1280, 900))
	look("force")
	l.release(t)
	second.release(t)
}
