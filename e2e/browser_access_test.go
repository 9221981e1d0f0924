package e2e

import (
	"os"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// axe is axe-core of Deque Systems (MPL-2.0), from the npm package of that name and version.
const axe = "testdata/axe-core-4.14.1.min.js"

// accessible holds the page that a tab shows to axe's rules, wide and light, and narrow and dark,
// and to a width that needs no scrolling sideways.
func (d desk) accessible(name string) {
	d.t.Helper()
	d.t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
		source, err := os.ReadFile(axe)
		if err != nil {
			t.Fatal(err)
		}
		read[bool](t, d.tab, string(source)+"\n;true")
		for _, look := range []struct {
			scheme        string
			width, height int64
		}{{"light", 1280, 900}, {"dark", 390, 844}} {
			do(t, d.tab, chromedp.EmulateViewport(look.width, look.height, chromedp.EmulateOrientation(emulation.ScreenOrientationTypePortraitPrimary, 0)))
			emulate(t, d.tab, "prefers-color-scheme", look.scheme)
			until(t, d.tab, `document.getAnimations().length === 0`)
			read[bool](t, d.tab, `(window.found = null, axe.run().then(({violations}) => {
				window.found = violations.map((one) => one.id + ": " + one.nodes.map((node) => node.target + " " + node.failureSummary).join("; ")).join("\n");
			}), true)`)
			until(t, d.tab, `window.found !== null`)
			if found := read[string](t, d.tab, `window.found`); found != "" {
				t.Errorf("%s, %d wide:\n%s", look.scheme, look.width, found)
			}
			if wide := read[float64](t, d.tab, `document.documentElement.scrollWidth - window.innerWidth`); wide > 0 {
				t.Errorf("%s: %v pixels too wide", look.scheme, wide)
			}
			if os.Getenv("GATEHOUSE_SCREENSHOTS") != "" {
				screenshot(t, d.tab, "page-"+strings.ReplaceAll(name, " ", "-")+"-"+look.scheme)
			}
		}
		do(t, d.tab, chromedp.EmulateViewport(1280, 900))
	})
}

// browserAccessible opens every page that users have.
func browserAccessible(t *testing.T, a *app) {
	alice, admin := newDesk(t, a, "alice@example.com", "status of 4"), newDesk(t, a, adminEmail, "status of 4")
	bob := a.signIn(t, "bob@example.com")
	process := alice.newProcess("Sharpen the saws")
	open := func(d desk, path string) {
		t.Helper()
		d.do(chromedp.Navigate(a.URL + path))
	}
	admin.accessible("nothing locked")
	alice.look(process)
	alice.accessible("process")
	alice.edit(process)
	alice.do(fill("#description", "The long one first"))
	alice.kept(process, "The long one first")
	alice.accessible("edit")
	admin.look(process)
	admin.accessible("process that another edits")
	open(admin, "/")
	admin.until(`document.querySelector("tr[data-resource]") !== null`)
	admin.accessible("locks")
	for _, path := range []string{"/processes", "/processes/new", "/account", "/password", "/users", "/problems", "/locks/force?resource=process:" + process} {
		open(admin, path)
		admin.accessible("page of " + strings.Trim(strings.NewReplacer("/", " ", "?", " ", "=", " ", ":", " ").Replace(path), " "))
	}
	admin.call(t, "DELETE /locks/process:"+process+"?reason=test", nil).is(t, 204)
	alice.until(`document.querySelector("#lost") !== null`)
	alice.accessible("lost")
	token := bob.call(t, "POST /processes/"+process+"/lock", nil).is(t, 201).text(t, "lockToken")
	bob.call(t, "PUT /processes/"+process, map[string]any{"title": "Sharpen the saws", "status": "active", "description": "The short one\nfirst"}, "X-Lock-Token: "+token).is(t, 200)
	bob.call(t, "DELETE /processes/"+process+"/lock", nil, "X-Lock-Token: "+token).is(t, 204)
	alice.look(process)
	alice.accessible("process with a draft")
	alice.do(click("#draft form[action$='/edit'] button"))
	alice.until(`document.querySelector("#conflict") !== null`)
	alice.accessible("conflict")
	open(alice, "/processes/"+process+"/history")
	alice.accessible("history")
}
