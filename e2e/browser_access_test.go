package e2e

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"gatehouse/services/servicestest"
)

// axe is axe-core of Deque Systems (MPL-2.0), from the npm package of that name and version.
const axe = "testdata/axe-core-4.14.1.min.js"

// accessible holds the page that a tab shows to axe's rules, wide and narrow, light and dark, to a
// width that needs no scrolling sideways, and to what users without a mouse need.
func (d desk) accessible(name string) {
	d.t.Helper()
	d.t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
		source, err := os.ReadFile(axe)
		if err != nil {
			t.Fatal(err)
		}
		read[bool](t, d.tab, string(source)+"\n;true")
		// What a scheme changes is colours, so for the second one of a width the rules about them
		// do, and only when the proofs run in full.
		const all, colours = ``, `, runOnly: ["color-contrast", "link-in-text-block"]`
		for _, look := range []struct {
			scheme, rules string
			width, height int64
		}{{"dark", colours, 1280, 900}, {"light", all, 1280, 900}, {"light", colours, 390, 844}, {"dark", all, 390, 844}} {
			if look.rules == colours && !servicestest.LongProof() {
				continue
			}
			do(t, d.tab, chromedp.EmulateViewport(look.width, look.height, chromedp.EmulateOrientation(emulation.ScreenOrientationTypePortraitPrimary, 0)))
			emulate(t, d.tab, "prefers-color-scheme", look.scheme)
			until(t, d.tab, `document.getAnimations().length === 0`)
			read[bool](t, d.tab, `(window.found = null, axe.run({resultTypes: ["violations"]`+look.rules+`}).then(({violations}) => {
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
				screenshot(t, d.tab, fmt.Sprintf("page-%s-%s-%d", strings.ReplaceAll(name, " ", "-"), look.scheme, look.width))
			}
		}
		do(t, d.tab, chromedp.EmulateViewport(1280, 900))
		walked(t, d.tab)
	})
}

// walked presses Tab from the start of the page to its end, and holds it to this: whatever can be
// used with the mouse gets the focus, once, in the order of the page, can be seen there, and lets
// go of it.
func walked(t *testing.T, tab context.Context) {
	t.Helper()
	stops := read[int](t, tab, `(() => {
		const name = (one) => one.tagName.toLowerCase() + " " + (one.id || one.name || "") + " " + (one.ariaLabel || one.innerText || one.value || "").slice(0, 40);
		const group = (one) => { // of radio buttons, of which the keys with arrows choose one
			const of = (rest) => document.querySelector("[name='" + one.name + "']" + rest);
			return one.type === "radio" ? of(":checked") ?? of("") : one;
		};
		const again = window.walk !== undefined;
		window.walk = {
			want: [...new Set([...document.querySelectorAll("a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex='0']")]
				.filter((one) => one.checkVisibility({visibilityProperty: true}) && !one.disabled).map(group))].map(name),
			got: [], unseen: [],
		};
		if (!again) document.addEventListener("focusin", ({target}) => {
			walk.got.push(name(target));
			const {outlineStyle, outlineWidth} = getComputedStyle(target);
			const box = target.getBoundingClientRect();
			const middle = box.y + Math.min(box.height, innerHeight) / 2; // of a long text the beginning may be all that is on the screen
			const there = document.elementFromPoint(box.x + box.width / 2, Math.min(middle, innerHeight - 2));
			if (outlineStyle === "none" || parseFloat(outlineWidth) < 2 || !target.contains(there)) walk.unseen.push(name(target) + " outline " + outlineStyle + " under " + there?.tagName);
		});
		document.activeElement?.blur();
		const start = document.createElement("span");
		start.tabIndex = -1;
		document.body.prepend(start);
		start.focus();
		start.remove();
		walk.got = [], walk.unseen = [];
		return walk.want.length;
	})()`)
	do(t, tab, press(strings.Repeat(kb.Tab, stops+1))) // the last one leaves the page
	until(t, tab, fmt.Sprintf(`walk.got.length >= %d`, stops))
	if read[bool](t, tab, `walk.got.join("\n") !== walk.want.join("\n")`) {
		t.Errorf("by keyboard the page is\n%s\nwant\n%s", read[string](t, tab, `walk.got.join("\n")`), read[string](t, tab, `walk.want.join("\n")`))
	}
	if unseen := read[string](t, tab, `walk.unseen.join("\n")`); unseen != "" {
		t.Errorf("the focus cannot be seen:\n%s", unseen)
	}
}

// browserAccessible opens every page that users have.
func browserAccessible(t *testing.T, a *app) {
	alice, admin := pageDesk(t, a, "alice@example.com", "status of 4"), pageDesk(t, a, adminEmail, "status of 4")
	bob := a.signIn(t, "bob@example.com")
	// What users write may have a word that is wider than a phone, or run from right to left.
	word := strings.Repeat("Donaudampfschifffahrt", 6) + " השחז את המסורים"
	title := "Sharpen the saws " + word
	process := alice.newProcess(title)
	open := func(d desk, path string) {
		t.Helper()
		d.do(chromedp.Navigate(a.URL + path))
	}
	desk{alice.client, t, openTab(t, a)}.accessible("sign in")
	admin.accessible("nothing locked")
	alice.look(process)
	alice.accessible("process")
	alice.edit(process)
	alice.do(fill("#description", "The long one first "+word))
	alice.kept(process, "The long one first "+word)
	alice.accessible("edit")
	admin.look(process)
	admin.accessible("process that another edits")
	open(admin, "/")
	admin.until(`document.querySelector("tr[data-resource]") !== null`)
	admin.accessible("locks")
	for _, path := range []string{"/processes", "/processes/new", "/account", "/password", "/users", "/problems", "/problems/locked", "/refusals", "/users/sessions?id=" + bob.id, "/nowhere", "/locks/force?resource=process:" + process} {
		open(admin, path)
		admin.accessible("page of " + strings.Trim(strings.NewReplacer("/", " ", "?", " ", "=", " ", ":", " ").Replace(path), " "))
	}
	admin.call(t, "DELETE /locks/process:"+process+"?reason="+url.QueryEscape(word), nil).is(t, 204)
	alice.until(`document.querySelector("#lost")?.innerText.includes("המסורים")`)
	alice.accessible("lost")
	token := bob.call(t, "POST /processes/"+process+"/lock", nil).is(t, 201).text(t, "lockToken")
	bob.call(t, "PUT /processes/"+process, map[string]any{"title": title, "status": "active", "description": "The short one\nfirst\n" + word}, "X-Lock-Token: "+token).is(t, 200)
	bob.call(t, "DELETE /processes/"+process+"/lock", nil, "X-Lock-Token: "+token).is(t, 204)
	alice.look(process)
	alice.accessible("process with a draft")
	alice.do(click("#draft form[action$='/edit'] button"))
	alice.until(`document.querySelector("#conflict") !== null`)
	alice.accessible("conflict")

	// What the pages are for, without a mouse.
	uses := func(d desk, css, key, then string) {
		t.Helper()
		tabTo(t, d.tab, css)
		d.do(press(key))
		d.until("%s", then)
	}
	uses(alice, "#description-mine", kb.ArrowDown, `document.querySelector("#description-theirs").checked`)
	uses(alice, "#conflict button.primary", kb.Enter, `document.querySelector("#edit")?.dataset.held === "true" && document.querySelector("#description").value.startsWith("The short one")`)
	uses(alice, "button[value=close]", " ", `document.querySelector(".reader") !== null`)
	uses(alice, `a[href$="/history"]`, kb.Enter, `document.querySelector(".history") !== null`)
	alice.accessible("history")
	uses(alice, `form[action$="/restore"] button`, kb.Enter, `document.querySelector(".notice") !== null`)
	uses(alice, `nav a[href="/processes"]`, kb.Enter, `document.querySelector("tr[data-resource]") !== null`)
	uses(alice, "#q", "saws"+kb.Enter, `location.search.includes("q=saws")`)
	uses(alice, "tr[data-resource] a.title", kb.Enter, `document.querySelector(".reader") !== null`)
	uses(alice, `nav a[href="/account"]`, kb.Enter, `location.pathname === "/account"`)
	uses(alice, `form[action="/sessions/end-others"] button`, " ", `document.querySelector(".notice")?.textContent === "All your other sessions have ended."`)
	open(admin, "/users")
	uses(admin, "details.below summary", kb.Enter, `document.querySelector("details.below").open`)
	tabTo(t, admin.tab, "details.below button.danger")
}
