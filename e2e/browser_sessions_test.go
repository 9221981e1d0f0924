package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

func browserSessions(t *testing.T, a *app) {
	elsewhere := a.signIn(t, adminEmail)
	tab := newDesk(t, a, adminEmail).tab
	do(t, tab, chromedp.Navigate(a.URL+"/account"), click(`form[action="/sessions/end-others"] button`))
	until(t, tab, `document.querySelector(".notice")?.textContent === "All your other sessions have ended."`)
	elsewhere.call(t, "GET /auth/session", nil).problem(t, 401, "unauthenticated")

	elsewhere = a.signIn(t, adminEmail)
	do(t, tab, chromedp.Reload(), chromedp.Click(chromedp.CSS(`form[action="/sessions/end"] button`)))
	until(t, tab, `document.querySelector(".notice")?.textContent === "The session has ended."`)
	elsewhere.call(t, "GET /auth/session", nil).problem(t, 401, "unauthenticated")
}

// browserRevoked: a page left open shows nothing any more once its session has
// been ended from elsewhere.
func browserRevoked(t *testing.T, a *app) {
	tab := newDesk(t, a, adminEmail, "status of 401").tab // the refresh that is refused
	do(t, tab, chromedp.Navigate(a.URL+"/"))
	until(t, tab, `document.querySelector("h1")?.textContent === "Locks held now"`)
	a.signIn(t, adminEmail).call(t, "DELETE /sessions", nil).is(t, 204)
	until(t, tab, `document.querySelector("#password") !== null && !document.body.innerText.includes("Locks held now")`)

	// One that asks for nothing meanwhile goes when its time is over, and is there again after signing in.
	a.signIn(t, adminEmail).enter(t, tab)
	do(t, tab, chromedp.Navigate(a.URL+"/processes?q=saws"))
	a.signIn(t, adminEmail).call(t, "DELETE /sessions", nil).is(t, 204)
	read[bool](t, tab, `(document.body.dataset.ends = "1", true)`)
	until(t, tab, `document.querySelector("#password") !== null && document.querySelector("#error").textContent === "Your session has ended. Sign in again."`)
	do(t, tab, fill("#email", adminEmail), fill("#password", demoPassword), click("main form button"))
	until(t, tab, `location.pathname + location.search === "/processes?q=saws" && document.querySelector("#q")?.value === "saws"`)
}

// browserBack: a page that the browser has kept for "Back" is not shown again once its
// reader has signed out, or the session has been ended from elsewhere.
func browserBack(t *testing.T, a *app) {
	signOut := func(t *testing.T, tab context.Context) {
		do(t, tab, click(".who button"))
		until(t, tab, `document.querySelector(".notice")?.textContent === "You are signed out."`)
	}
	endedElsewhere := func(t *testing.T, tab context.Context) {
		do(t, tab, click(`footer a[href="/problems"]`))
		until(t, tab, `location.pathname === "/problems" && document.readyState === "complete"`)
		a.signIn(t, adminEmail).call(t, "DELETE /sessions", nil).is(t, 204)
	}
	otherUser := func(t *testing.T, tab context.Context) {
		signOut(t, tab)
		signInOnPage(t, tab, "alice@example.com")
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
			tab := emptyTab(t, chromium, "status of 401") // the pages that ask for a sign-in
			a.signIn(t, adminEmail).enter(t, tab)
			do(t, tab, chromedp.Navigate(a.URL+"/"))
			until(t, tab, `document.querySelector("h1")?.textContent === "Locks held now"`)
			if row.path == "/password" {
				do(t, tab, click(`a[href="/account"]`))
			}
			if row.path != "/" {
				do(t, tab, click(fmt.Sprintf("a[href=%q]", row.path)))
				until(t, tab, fmt.Sprintf(`location.pathname === %q && document.readyState === "complete"`, row.path))
			}
			// Who is named when the page comes back, noted after its own script has run.
			read[bool](t, tab, `(addEventListener("pageshow", (event) => {
				if (event.persisted) sessionStorage.kept = document.querySelector(".who")?.textContent ?? "";
			}), true)`)
			row.leave(t, tab)
			read[bool](t, tab, `window.left = true`)
			back(t, tab, row.pages)
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
